//! The status machine against rows, and against anything a guest may write.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use crate::pci::{MsiSink, Msix, VECTOR_NONE};
use proptest::prelude::*;

const OFFERED: u64 = F_VERSION_1 | 1 << 5;

struct Nobody;

impl MsiSink for Nobody {
    fn send(&self, _: u64, _: u32) {}
}

fn registers() -> Registers {
    let vectors = Arc::new(Vectors::new(2));
    let msix = Arc::new(Msix::new(vectors.count(), Arc::new(Nobody)));
    let interrupt = Arc::new(Interrupt::new(msix, vectors.clone()));
    Registers::new(OFFERED, &[256, 64], vectors, interrupt, ConfigSpace::new(Vec::new()))
}

fn get(registers: &Registers, offset: u32, length: usize) -> u64 {
    let mut data = [0; 8];
    registers.read(offset, &mut data[..length]);
    u64::from_le_bytes(data)
}

fn accept(registers: &mut Registers, features: u64) {
    for half in 0..2u32 {
        registers.write(at::DRIVER_FEATURE_SELECT, &half.to_le_bytes());
        let bits = (features >> (32 * half)) as u32;
        registers.write(at::DRIVER_FEATURE, &bits.to_le_bytes());
    }
}

/// Brings the device to the point where queues are set up.
fn features_ok(registers: &mut Registers) {
    registers.write(at::DEVICE_STATUS, &[1]);
    registers.write(at::DEVICE_STATUS, &[3]);
    accept(registers, F_VERSION_1);
    registers.write(at::DEVICE_STATUS, &[11]);
    assert_eq!(get(registers, at::DEVICE_STATUS, 1), 11);
}

#[test]
fn statuses() {
    // (writes, status read back, last effect)
    for (writes, status, effect) in [
        (&[1u8, 3, 11, 15][..], 15u64, Effect::Activate),
        (&[1, 3, 11, 15, 15], 15, Effect::None),
        (&[1, 3, 11, 15, 0], 0, Effect::Reset),
        (&[2], 0, Effect::None),
        (&[1, 3, 7], 3, Effect::None),
        (&[15], 3, Effect::None),
        (&[1, 3, 15], 11, Effect::None),
        (&[1, 3, 11, 3], 11, Effect::None),
        (&[1, 3, 11, 128 | 11, 15 | 128], 139, Effect::None),
        (&[1, 3, 11, 64 | 15], 15, Effect::Activate),
    ] {
        let mut registers = registers();
        let mut last = Effect::None;
        for write in writes {
            if *write & FEATURES_OK != 0 {
                accept(&mut registers, F_VERSION_1);
            }
            last = registers.write(at::DEVICE_STATUS, &[*write]);
        }
        assert_eq!((get(&registers, at::DEVICE_STATUS, 1), last), (status, effect), "{writes:?}");
    }
}

#[test]
fn wrong_features_are_not_accepted() {
    for (features, right) in [
        (F_VERSION_1, true),
        (OFFERED, true),
        (0, false),
        (1 << 5, false),
        (F_VERSION_1 | 1 << 6, false),
        (u64::MAX, false),
    ] {
        let mut registers = registers();
        registers.write(at::DEVICE_STATUS, &[3]);
        accept(&mut registers, features);
        registers.write(at::DEVICE_STATUS, &[11]);
        assert_eq!(get(&registers, at::DEVICE_STATUS, 1) & 8 != 0, right, "{features:#x}");
        accept(&mut registers, OFFERED | 1);
        if right {
            assert_eq!(registers.features(), features, "frozen by FEATURES_OK");
        }
    }
}

#[test]
fn queue_registers_freeze_when_enabled() {
    let mut registers = registers();
    registers.write(at::QUEUE_SIZE, &[16, 0]);
    assert_eq!(get(&registers, at::QUEUE_SIZE, 2), 256, "before FEATURES_OK");
    features_ok(&mut registers);
    for (size, right) in [(0u16, false), (3, false), (512, false), (128, true)] {
        registers.write(at::QUEUE_SIZE, &size.to_le_bytes());
        assert_eq!(get(&registers, at::QUEUE_SIZE, 2) == u64::from(size), right, "{size}");
    }
    registers.write(at::QUEUE_DESC, &0x1000u32.to_le_bytes());
    registers.write(at::QUEUE_DESC + 4, &1u32.to_le_bytes());
    registers.write(at::QUEUE_DEVICE, &0x3000u64.to_le_bytes());
    registers.write(at::QUEUE_ENABLE, &[1, 0]);
    let before = registers.queues.clone();
    assert_eq!((before[0].desc, before[0].device), (0x1_0000_1000, 0x3000));
    for offset in at::QUEUE_SIZE..BYTES {
        registers.write(offset, &[0xff; 2]);
        registers.write(offset, &[0xff; 4]);
    }
    assert_eq!(registers.queues, before);
}

#[test]
fn vectors_past_the_table_read_back_as_none() {
    let mut registers = registers();
    for (vector, kept) in [(0u16, true), (2, true), (3, false), (0x7fff, false)] {
        registers.write(at::CONFIG_MSIX_VECTOR, &vector.to_le_bytes());
        let back = get(&registers, at::CONFIG_MSIX_VECTOR, 2);
        assert_eq!(back, u64::from(if kept { vector } else { VECTOR_NONE }));
    }
    registers.write(at::QUEUE_SELECT, &[9, 0]);
    registers.write(at::QUEUE_MSIX_VECTOR, &[0, 0]);
    assert_eq!(get(&registers, at::QUEUE_MSIX_VECTOR, 2), u64::from(VECTOR_NONE));
    assert_eq!(get(&registers, at::QUEUE_SIZE, 2), 0);
}

proptest! {
    /// Whatever is written: a device is activated only with features that we offer, nothing
    /// changes its queues while it is active, and sizes stay within their bounds.
    #[test]
    fn any_writes(
        writes in prop::collection::vec(
            prop_oneof![
                (0u32..0x40, prop::collection::vec(any::<u8>(), 0..9)),
                (Just(at::DEVICE_STATUS), prop::sample::select(vec![0u8, 1, 3, 11, 15, 128])
                    .prop_map(|status| vec![status])),
                (Just(at::DRIVER_FEATURE), Just(vec![1, 0, 0, 0])),
                (Just(at::DRIVER_FEATURE_SELECT), (0u8..2).prop_map(|half| vec![half, 0, 0, 0])),
                (Just(at::QUEUE_ENABLE), Just(vec![1, 0])),
            ],
            0..200,
        ),
    ) {
        let mut registers = registers();
        let mut active: Option<Vec<QueueRegisters>> = None;
        for (offset, data) in writes {
            match registers.write(offset, &data) {
                Effect::Activate => {
                    prop_assert!(active.is_none());
                    prop_assert_eq!(registers.features() & !OFFERED, 0);
                    prop_assert!(registers.features() & F_VERSION_1 != 0);
                    active = Some(registers.queues.clone());
                }
                Effect::Reset => active = None,
                Effect::None => {}
            }
            if let Some(queues) = &active {
                prop_assert_eq!(&registers.queues, queues);
            }
            for queue in &registers.queues {
                prop_assert!(queue.size.is_power_of_two() && queue.size <= queue.max_size);
            }
            let mut back = vec![0; data.len()];
            registers.read(offset, &mut back);
        }
    }
}

//! The function's capabilities and its window, and any access to it.

use crate::pci::Function;
use crate::virtio::driver::{BUFFERS, Driver};
use crate::virtio::rng::Rng;
use proptest::prelude::*;
use std::collections::BTreeMap;
use vm_memory::{Bytes, GuestAddress};

fn rng() -> Driver {
    let rng = Rng::default();
    Driver::new(rng.profile(), Box::new(rng))
}

fn config(driver: &mut Driver, at: usize, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    driver.function.config_read(at, &mut data);
    data
}

/// virtio capabilities by `cfg_type`: their places.
fn capabilities(driver: &mut Driver) -> BTreeMap<u8, usize> {
    let mut found = BTreeMap::new();
    let mut at = usize::from(config(driver, 0x34, 1)[0]);
    while at != 0 {
        let head = config(driver, at, 4);
        if head[0] == 9 {
            found.insert(head[3], at);
        }
        at = head[1].into();
    }
    found
}

#[test]
fn a_driver_finds_what_the_specification_demands() {
    let mut driver = rng();
    assert_eq!(config(&mut driver, 0, 4), [0xf4, 0x1a, 0x44, 0x10]);
    let found = capabilities(&mut driver);
    // Common, notify, ISR, PCI window; no device configuration, since the rng has none.
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 5]);
}

#[test]
fn the_window_reaches_the_registers_and_nothing_else() {
    let mut driver = rng();
    let window = capabilities(&mut driver)[&5];
    let mut through = |bar: u8, offset: u32, length: u32| {
        driver.function.config_write(window + 4, &[bar]);
        driver.function.config_write(window + 8, &offset.to_le_bytes());
        driver.function.config_write(window + 12, &length.to_le_bytes());
        config(&mut driver, window + 16, 4)
    };
    // num_queues is 1.
    assert_eq!(through(0, 0x12, 2), [1, 0, 0, 0]);
    for (bar, offset, length) in [(1, 0x12, 2), (0, 0x8000, 2), (0, u32::MAX, 4), (0, 0x12, 3)] {
        assert_ne!(through(bar, offset, length), [1, 0, 0, 0]);
    }
    driver.function.config_write(window + 4, &[0]);
    driver.function.config_write(window + 8, &0x14u32.to_le_bytes());
    driver.function.config_write(window + 12, &1u32.to_le_bytes());
    driver.function.config_write(window + 16, &[1, 0, 0, 0]);
    assert_eq!(driver.status(), 1);
}

#[test]
fn random_bytes_come_and_giant_requests_are_capped() {
    let mut driver = rng();
    driver.start(0);
    assert_eq!(driver.request(&[(BUFFERS, 64, true)]), 64);
    let mut bytes = [0; 64];
    driver.memory.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
    assert_ne!(bytes, [0; 64]);
    assert_eq!(driver.request(&[(BUFFERS, 2 << 20, true)]), 64 << 10);
    assert_eq!(driver.request(&[(BUFFERS, 64, false)]), 0);
}

#[test]
fn rings_outside_memory_need_a_reset() {
    for (register, address) in [(0x20u32, !15), (0x28, 4 << 20), (0x30, (4 << 20) - 4)] {
        let mut driver = rng();
        driver.write(0x14, &[3]);
        driver.write(0x08, &[1, 0, 0, 0]);
        driver.write(0x0c, &[1, 0, 0, 0]);
        driver.write(0x14, &[11]);
        let rings = [0x20, 0x28, 0x30].into_iter().zip([0x1000u64, 0x2000, 0x3000]);
        for (at, ring) in rings {
            let ring = if at == register { address } else { ring };
            driver.write(at, &ring.to_le_bytes());
        }
        driver.write(0x1c, &[1, 0]);
        driver.write(0x14, &[15]);
        assert_eq!(driver.status(), 64 | 15, "{register:#x}");
    }
}

#[test]
fn a_queue_that_was_not_enabled_needs_a_reset() {
    let mut driver = rng();
    driver.write(0x14, &[3]);
    driver.write(0x08, &[1, 0, 0, 0]);
    driver.write(0x0c, &[1, 0, 0, 0]);
    driver.write(0x14, &[11]);
    driver.write(0x14, &[15]);
    assert_eq!(driver.status(), 64 | 15);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any accesses to configuration space and BAR: no panic, and a reset still works.
    #[test]
    fn any_access(
        accesses in prop::collection::vec(
            (
                0usize..4,
                prop_oneof![0u32..0x40, 0u32..0x8000, 0x2ff8u32..0x3010, 0x3ff0u32..0x4030],
                prop::collection::vec(any::<u8>(), 1..9),
            ),
            0..100,
        ),
    ) {
        let mut driver = rng();
        for (kind, offset, data) in accesses {
            let mut back = data.clone();
            let at = offset as usize;
            match kind {
                0 => driver.function.config_write(at, &data),
                1 => driver.function.config_read(at, &mut back),
                2 => driver.function.bar_write(offset, &data),
                _ => driver.function.bar_read(offset, &mut back),
            }
        }
        driver.write(0x14, &[0]);
        prop_assert_eq!(driver.status(), 0);
        driver.start(0);
        prop_assert_eq!(driver.request(&[(BUFFERS, 64, true)]), 64);
    }
}

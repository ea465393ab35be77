//! The disk against a model: an array of bytes.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use proptest::prelude::*;

/// Sectors that each request of a batch has for itself.
const STRIPE: u64 = 12;
/// Requests at once: three descriptors each of the queue's sixteen.
const BATCH: usize = 5;

/// What a guest does: type, place in its stripe, sectors, offset of its buffer, a byte, flags.
type Step = (u32, u64, u32, u64, u8, u32);

fn step() -> impl Strategy<Value = Step> {
    (
        prop::sample::select(vec![0u32, 0, 1, 1, 4, 11, 13]),
        0..STRIPE + 2,
        0u32..6,
        0u64..600,
        any::<u8>(),
        0u32..2,
    )
}

/// Where the requests of a batch have their headers, data and status.
fn places(slot: usize) -> (u64, u64, u64) {
    let base = BUFFERS + 0x4000 * slot as u64;
    (base, base + 0x1000, base + 0x3000)
}

/// Offers a batch, each in its stripe, waits for all, and compares.
fn play(driver: &mut Driver, model: &mut [u8], batch: &[Step]) {
    let before = driver.queues[0].used_count();
    for (slot, (kind, place, sectors, shift, byte, flags)) in batch.iter().enumerate() {
        let (header, data, status) = places(slot);
        let sector = slot as u64 * STRIPE + place;
        let bytes = sectors * 512;
        driver.memory.write_obj(*kind, GuestAddress(header)).unwrap();
        driver.memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
        driver.memory.write_obj(0xeeu8, GuestAddress(status)).unwrap();
        let data = data + shift;
        driver.memory.write_slice(&vec![*byte; 0x1000], GuestAddress(data)).unwrap();
        let buffer = match kind {
            0 => (data, bytes, true),
            1 => (data, bytes, false),
            4 => (data, 0, false),
            _ => {
                driver.memory.write_obj(sector, GuestAddress(data)).unwrap();
                driver.memory.write_obj(*sectors, GuestAddress(data + 8)).unwrap();
                driver.memory.write_obj(*flags, GuestAddress(data + 12)).unwrap();
                (data, 16, false)
            }
        };
        driver.queues[0].offer(&[(header, 16, false), buffer, (status, 1, true)]);
    }
    driver.kick(0);
    let count = u16::try_from(batch.len()).unwrap();
    driver.wait(|driver| driver.queues[0].used_count() == before + count);
    for (slot, (kind, place, sectors, shift, byte, flags)) in batch.iter().enumerate() {
        let (_, data, status) = places(slot);
        let sector = slot as u64 * STRIPE + place;
        let there = sector + u64::from(*sectors) <= SECTORS;
        let expected = match (kind, flags) {
            (4, _) => 0,
            (11, 1) => 2,
            _ => u8::from(!there),
        };
        let status: u8 = driver.memory.read_obj(GuestAddress(status)).unwrap();
        assert_eq!(status, expected, "{:?}", batch[slot]);
        if status != 0 || *kind == 4 {
            continue;
        }
        let (from, length) = ((sector * 512) as usize, (sectors * 512) as usize);
        let part = &mut model[from..from + length];
        match kind {
            0 => {
                let mut read = vec![0; length];
                driver.memory.read_slice(&mut read, GuestAddress(data + shift)).unwrap();
                assert_eq!(read, part, "{:?}", batch[slot]);
            }
            1 => part.fill(*byte),
            _ => part.fill(0),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Batches of requests, each in a stripe that it has for itself while they run, over several
    /// batches in each other's: everything reads as it was written last, also in the file.
    #[test]
    fn the_disk_is_an_array_of_bytes(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..=BATCH), 1..12),
        aligned in any::<bool>(),
    ) {
        for engine in engines() {
            let file = file();
            let mut blk = Blk::new(file.try_clone().unwrap(), &options(engine)).unwrap();
            if aligned {
                want_alignment(&mut blk);
            }
            let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
            driver.start(F_FLUSH);
            let mut model = vec![0; (SECTORS * SECTOR) as usize];
            for batch in &batches {
                // A request mustn't reach into its neighbour's stripe.
                let batch: Vec<Step> = batch
                    .iter()
                    .enumerate()
                    .map(|(slot, step)| {
                        let last = slot == BATCH - 1;
                        let room = if last { u32::MAX } else { (STRIPE.max(step.1) - step.1) as u32 };
                        (step.0, step.1, step.2.min(room), step.3, step.4, step.5)
                    })
                    .collect();
                play(&mut driver, &mut model, &batch);
            }
            prop_assert!(stored(&file, 0, SECTORS as usize) == model);
        }
    }
}

/// As if the file had been opened for direct I/O, so that most buffers go the way of unaligned ones.
pub(super) fn want_alignment(blk: &mut Blk) {
    for part in &mut blk.parts {
        let old = &part.disk;
        let disk = Disk::new(old.file.try_clone().unwrap(), false, old.serial).unwrap();
        part.disk = Arc::new(Disk { direct: Some(512), ..disk });
        part.bounce = Some(Bounce::new().unwrap());
    }
}

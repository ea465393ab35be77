//! The disk, driven as a kernel does and as none would.

use super::*;
use crate::virtio::driver::{BUFFERS, Buffer, Driver, MEMORY};
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use vm_memory::{Bytes, GuestAddress};

const SECTORS: u64 = 64;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x8000;

fn disk(readonly: bool) -> (Driver, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * SECTOR + 100).unwrap();
    let mut serial = [0; 20];
    serial[..4].copy_from_slice(b"data");
    let blk = Blk::new(file.try_clone().unwrap(), readonly, serial).unwrap();
    let mut driver = Driver::new(blk.profile(), Box::new(blk));
    driver.start(F_FLUSH);
    (driver, file)
}

fn header(driver: &Driver, kind: u32, sector: u64) {
    driver.memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
    driver.memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    driver.memory.write_obj(0xeeu8, GuestAddress(STATUS)).unwrap();
}

fn status(driver: &Driver) -> u8 {
    driver.memory.read_obj(GuestAddress(STATUS)).unwrap()
}

/// A request in the usual form; tells status and used length.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: Buffer) -> (u8, u32) {
    header(driver, kind, sector);
    let used = driver.request(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
    (status(driver), used)
}

#[test]
fn what_was_written_is_read_again_and_stands_in_the_file() {
    let (mut driver, file) = disk(false);
    let bytes: Vec<u8> = (0..1024u32).map(|i| (i % 251) as u8).collect();
    driver.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
    assert_eq!(request(&mut driver, 1, 2, (DATA, 1024, false)), (0, 1));
    let mut stored = vec![0; 1024];
    file.read_exact_at(&mut stored, 1024).unwrap();
    assert_eq!(stored, bytes);
    assert_eq!(request(&mut driver, 0, 2, (DATA + 0x2000, 1024, true)), (0, 1025));
    let mut read = vec![0; 1024];
    driver.memory.read_slice(&mut read, GuestAddress(DATA + 0x2000)).unwrap();
    assert_eq!(read, bytes);
    assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)), (0, 1));
    assert_eq!(driver.messages.0.lock().unwrap().as_slice(), [0, 0, 0]);
}

#[test]
fn requests_that_break_a_rule_fail_and_touch_nothing() {
    for readonly in [false, true] {
        let (mut driver, file) = disk(readonly);
        file.write_all_at(&[0x55; 512], 0).unwrap();
        // (type, sector, data, status)
        for (kind, sector, data, expected) in [
            (1, SECTORS, (DATA, 512, false), 1),
            (1, SECTORS - 1, (DATA, 1024, false), 1),
            (1, u64::MAX, (DATA, 512, false), 1),
            (1, u64::MAX / 512 + 1, (DATA, 512, false), 1),
            (1, 0, (DATA, 511, false), 1),
            (0, 0, (DATA, 513, true), 1),
            (0, SECTORS, (DATA, 512, true), 1),
            (11, 0, (DATA, 512, false), 2),
            (13, 0, (DATA, 512, false), 2),
            (0xffff_ffff, 0, (DATA, 512, true), 2),
        ] {
            let (status, _) = request(&mut driver, kind, sector, data);
            assert_eq!(status, expected, "type {kind} sector {sector}");
        }
        assert_eq!(file.metadata().unwrap().len(), SECTORS * SECTOR + 100);
        let mut first = [0; 512];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, [0x55; 512]);
    }
}

#[test]
fn a_readonly_disk_says_so_and_refuses_writes() {
    let (mut driver, file) = disk(true);
    driver.memory.write_slice(&[7; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(request(&mut driver, 1, 0, (DATA, 512, false)).0, 1);
    let mut first = [0; 512];
    file.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, [0; 512]);
    let file = tempfile::tempfile().unwrap();
    assert_ne!(Blk::new(file, true, [0; 20]).unwrap().profile().features & F_RO, 0);
}

#[test]
fn any_split_into_buffers_is_legal() {
    let (mut driver, file) = disk(false);
    header(&driver, 1, 3);
    driver.memory.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    // The header in three pieces, the last of them with the data's first bytes behind it.
    driver.memory.write_slice(&[9; 512], GuestAddress(HEADER + 16)).unwrap();
    let used = driver.request(&[
        (HEADER, 1, false),
        (HEADER + 1, 0, false),
        (HEADER + 1, 7, false),
        (HEADER + 8, 8 + 100, false),
        (DATA, 412, false),
        (STATUS, 1, true),
    ]);
    assert_eq!((status(&driver), used), (0, 1));
    let mut stored = [0; 512];
    file.read_exact_at(&mut stored, 3 * 512).unwrap();
    assert_eq!(stored, [9; 512]);
    // A read whose status byte shares the data's last buffer.
    header(&driver, 0, 3);
    let used = driver.request(&[(HEADER, 16, false), (DATA, 513, true)]);
    assert_eq!(used, 513);
    assert_eq!(driver.memory.read_obj::<u8>(GuestAddress(DATA + 512)).unwrap(), 0);
}

#[test]
fn the_serial_number_fits_what_room_there_is() {
    for (room, expected) in [(20, &b"data\0"[..]), (4, b"data"), (2, b"da"), (100, b"data\0")] {
        let (mut driver, _file) = disk(false);
        let (status, used) = request(&mut driver, 8, 0, (DATA, room, true));
        assert_eq!((status, used), (0, room.min(20) + 1));
        let mut bytes = vec![0; expected.len()];
        driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn malformed_chains_go_back_and_the_disk_goes_on() {
    let outside = MEMORY as u64;
    for chain in [
        &[(HEADER, 16, false)][..],
        &[(HEADER, 16, false), (DATA, 512, false)],
        &[(HEADER, 15, false), (STATUS, 1, true)],
        &[(DATA, 512, true), (HEADER, 16, false), (STATUS, 1, true)],
        &[(HEADER, 16, false), (outside, 512, true), (STATUS, 1, true)],
        &[(HEADER, 16, false), (DATA, u32::MAX, true), (STATUS, 1, true)],
        &[(u64::MAX - 4, 16, false), (STATUS, 1, true)],
        &[(HEADER, 16, false), (DATA, 512, true), (outside, 1, true)],
        &[(HEADER, 0, false)],
    ] {
        let (mut driver, _file) = disk(false);
        header(&driver, 0, 0);
        assert!(driver.request(chain) <= 1, "{chain:?}");
        assert_ne!(status(&driver), 0, "{chain:?}");
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
    }
}

#[test]
fn a_descriptor_loop_ends() {
    let (mut driver, _file) = disk(false);
    let queue = &mut driver.queues[0];
    queue.describe(0, (HEADER, 16, false), Some(1));
    queue.describe(1, (DATA, 512, true), Some(1));
    queue.offer_head(0);
    driver.kick(0);
    driver.wait(|driver| driver.queues[0].used().len() == 1);
}

#[test]
fn the_same_head_twice_is_done_twice() {
    let (mut driver, _file) = disk(false);
    header(&driver, 0, 0);
    let head = driver.queues[0].offer(&[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    driver.queues[0].offer_head(head);
    driver.queues[0].offer_head(head);
    driver.kick(0);
    driver.wait(|driver| driver.queues[0].used().len() == 3);
    assert!(driver.queues[0].used().iter().all(|used| *used == (head.into(), 513)));
}

#[test]
fn a_broken_ring_needs_a_reset_and_a_reset_heals_it() {
    type Break = fn(&mut Driver);
    let breaks: &[Break] = &[
        // An index further ahead than the ring is long; a head that is no descriptor.
        |driver| driver.queues[0].set_available(17),
        |driver| driver.queues[0].offer_head(16),
        |driver| driver.queues[0].offer_head(u16::MAX),
    ];
    for break_it in breaks {
        let (mut driver, _file) = disk(false);
        break_it(&mut driver);
        driver.kick(0);
        driver.wait(|driver| driver.status() & 64 != 0);
        // The configuration's vector told the driver.
        driver.wait(|driver| driver.messages.0.lock().unwrap().as_slice() == [1]);
        driver.reset();
        assert_eq!(driver.status(), 0);
        driver.start(0);
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
    }
}

#[test]
fn queue_registers_written_while_active_change_nothing() {
    let (mut driver, _file) = disk(false);
    driver.write(0x16, &[0, 0]);
    for register in [0x20, 0x28, 0x30] {
        driver.write(register, &0x00ff_ff00u32.to_le_bytes());
        driver.write(register + 4, &u32::MAX.to_le_bytes());
    }
    driver.write(0x18, &[255, 255]);
    driver.write(0x1c, &[0, 0]);
    assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any chains at all: each comes back, and the file keeps its length.
    #[test]
    fn any_chains(
        chains in prop::collection::vec(
            (
                prop::sample::select(vec![0u32, 1, 4, 8, 11, 77]),
                prop_oneof![0u64..80, any::<u64>()],
                prop::collection::vec(
                    (
                        prop_oneof![Just(HEADER), Just(DATA), Just(STATUS), any::<u64>()],
                        prop_oneof![Just(16u32), Just(1), Just(512), Just(1024), any::<u32>()],
                        any::<bool>(),
                    ),
                    1..6,
                ),
            ),
            1..8,
        ),
    ) {
        let (mut driver, file) = disk(false);
        for (kind, sector, buffers) in chains {
            header(&driver, kind, sector);
            driver.request(&buffers);
        }
        prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * SECTOR + 100);
    }
}

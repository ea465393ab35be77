//! The balloon, driven as Linux and the specification do, and as none would.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use crate::virtio::driver::{BUFFERS, Driver, MEMORY};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const MEMORY_BYTES: u64 = MEMORY as u64;
/// Where pages lie that the tests give back: behind the tests' buffers.
const FREE: u64 = 0x20_0000;

fn options() -> Options {
    Options { target: 1 << 20, deflate_on_oom: true, reporting: true }
}

fn balloon(options: Options) -> (Driver, BalloonHandle) {
    let balloon = Balloon::new(options, MEMORY_BYTES).unwrap();
    let handle = balloon.handle();
    (Driver::new(balloon.profile(), Box::new(balloon)), handle)
}

/// A driver that enables only these queues.
fn start(driver: &mut Driver, features: u64, queues: &[u16]) {
    // All of it is there from the start, so that what goes can be counted.
    driver.memory.write_slice(&vec![0; MEMORY], GuestAddress(0)).unwrap();
    assert!(driver.start_with(features, queues));
    assert_eq!(driver.status(), 15);
}

/// Bytes that the guest's memory really takes of the host's.
fn taken(driver: &Driver) -> u64 {
    let region = driver.memory.iter().next().unwrap();
    let stat = rustix::fs::fstat(region.file_offset().unwrap().file()).unwrap();
    stat.st_blocks.cast_unsigned() * 512
}

fn fill(driver: &Driver, address: u64, bytes: usize) {
    driver.memory.write_slice(&vec![0xa5; bytes], GuestAddress(address)).unwrap();
}

fn is(driver: &Driver, address: u64, bytes: usize, value: u8) -> bool {
    let mut read = vec![!value; bytes];
    driver.memory.read_slice(&mut read, GuestAddress(address)).unwrap();
    read.iter().all(|byte| *byte == value)
}

/// Offers page numbers on the inflate queue and waits for them to come back.
fn inflate(driver: &mut Driver, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
    driver.request(&[(BUFFERS, bytes.len() as u32, false)]);
}

fn counter(handle: &BalloonHandle, index: usize) -> u64 {
    handle.counters.read()[COUNTERS[index]]
}

#[test]
fn inflated_pages_go_back_to_the_host() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, F_STATS | F_REPORTING, &[0, 1, 2, 3]);
    fill(&driver, FREE, 0x8_0000);
    let before = taken(&driver);
    // Out of order, one of them twice, one page left out.
    let first = (FREE / PAGE) as u32;
    let pages: Vec<u32> =
        (0..128).rev().filter(|page| *page != 5).map(|page| first + page).collect();
    inflate(&mut driver, &[pages.as_slice(), &[first]].concat());
    assert_eq!(before - taken(&driver), 127 * PAGE);
    assert_eq!(counter(&handle, INFLATED_BYTES), 127 * PAGE);
    assert!(is(&driver, FREE, 5 * 4096, 0));
    assert!(is(&driver, FREE + 5 * PAGE, 4096, 0xa5));
    assert!(is(&driver, FREE + 6 * PAGE, 122 * 4096, 0));
    // The guest takes one back by using it.
    fill(&driver, FREE, 4096);
    assert!(is(&driver, FREE, 4096, 0xa5));
}

#[test]
fn page_numbers_that_are_none_touch_nothing() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, 0, &[0, 1]);
    fill(&driver, FREE, 0x10_0000);
    let before = taken(&driver);
    let behind = (MEMORY_BYTES / PAGE) as u32;
    inflate(&mut driver, &[behind, behind + 1, u32::MAX, u32::MAX - 1, 1 << 31, 1 << 20]);
    assert_eq!(counter(&handle, INFLATED_BYTES), 0);
    // A run that begins inside and ends outside: what is inside goes back.
    inflate(&mut driver, &[behind - 1, behind, behind + 1]);
    assert_eq!(counter(&handle, INFLATED_BYTES), PAGE);
    // Descriptors that hold no number at all.
    for buffer in [(BUFFERS, 0, false), (BUFFERS, 3, false), (BUFFERS, 8, true)] {
        driver.request(&[buffer]);
    }
    driver.request(&[(u64::MAX - 8, 64, false)]);
    driver.request(&[(MEMORY_BYTES - 4, 64, false)]);
    assert_eq!(counter(&handle, INFLATED_BYTES), PAGE);
    assert_eq!(before - taken(&driver), PAGE);
    assert_eq!(driver.status(), 15);
}

#[test]
fn a_number_is_read_across_two_buffers() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, 0, &[0, 1]);
    fill(&driver, FREE, 4096);
    driver.memory.write_obj((FREE / PAGE) as u32, GuestAddress(BUFFERS)).unwrap();
    driver.request(&[(BUFFERS, 1, false), (BUFFERS + 1, 3, false)]);
    assert_eq!(counter(&handle, INFLATED_BYTES), PAGE);
    assert!(is(&driver, FREE, 4096, 0));
}

#[test]
fn a_chain_of_gigabytes_ends() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, 0, &[0, 1]);
    // All memory as numbers, many times over: only as many as there are pages count.
    let all = (0, MEMORY as u32, false);
    driver.request(&[all; 12]);
    assert!(counter(&handle, INFLATED_BYTES) <= MEMORY_BYTES);
    assert_eq!(driver.status(), 15);
}

#[test]
fn reported_ranges_go_back_where_the_driver_puts_them() {
    for (features, queues, number) in [
        // Linux counts the queues that it has; the specification gives each its number.
        (F_REPORTING, &[0, 1, 2][..], 2),
        (F_REPORTING | F_STATS, &[0, 1, 2, 3], 3),
        (F_REPORTING, &[0, 1, 4], 4),
        (F_REPORTING | F_STATS, &[0, 1, 2, 4], 4),
    ] {
        let (mut driver, handle) = balloon(options());
        start(&mut driver, features, queues);
        fill(&driver, FREE, 0x10_0000);
        let before = taken(&driver);
        // Of the third only the inner page is a whole one.
        let ranges = [
            (FREE, 0x4_0000, true),
            (FREE + 0x8_0000, 0x4_0000, true),
            (FREE + 0xf_0800, 0x2000, true),
        ];
        driver.request_on(number, &ranges);
        let bytes = 0x8_1000;
        assert_eq!(counter(&handle, REPORTED_BYTES), bytes, "{queues:?}");
        assert_eq!(before - taken(&driver), bytes);
        assert!(is(&driver, FREE, 0x4_0000, 0) && is(&driver, FREE + 0x4_0000, 0x4_0000, 0xa5));
        assert!(is(&driver, FREE + 0xf_0000, 0x1000, 0xa5));
    }
}

#[test]
fn poisoned_pages_are_kept() {
    let (mut driver, handle) = balloon(options());
    driver.write(0x2000 + POISON as u32, &0xaau32.to_le_bytes());
    start(&mut driver, F_REPORTING | F_PAGE_POISON, &[0, 1, 2]);
    fill(&driver, FREE, 0x1000);
    driver.request_on(2, &[(FREE, 0x1000, true)]);
    assert_eq!(counter(&handle, REPORTED_BYTES), 0);
    assert!(is(&driver, FREE, 0x1000, 0xa5));
}

#[test]
fn ranges_outside_memory_are_no_report() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, F_REPORTING, &[0, 1, 2]);
    for range in
        [(MEMORY_BYTES, 4096), (MEMORY_BYTES - 4096, 8192), (u64::MAX - 4095, 4096), (0, 1 << 31)]
    {
        driver.request_on(2, &[(FREE, 4096, true), (range.0, range.1, true)]);
    }
    driver.request_on(2, &[(FREE, 4096, false)]);
    assert_eq!(counter(&handle, REPORTED_BYTES), 0);
}

#[test]
fn statistics_come_when_asked_for() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, F_STATS, &[0, 1, 2]);
    assert!(handle.stats().is_empty());
    let offer = |driver: &mut Driver, pairs: &[(u16, u64)]| {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect();
        driver.memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
        driver.queues[2].offer(&[(BUFFERS, bytes.len() as u32, false)]);
        driver.kick(2);
    };
    // The first ones come unasked, and their buffer stays; unknown tags don't matter.
    offer(&mut driver, &[(4, 1000), (5, 2000), (0xffff, 7), (16, 7)]);
    driver.wait(|_| counter(&handle, STATS_ANSWERS) == 1);
    assert_eq!((handle.stats()["free_memory"], handle.stats()["total_memory"]), (1000, 2000));
    assert!(driver.queues[2].used().is_empty());
    handle.ask_stats();
    driver.wait(|driver| driver.queues[2].used().len() == 1);
    offer(&mut driver, &[(4, 500)]);
    driver.wait(|_| counter(&handle, STATS_ANSWERS) == 2);
    assert_eq!(handle.stats()["free_memory"], 500);
    // Asked without a buffer: nothing to give, nothing happens.
    handle.ask_stats();
    handle.ask_stats();
    driver.wait(|driver| driver.queues[2].used().len() == 2);
}

#[test]
fn a_flood_of_statistics_holds_one_buffer() {
    let (mut driver, handle) = balloon(options());
    start(&mut driver, F_STATS, &[0, 1, 2]);
    for round in 1..=500 {
        // A megabyte of them: the first 64 count.
        driver.memory.write_obj(4u16, GuestAddress(BUFFERS)).unwrap();
        driver.memory.write_obj(round, GuestAddress(BUFFERS + 2)).unwrap();
        driver.queues[2].offer(&[(BUFFERS, 1 << 20, false)]);
        driver.kick(2);
        driver.wait(|driver| {
            let back = driver.queues[2].used_count();
            assert!(u64::from(back) < round, "none is left with the device");
            counter(&handle, STATS_ANSWERS) == round && u64::from(back) == round - 1
        });
    }
    assert_eq!(handle.stats()["free_memory"], 500);
}

#[test]
fn the_target_reaches_the_driver_and_its_answer_us() {
    let (mut driver, handle) = balloon(options());
    let read = |driver: &mut Driver, at: u32| {
        let mut bytes = [0; 4];
        driver.function_read(0x2000 + at, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    assert_eq!((handle.target(), read(&mut driver, 0)), (1 << 20, 256));
    start(&mut driver, 0, &[0, 1]);
    handle.set_target(2 << 20).unwrap();
    assert_eq!(read(&mut driver, 0), 512);
    // The configuration's vector is the last of the test driver.
    let config_vector = driver.queues.len() as u32;
    assert_eq!(*driver.messages.0.lock().unwrap(), [config_vector]);
    handle.set_target(MEMORY_BYTES).unwrap_err();
    // Only its own fields.
    driver.write(0x2000, &7u32.to_le_bytes());
    assert_eq!(read(&mut driver, 0), 512);
    driver.write(0x2004, &500u32.to_le_bytes());
    assert_eq!((handle.actual(), counter(&handle, ACTUAL_BYTES)), (500 * PAGE, 500 * PAGE));
    driver.write(0x2004, &u32::MAX.to_le_bytes());
    assert_eq!((handle.actual(), counter(&handle, ACTUAL_BYTES)), (MEMORY_BYTES, MEMORY_BYTES));
    driver.reset();
    assert_eq!((handle.actual(), handle.target()), (0, 2 << 20));
}

#[test]
fn queues_without_a_meaning_are_left_alone() {
    let (mut driver, _) = balloon(options());
    // Reporting wasn't agreed on, and yet there is a queue for it.
    start(&mut driver, 0, &[0, 1, 2, 3, 4]);
    for queue in [2, 3, 4] {
        driver.queues[queue].offer(&[(FREE, 4096, true)]);
        driver.kick(queue as u32);
    }
    inflate(&mut driver, &[(FREE / PAGE) as u32]);
    assert!((2..5).all(|queue| driver.queues[queue].used().is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever numbers and ranges: what was named goes back, what wasn't stays as it was.
    #[test]
    fn only_what_was_named_goes_back(
        pages in prop::collection::vec(prop_oneof![4 => 0u32..64, 1 => any::<u32>()], 0..300),
        ranges in prop::collection::vec((0u64..0x4_0000, 0u32..0x8000), 1..8),
    ) {
        let (mut driver, _) = balloon(options());
        start(&mut driver, F_REPORTING, &[0, 1, 2]);
        fill(&driver, FREE, 0x8_0000);
        let first = (FREE / PAGE) as u32;
        let numbers: Vec<u32> = pages.iter().map(|page| first.saturating_add(*page)).collect();
        inflate(&mut driver, &numbers);
        let buffers: Vec<_> = ranges.iter().map(|(at, length)| (FREE + at, *length, true)).collect();
        driver.request_on(2, &buffers);
        for page in 0..0x80u64 {
            let whole = |(at, length): &(u64, u32)| {
                *at <= page * PAGE && (page + 1) * PAGE <= at + u64::from(*length)
            };
            let gone = pages.iter().any(|named| u64::from(*named) == page) || ranges.iter().any(whole);
            let value = if gone { 0 } else { 0xa5 };
            prop_assert!(is(&driver, FREE + page * PAGE, 4096, value), "page {page}");
        }
    }
}

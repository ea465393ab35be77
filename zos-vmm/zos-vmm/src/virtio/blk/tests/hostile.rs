//! What no kernel would do.

use super::*;
use proptest::prelude::*;

#[test]
fn requests_that_break_a_rule_fail_and_touch_nothing() {
    for (engine, readonly) in engines().into_iter().flat_map(|e| [(e, false), (e, true)]) {
        let (mut driver, file) = disk(engine, readonly);
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
            (0, u64::MAX, (DATA, 512, true), 1),
            // Data in the wrong direction is no data.
            (0, SECTORS + 1, (DATA, 512, false), 1),
            (2, 0, (DATA, 512, false), 2),
            (10, 0, (DATA, 20, true), 2),
            (14, 0, (DATA, 16, false), 2),
            (0xffff_ffff, 0, (DATA, 512, true), 2),
        ] {
            let (status, _) = request(&mut driver, kind, sector, data);
            assert_eq!(status, expected, "{engine:?}: type {kind} sector {sector}");
        }
        assert_eq!(file.metadata().unwrap().len(), SECTORS * SECTOR + 100);
        assert_eq!(stored(&file, 0, 1), [0x55; 512]);
    }
}

#[test]
fn clearing_that_breaks_a_rule_fails_and_clears_nothing() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
        file.write_all_at(&vec![0x55; 64 * 512], 0).unwrap();
        // Each row's first segment is right, and isn't done either.
        for (kind, wrong, expected) in [
            (11, (SECTORS, 1, 0), 1),
            (11, (SECTORS - 1, 2, 0), 1),
            (11, (0, u32::MAX, 0), 1),
            (11, (u64::MAX, 1, 0), 1),
            (11, (u64::MAX - 7, 8, 0), 1),
            (11, (0, (1 << 21) + 1, 0), 1),
            (11, (0, 1, 1), 2),
            (11, (0, 1, 2), 2),
            (11, (0, 1, u32::MAX), 2),
            (13, (SECTORS, 1, 0), 1),
            (13, (u64::MAX, 1, 1), 1),
            (13, (0, (1 << 17) + 1, 0), 1),
            (13, (0, 1, 2), 2),
            (13, (0, 1, 0x8000_0001), 2),
        ] {
            let flags = u32::from(kind == 13);
            let status = clear(&mut driver, kind, &[(0, 8, flags), wrong]);
            assert_eq!(status, expected, "{engine:?}: {kind} {wrong:?}");
        }
        for (kind, length) in [(11, 0), (11, 15), (11, 17), (13, 8), (11, 17 * 16), (13, 4096)] {
            driver.memory.write_slice(&[0; 4096], GuestAddress(DATA)).unwrap();
            assert_eq!(
                request(&mut driver, kind, 0, (DATA, length, false)).0,
                1,
                "{kind} {length}"
            );
        }
        assert_eq!(stored(&file, 0, 64), vec![0x55; 64 * 512]);
    }
}

#[test]
fn a_readonly_disk_refuses_every_change() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, true);
        file.write_all_at(&[0x55; 4096], 0).unwrap();
        assert_eq!(request(&mut driver, 1, 0, (DATA, 512, false)).0, 1);
        assert_eq!(clear(&mut driver, 11, &[(0, 8, 0)]), 1);
        assert_eq!(clear(&mut driver, 13, &[(0, 8, 0)]), 1);
        assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)).0, 0);
        assert_eq!(stored(&file, 0, 8), [0x55; 4096]);
    }
}

#[test]
fn malformed_chains_go_back_and_the_disk_goes_on() {
    let outside = MEMORY as u64;
    for engine in engines() {
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
            let (mut driver, _file) = disk(engine, false);
            header(&driver, 0, 0);
            assert!(driver.request(chain) <= 1, "{chain:?}");
            assert_ne!(status(&driver), 0, "{chain:?}");
            assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
        }
    }
}

#[test]
fn a_file_that_was_cut_is_an_error_and_not_a_loop() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
        file.set_len(10 * SECTOR + 100).unwrap();
        // Part of the data is there, then the file ends.
        let (status, used) = request(&mut driver, 0, 10, (DATA, 1024, true));
        assert_eq!((status, used), (1, 101), "{engine:?}");
        assert_eq!(request(&mut driver, 0, 20, (DATA, 512, true)), (1, 1));
        assert_eq!(request(&mut driver, 0, 9, (DATA, 512, true)), (0, 513));
    }
}

#[test]
fn a_descriptor_loop_ends() {
    for engine in engines() {
        let (mut driver, _file) = disk(engine, false);
        let queue = &mut driver.queues[0];
        queue.describe(0, (HEADER, 16, false), Some(1));
        queue.describe(1, (DATA, 512, true), Some(1));
        queue.offer_head(0);
        driver.kick(0);
        driver.wait(|driver| driver.queues[0].used().len() == 1);
    }
}

#[test]
fn the_same_head_twice_is_harmless() {
    for engine in engines() {
        let (mut driver, _file) = disk(engine, false);
        header(&driver, 0, 0);
        let head =
            driver.queues[0].offer(&[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        driver.queues[0].offer_head(head);
        driver.queues[0].offer_head(head);
        driver.kick(0);
        if engine == IoEngine::Sync {
            // One is done before the next is looked at, as it would be for an honest driver.
            driver.wait(|driver| driver.queues[0].used().len() == 3);
            assert!(driver.queues[0].used().iter().all(|used| *used == (head.into(), 513)));
        } else {
            // The second is loaded while the first is under way.
            driver.wait(|driver| driver.status() & 64 != 0);
            driver.reset();
            driver.start(F_FLUSH);
        }
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
    }
}

#[test]
fn a_broken_ring_needs_a_reset_and_a_reset_heals_it() {
    type Break = fn(&mut Driver);
    let breaks: &[Break] = &[
        // An index further ahead than the ring is long; a head that is no descriptor.
        |driver| driver.queues[0].set_available(17),
        |driver| driver.queues[0].offer_head(16),
        |driver| driver.queues[0].offer_head(256),
        |driver| driver.queues[0].offer_head(u16::MAX),
    ];
    for (engine, break_it) in engines().into_iter().flat_map(|e| breaks.iter().map(move |b| (e, b)))
    {
        let (mut driver, _file) = disk(engine, false);
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
    for engine in engines() {
        let (mut driver, _file) = disk(engine, false);
        driver.write(0x16, &[0, 0]);
        for register in [0x20, 0x28, 0x30] {
            driver.write(register, &0x00ff_ff00u32.to_le_bytes());
            driver.write(register + 4, &u32::MAX.to_le_bytes());
        }
        driver.write(0x18, &[255, 255]);
        driver.write(0x1c, &[0, 0]);
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
    }
}

#[test]
fn after_a_reset_nothing_touches_memory() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
        file.write_all_at(&vec![0x55; 64 * 512], 0).unwrap();
        for _ in 0..50 {
            header(&driver, 0, 0);
            for index in 0..5 {
                let data = (DATA + index * 0x1000, 4096, true);
                driver.queues[0].offer(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
            }
            driver.kick(0);
            driver.reset();
            driver.memory.write_slice(&vec![0xaa; 0x8000], GuestAddress(DATA)).unwrap();
            driver.start(F_FLUSH);
            // Time for what would still be under way.
            request(&mut driver, 8, 0, (BUFFERS + 0xf000, 20, true));
            let mut bytes = vec![0; 0x7000];
            driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xaa), "{engine:?}");
            driver.reset();
            driver.start(F_FLUSH);
        }
    }
}

#[test]
fn a_pause_finds_nothing_under_way_and_loses_nothing() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
        file.write_all_at(&vec![0x55; 64 * 512], 0).unwrap();
        header(&driver, 0, 0);
        let mut back = 0;
        for _ in 0..20 {
            for index in 0..5 {
                let data = (DATA + index * 0x1000, 4096, true);
                driver.queues[0].offer(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
            }
            driver.kick(0);
            driver.workers[0].pause();
            driver.memory.write_slice(&vec![0xaa; 0x6000], GuestAddress(DATA)).unwrap();
            // What was loaded before the pause is back; the rest waits in the ring.
            let used = driver.queues[0].used_count();
            let mut bytes = vec![0; 0x6000];
            driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xaa), "{engine:?}");
            assert_eq!(driver.queues[0].used_count(), used);
            driver.workers[0].resume();
            back += 5;
            driver.wait(|driver| driver.queues[0].used_count() == back);
        }
    }
}

/// A call that isn't on the thread's list would end the test's process.
#[test]
fn everything_is_done_in_the_threads_filter() {
    for engine in engines() {
        let operations = Some(Bucket { per_second: 1000, burst: 1 });
        let limiter = Limiter::new(Some(Rate { bytes: None, operations }));
        let options = Options { limiter, queues: 2, ..options(engine) };
        let mut blk = Blk::new(file(), &options).unwrap();
        model::want_alignment(&mut blk);
        let (profile, kind) = (blk.profile(), blk.kind());
        let mut driver = Driver::in_filter(profile, blk.into_parts(), Some(kind));
        // With a driver that knows flushes, and with one for which writes must last.
        for features in [F_FLUSH, 0] {
            driver.start(features);
            assert_eq!(request(&mut driver, 1, 0, (DATA, 1024, false)).0, 0);
            assert_eq!(request(&mut driver, 1, 0, (DATA + 1, 1024, false)).0, 0);
            assert_eq!(request(&mut driver, 0, 0, (DATA, 1024, true)).0, 0);
            assert_eq!(request(&mut driver, 0, 0, (DATA + 1, 1024, true)).0, 0);
            assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)).0, 0);
            assert_eq!(request(&mut driver, 8, 0, (DATA, 20, true)).0, 0);
            assert_eq!(clear(&mut driver, 11, &[(0, 8, 0)]), 0);
            assert_eq!(clear(&mut driver, 13, &[(0, 8, 0), (8, 8, 1)]), 0);
            assert_eq!(request(&mut driver, 0, SECTORS, (DATA, 512, true)).0, 1);
            driver.workers[0].pause();
            driver.workers[0].resume();
            assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)).0, 0);
            driver.reset();
        }
        // A disk's end, too: the ring and its mappings go in the thread.
        drop(driver);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any chains at all: each comes back, and the file keeps its length.
    #[test]
    fn any_chain_comes_back(
        chains in prop::collection::vec(
            (
                prop::sample::select(vec![0u32, 1, 4, 8, 11, 13, 77]),
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
        for engine in engines() {
            let (mut driver, file) = disk(engine, false);
            for (kind, sector, buffers) in &chains {
                header(&driver, *kind, *sector);
                driver.request(buffers);
            }
            prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * SECTOR + 100);
        }
    }
}

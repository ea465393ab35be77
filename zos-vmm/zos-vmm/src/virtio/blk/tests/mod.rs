//! The disk, driven as a kernel does and as none would, with both engines.

mod device;
mod hostile;
mod model;
mod order;

use super::*;
use crate::virtio::driver::{BUFFERS, Buffer, Driver, MEMORY};
use std::os::unix::fs::{FileExt, MetadataExt};
use vm_memory::{Bytes, GuestAddress};
use zos_vmm_spec::{Bucket, Rate};

const SECTORS: u64 = 64;
const SECTOR: u64 = 512;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x8000;

/// Both engines, where the host allows io_uring; it is said when it doesn't.
fn engines() -> Vec<IoEngine> {
    let mut engines = vec![IoEngine::Sync];
    match Blk::new(tempfile::tempfile().unwrap(), &options(IoEngine::Uring)) {
        Ok(_) => engines.push(IoEngine::Uring),
        Err(error) => eprintln!("without io_uring, which this host forbids: {error:?}"),
    }
    engines
}

fn options(engine: IoEngine) -> Options {
    let mut serial = [0; 20];
    serial[..4].copy_from_slice(b"data");
    Options { readonly: false, serial, queues: 1, engine, limiter: Limiter::default() }
}

/// A file of 64 sectors and a bit.
fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * SECTOR + 100).unwrap();
    file
}

fn driver(file: &File, options: &Options) -> Driver {
    let blk = Blk::new(file.try_clone().unwrap(), options).unwrap();
    let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
    driver.start(F_FLUSH);
    driver
}

fn disk(engine: IoEngine, readonly: bool) -> (Driver, File) {
    let file = file();
    (driver(&file, &Options { readonly, ..options(engine) }), file)
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

/// A discard (11) or zeroing (13) of segments: sector, sectors, flags.
fn clear(driver: &mut Driver, kind: u32, segments: &[(u64, u32, u32)]) -> u8 {
    for (at, (sector, sectors, flags)) in (DATA..).step_by(16).zip(segments) {
        driver.memory.write_obj(*sector, GuestAddress(at)).unwrap();
        driver.memory.write_obj(*sectors, GuestAddress(at + 8)).unwrap();
        driver.memory.write_obj(*flags, GuestAddress(at + 12)).unwrap();
    }
    let length = u32::try_from(segments.len() * 16).unwrap();
    request(driver, kind, 0, (DATA, length, false)).0
}

fn stored(file: &File, sector: u64, sectors: usize) -> Vec<u8> {
    let mut bytes = vec![0; sectors * 512];
    file.read_exact_at(&mut bytes, sector * SECTOR).unwrap();
    bytes
}

#[test]
fn what_was_written_is_read_again_and_stands_in_the_file() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
        let bytes: Vec<u8> = (0..1024u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        driver.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        assert_eq!(request(&mut driver, 1, 2, (DATA, 1024, false)), (0, 1));
        assert_eq!(stored(&file, 2, 2), bytes);
        assert_eq!(request(&mut driver, 0, 2, (DATA + 0x2000, 1024, true)), (0, 1025));
        let mut read = vec![0; 1024];
        driver.memory.read_slice(&mut read, GuestAddress(DATA + 0x2000)).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)), (0, 1));
        assert_eq!(driver.messages.0.lock().unwrap().as_slice(), [0, 0, 0]);
    }
}

#[test]
fn any_split_into_buffers_is_legal() {
    for engine in engines() {
        let (mut driver, file) = disk(engine, false);
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
        assert_eq!(stored(&file, 3, 1), [9; 512]);
        // A read whose status byte shares the data's last buffer.
        header(&driver, 0, 3);
        let used = driver.request(&[(HEADER, 16, false), (DATA, 513, true)]);
        assert_eq!(used, 513);
        assert_eq!(driver.memory.read_obj::<u8>(GuestAddress(DATA + 512)).unwrap(), 0);
    }
}

#[test]
fn the_serial_number_fits_what_room_there_is() {
    for (room, expected) in [(20, &b"data\0"[..]), (4, b"data"), (2, b"da"), (100, b"data\0")] {
        let (mut driver, _file) = disk(IoEngine::Auto, false);
        let (status, used) = request(&mut driver, 8, 0, (DATA, room, true));
        assert_eq!((status, used), (0, room.min(20) + 1));
        let mut bytes = vec![0; expected.len()];
        driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_discard_gives_room_back_and_zeros_are_zeros() {
    for engine in engines() {
        // (type, flags): discard; zeros that stay mapped; zeros that may unmap.
        for (kind, flags) in [(11, 0), (13, 0), (13, 1)] {
            let (mut driver, file) = disk(engine, false);
            file.write_all_at(&vec![0x55; 64 * 512], 0).unwrap();
            let before = file.metadata().unwrap().blocks();
            let segments = [(8, 16, flags), (32, 8, flags), (40, 0, flags), (63, 1, flags)];
            assert_eq!(clear(&mut driver, kind, &segments), 0, "{engine:?} {kind} {flags}");
            for sector in 0..SECTORS {
                let gone = (8..24).contains(&sector) || (32..40).contains(&sector) || sector == 63;
                let byte = if gone { 0 } else { 0x55 };
                assert_eq!(stored(&file, sector, 1), [byte; 512], "{kind} {flags}: {sector}");
            }
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), SECTORS * SECTOR + 100);
            if kind == 11 || flags == 1 {
                assert!(metadata.blocks() < before, "{before} blocks before");
            }
        }
    }
}

#[test]
fn the_guest_is_told_what_the_disk_can() {
    let file = file();
    let profile =
        |options: &Options| Blk::new(file.try_clone().unwrap(), options).unwrap().profile();
    let config = |profile: &Profile| {
        let mut bytes = vec![0; CONFIG_BYTES];
        profile.config.read(0, &mut bytes);
        bytes
    };
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let usual = profile(&options(IoEngine::Auto));
    assert_eq!(usual.features & (F_RO | F_MQ), 0);
    assert_eq!(usual.features & (F_DISCARD | F_WRITE_ZEROES), F_DISCARD | F_WRITE_ZEROES);
    let bytes = config(&usual);
    let told = [0, 8, 12, 20, 36, 40, 44, 48, 52].map(|at| word(&bytes, at));
    assert_eq!(told, [64, 1 << 20, 254, 512, 1 << 21, 16, 1, 1 << 17, 16]);
    // 4 KiB physical blocks, the least good transfer is 8 sectors, a queue, zeros may unmap.
    assert_eq!((bytes[24], bytes[26], bytes[34], bytes[56]), (3, 8, 1, 1));
    let many = profile(&Options { queues: 4, ..options(IoEngine::Auto) });
    assert_ne!(many.features & F_MQ, 0);
    assert_eq!((config(&many)[34], many.queues.len()), (4, 4));
    let readonly = profile(&Options { readonly: true, ..options(IoEngine::Auto) });
    assert_eq!(readonly.features & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
    assert_eq!(word(&config(&readonly), 36), 0);
}

#[test]
fn a_descriptor_that_can_only_read_is_a_readonly_disk() {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(SECTORS * SECTOR).unwrap();
    for engine in engines() {
        let file = File::open(named.path()).unwrap();
        let blk = Blk::new(file, &options(engine)).unwrap();
        assert_ne!(blk.profile().features & F_RO, 0);
        let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
        driver.start(F_FLUSH);
        assert_eq!(request(&mut driver, 1, 0, (DATA, 512, false)).0, 1);
        assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)).0, 0);
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)).0, 0);
    }
}

#[test]
fn where_io_uring_is_forbidden_the_disk_goes_without() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let forbid = || {
        let rules = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
        let no = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, no, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            forbid();
            let blk = Blk::new(file(), &options(IoEngine::Auto)).unwrap();
            assert_eq!(blk.kind(), Kind::Blk);
            assert_eq!(blk.fallback().unwrap().raw_os_error(), Some(libc::EPERM));
            assert_eq!(blk.profile().counters.read()["io_uring"], 0);
            let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
            driver.start(F_FLUSH);
            assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
            let refused = Blk::new(file(), &options(IoEngine::Uring));
            assert!(matches!(refused, Err(BlkError::Uring(_))));
        });
    });
}

#[test]
fn every_queue_reaches_the_disk() {
    for engine in engines() {
        let file = file();
        let mut driver = driver(&file, &Options { queues: 4, ..options(engine) });
        for queue in 0..4u8 {
            header(&driver, 1, u64::from(queue));
            driver.memory.write_slice(&[queue + 1; 512], GuestAddress(DATA)).unwrap();
            let buffers = [(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)];
            assert_eq!(driver.request_on(queue.into(), &buffers), 1);
            assert_eq!(stored(&file, queue.into(), 1), [queue + 1; 512]);
        }
        assert_eq!(driver.messages.0.lock().unwrap().as_slice(), [0, 1, 2, 3]);
    }
}

#[test]
fn a_driver_may_use_fewer_queues() {
    for engine in engines() {
        let blk = Blk::new(file(), &Options { queues: 3, ..options(engine) }).unwrap();
        let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
        assert!(driver.start_with(F_FLUSH, &[0]));
        assert_eq!(request(&mut driver, 0, 0, (DATA, 512, true)), (0, 513));
        assert_eq!(driver.status() & 64, 0);
    }
}

#[test]
fn counters_tell_what_went_through() {
    for engine in engines() {
        let blk = Blk::new(file(), &options(engine)).unwrap();
        let counters = blk.profile().counters;
        let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
        driver.start(F_FLUSH);
        request(&mut driver, 1, 0, (DATA, 1024, false));
        request(&mut driver, 0, 0, (DATA, 512, true));
        request(&mut driver, 0, SECTORS, (DATA, 512, true));
        request(&mut driver, 8, 0, (DATA, 20, true));
        request(&mut driver, 4, 0, (DATA, 0, false));
        clear(&mut driver, 11, &[(0, 1, 0)]);
        clear(&mut driver, 13, &[(0, 1, 0)]);
        let read = counters.read();
        let expected: [(&str, u64); 10] = [
            ("read_bytes", 512),
            ("read_ops", 1),
            ("write_bytes", 1024),
            ("write_ops", 1),
            ("flushes", 1),
            ("discards", 1),
            ("write_zeroes", 1),
            ("failed", 1),
            ("throttled", 0),
            ("io_uring", (engine == IoEngine::Uring).into()),
        ];
        assert_eq!(read, expected.into_iter().collect());
    }
}

#[test]
fn a_rate_holds_and_nothing_is_lost() {
    for engine in engines() {
        // Ten requests in a burst of two, then one every 5 ms.
        let operations = Some(Bucket { per_second: 200, burst: 2 });
        let limiter = Limiter::new(Some(Rate { bytes: None, operations }));
        let blk = Blk::new(file(), &Options { limiter, ..options(engine) }).unwrap();
        let counters = blk.profile().counters;
        let mut driver = Driver::with_parts(blk.profile(), blk.into_parts());
        driver.start(F_FLUSH);
        header(&driver, 0, 0);
        let start = std::time::Instant::now();
        // Three descriptors each: five chains fit the queue's sixteen.
        for round in 1..=2 {
            for _ in 0..5 {
                driver.queues[0].offer(&[
                    (HEADER, 16, false),
                    (DATA, 512, true),
                    (STATUS, 1, true),
                ]);
            }
            driver.kick(0);
            driver.wait(|driver| driver.queues[0].used_count() == round * 5);
        }
        // Eight of the ten had to wait for their tokens: 40 ms at least.
        assert!(start.elapsed().as_millis() >= 40);
        assert_eq!(counters.read()["read_ops"], 10);
        assert!(counters.read()["throttled"] > 0);
    }
}

#[test]
fn unaligned_buffers_reach_a_disk_with_direct_io() {
    let Ok(named) = tempfile::NamedTempFile::new_in("/var/tmp") else {
        eprintln!("skipped: no /var/tmp");
        return;
    };
    named.as_file().set_len(SECTORS * SECTOR).unwrap();
    let direct = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::RDWR;
    let Ok(file) = rustix::fs::open(named.path(), direct, rustix::fs::Mode::empty()) else {
        eprintln!("skipped: no direct I/O on /var/tmp");
        return;
    };
    let file = File::from(file);
    let bytes: Vec<u8> = (0..8192u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    for engine in engines() {
        let mut driver = driver(&file, &options(engine));
        for at in [DATA, DATA + 1, DATA + 511] {
            driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
            assert_eq!(request(&mut driver, 1, 8, (at, 8192, false)), (0, 1), "{engine:?}");
            let mut read = vec![0; 8192];
            named.as_file().read_exact_at(&mut read, 8 * SECTOR).unwrap();
            assert_eq!(read, bytes);
            driver.memory.write_slice(&vec![0; 8192], GuestAddress(at)).unwrap();
            assert_eq!(request(&mut driver, 0, 8, (at, 8192, true)), (0, 8193));
            driver.memory.read_slice(&mut read, GuestAddress(at)).unwrap();
            assert_eq!(read, bytes);
        }
    }
}

//! The disk over a block device: a loop device, where the test may make one.

use super::*;
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use zos_host::loopdev::{self, LoopDevice};

/// A loop device over a file on a disk; none: said why, and skipped.
fn device(backing: &File, block_size: u32) -> Option<LoopDevice> {
    let options = loopdev::Options { autoclear: true, block_size, ..Default::default() };
    let device = loopdev::attach(backing.as_fd(), "zos-vmm-test", &options);
    device.inspect_err(|error| eprintln!("skipped: no loop device: {error}")).ok()
}

#[test]
fn a_block_device_is_read_written_and_cleared() {
    for (engine, block, direct) in [512u32, 4096]
        .into_iter()
        .flat_map(|block| [(block, false), (block, true)])
        .flat_map(|(block, direct)| engines().into_iter().map(move |e| (e, block, direct)))
    {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&vec![0x55; 1 << 20], 0).unwrap();
        let Some(device) = device(&file, block) else { return };
        let flags = OFlags::RDWR | if direct { OFlags::DIRECT } else { OFlags::empty() };
        let opened = File::from(rustix::fs::open(&device.path, flags, Mode::empty()).unwrap());
        let blk = Blk::new(opened, &options(engine)).unwrap();
        let (profile, kind) = (blk.profile(), blk.kind());
        let mut config = [0; CONFIG_BYTES];
        profile.config.read(0, &mut config);
        assert_eq!(config[..8], 2048u64.to_le_bytes());
        assert_eq!(config[20..24], block.to_le_bytes());
        assert_eq!(config[44..48], (block / 512).to_le_bytes());
        assert_ne!(profile.features & F_WRITE_ZEROES, 0);
        let discards = profile.features & F_DISCARD != 0;
        let mut driver = Driver::in_filter(profile, blk.into_parts(), Some(kind));
        driver.start(F_FLUSH);
        let what = format!("{engine:?}, blocks of {block}, direct: {direct}");

        let bytes: Vec<u8> = (0..8192u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
        // Odd addresses, too: a bounce where it is direct.
        for at in [DATA, DATA + 3] {
            driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
            assert_eq!(request(&mut driver, 1, 16, (at, 8192, false)), (0, 1), "{what}");
            driver.memory.write_slice(&vec![0; 8192], GuestAddress(at)).unwrap();
            assert_eq!(request(&mut driver, 0, 16, (at, 8192, true)), (0, 8193), "{what}");
            let mut read = vec![0; 8192];
            driver.memory.read_slice(&mut read, GuestAddress(at)).unwrap();
            assert_eq!(read, bytes, "{what}");
        }
        assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)).0, 0, "{what}");
        assert_eq!(stored(&file, 16, 16), bytes, "{what}: after a flush it is in the file");

        // Zeros of both kinds; a discard if the file below can have holes.
        assert_eq!(clear(&mut driver, 13, &[(16, 8, 0), (24, 8, 1)]), 0, "{what}");
        if discards {
            assert_eq!(clear(&mut driver, 11, &[(64, 64, 0)]), 0, "{what}");
        }
        assert_eq!(request(&mut driver, 4, 0, (DATA, 0, false)).0, 0);
        for sector in 0..2048 {
            let zero = (16..32).contains(&sector) || discards && (64..128).contains(&sector);
            let byte = if zero { 0 } else { 0x55 };
            assert_eq!(stored(&file, sector, 1), [byte; 512], "{what}: sector {sector}");
        }
        // Past its end, and what is no whole block where only whole blocks can be had.
        assert_eq!(request(&mut driver, 0, 2048, (DATA, 512, true)).0, 1);
        let (status, _) = request(&mut driver, 0, 1, (DATA, 512, true));
        assert_eq!(status, u8::from(direct && block > 512), "{what}");
    }
}

#[test]
fn a_readonly_device_is_a_readonly_disk() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let options = loopdev::Options { autoclear: true, read_only: true, ..Default::default() };
    let device = match loopdev::attach(file.as_fd(), "zos-vmm-test", &options) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("skipped: no loop device: {error}");
            return;
        }
    };
    let blk = Blk::new(device.into_file(), &super::options(IoEngine::Auto)).unwrap();
    let features = blk.profile().features;
    assert_eq!(features & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
}

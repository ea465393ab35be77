//! The file system of a share against the running kernel: a loop device stands for the volume. Needs root and
//! mkfs.btrfs; says why it was skipped where one is missing.

mod disks;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use disks::with_disks;
use storaged::volume::share;
use zos_host::loopdev;

fn places(root: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()))
}

fn attach(file: &Path, size: u64) -> OwnedFd {
    let backing = File::options().read(true).write(true).create(true).truncate(false).open(file);
    let backing = backing.unwrap();
    backing.set_len(size).unwrap();
    let options = loopdev::Options { autoclear: true, ..loopdev::Options::default() };
    loopdev::attach(backing.as_fd(), "share", &options).unwrap().into_file().into()
}

fn free(root: &OwnedFd) -> u64 {
    let found = rustix::fs::statvfs(places(root)).unwrap();
    found.f_bavail * found.f_frsize
}

#[test]
fn a_share_keeps_its_files_grows_with_its_volume_and_is_never_made_anew_by_opening() {
    with_disks(|folder| {
        let mkfs = Path::new("/usr/sbin/mkfs.btrfs");
        if !mkfs.exists() {
            eprintln!("skipped: needs mkfs.btrfs");
            return;
        }
        let file = folder.join("volume");
        let (small, large) = (256 << 20, 512 << 20);
        let device = attach(&file, small);
        // What never had a file system has no root, and isn't given one.
        share::root(&device).unwrap_err();
        // Noise, as a fresh volume of dm-crypt reads, and a half made file system are no matter.
        std::io::copy(
            &mut File::open("/dev/urandom").unwrap(),
            &mut &File::from(device.try_clone().unwrap()),
        )
        .ok();
        share::format(mkfs, &device).unwrap();
        share::format(mkfs, &device).unwrap();
        let root = share::root(&device).unwrap();
        // Nearly all of a small share can be used, and once it was full there is room again.
        fs::write(places(&root).join("a"), "kept").unwrap();
        assert!(free(&root) > small / 10 * 9, "{} of {small}", free(&root));
        let all = vec![7; usize::try_from(small).unwrap()];
        fs::write(places(&root).join("all"), &all).unwrap_err();
        fs::remove_file(places(&root).join("all")).unwrap();
        fs::write(places(&root).join("b"), "again").unwrap();
        drop((root, device));

        for size in [small, large, large] {
            let device = attach(&file, size);
            let (one, two) = (share::root(&device).unwrap(), share::root(&device).unwrap());
            assert_eq!(fs::read_to_string(places(&one).join("a")).unwrap(), "kept");
            fs::write(places(&one).join("c"), size.to_string()).unwrap();
            assert_eq!(fs::read_to_string(places(&two).join("c")).unwrap(), size.to_string());
            assert!(free(&one) > size / 10 * 9, "{} of {size}", free(&one));
        }

        // A copy of it, block by block, is another share, though the kernel knows both by one number.
        let (copy, device) = (folder.join("copy"), attach(&file, large));
        let one = share::root(&device).unwrap();
        rustix::fs::syncfs(File::open(places(&one)).unwrap()).unwrap();
        fs::copy(&file, &copy).unwrap();
        let other = attach(&copy, large);
        let two = share::root(&other).unwrap();
        fs::write(places(&one).join("c"), "of the first").unwrap();
        fs::write(places(&two).join("c"), "of the copy").unwrap();
        assert_eq!(fs::read_to_string(places(&two).join("a")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(places(&one).join("c")).unwrap(), "of the first");
        drop((one, two, device, other));
        for (file, words) in [(&file, "of the first"), (&copy, "of the copy")] {
            let device = attach(file, large);
            let root = share::root(&device).unwrap();
            assert_eq!(fs::read_to_string(places(&root).join("c")).unwrap(), words);
        }

        // One that is broken is an error each time, and left as it is.
        let device = File::from(attach(&file, large));
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&device, hole, 0, 1 << 20).unwrap();
        let device = OwnedFd::from(device);
        for _ in 0..2 {
            share::root(&device).unwrap_err();
        }
    });
}

//! Detached mounts of a btrfs on a loop device. Needs root and mkfs.btrfs.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zos_host::{SysRoot, loopdev, mount};

/// Where a descriptor's folder can be reached by this process.
fn path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Does something in a detached mount as another user: a server of a share.
fn as_user(user: u32, folder: &OwnedFd, script: &str) -> String {
    let stdin = Stdio::from(folder.try_clone().unwrap());
    let user = user.to_string();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c"]);
    let done =
        setpriv.arg(format!("cd /proc/self/fd/0 && {script}")).stdin(stdin).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { text(&done.stdout) } else { text(&done.stderr) }
}

#[test]
fn one_file_system_is_two_users_own_and_stands_nowhere() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/mkfs.btrfs").exists() {
        eprintln!("skipped: needs root and mkfs.btrfs");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    let backing = File::create_new(&file).unwrap();
    backing.set_len(256 << 20).unwrap();
    let mkfs = Command::new("mkfs.btrfs")
        .args(["--quiet", "--metadata", "single"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(mkfs.success());
    let open = File::options().read(true).write(true).open(&file).unwrap();
    let options = loopdev::Options { autoclear: true, ..loopdev::Options::default() };
    let device = loopdev::attach(open.as_fd(), "share", &options).unwrap();
    let source = device.path.to_str().unwrap().to_owned();

    let (one, two) = (30_007, 30_012);
    let mounts = [one, two].map(|user| {
        let root = mount::detached(&source, "btrfs", &[]).unwrap();
        mount::owned_by(root.as_fd(), user).unwrap();
        root
    });
    assert!(mount::owned_by(mounts[0].as_fd(), two).is_err(), "an owner is told once");
    for (user, root) in [one, two].into_iter().zip(&mounts) {
        assert_eq!(fs::metadata(path(root)).unwrap().uid(), user);
    }
    assert_eq!(as_user(one, &mounts[0], "echo hello >a && mkdir b && echo done"), "done");
    assert_eq!(as_user(two, &mounts[1], "cat a && echo more >>a && stat -c %u a b"), {
        format!("hello\n{two}\n{two}")
    });
    assert_eq!(as_user(one, &mounts[0], "cat a; stat -c %u a"), format!("hello\nmore\n{one}"));
    // Another's mount is no use: nothing can be made there as somebody whom the map doesn't have.
    assert_eq!(as_user(one, &mounts[1], "mkdir c 2>/dev/null || echo refused"), "refused");
    // Not root either, for on the disk it would be somebody's whom nobody knows.
    assert!(File::create_new(path(&mounts[0]).join("c")).is_err());
    // On the disk all of it is root's.
    let plain = mount::detached(&source, "btrfs", &[]).unwrap();
    assert_eq!(fs::metadata(path(&plain).join("a")).unwrap().uid(), 0);

    // Data only, and nowhere in the tree.
    fs::write(path(&plain).join("program"), "#!/bin/sh\n").unwrap();
    assert!(as_user(one, &mounts[0], "chmod 755 program && ./program").contains("denied"));
    let ours = |list: Vec<mount::Mount>| list.iter().filter(|m| m.source == source).count();
    assert_eq!(ours(mount::list(&SysRoot::host()).unwrap()), 0);

    // It grows while it is used.
    let before = rustix::fs::statvfs(path(&plain)).unwrap();
    backing.set_len(512 << 20).unwrap();
    loopdev::refresh_size(&device.path).unwrap();
    mount::grow_btrfs(&plain).unwrap();
    mount::grow_btrfs(&plain).unwrap();
    let after = rustix::fs::statvfs(path(&plain)).unwrap();
    let bytes = |of: &rustix::fs::StatVfs| of.f_blocks * of.f_frsize;
    assert_eq!((bytes(&before), bytes(&after)), (256 << 20, 512 << 20));

    // The device is busy as long as one of them is there, then free.
    let exclusive = || {
        rustix::fs::open(
            &*source,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::EXCL,
            rustix::fs::Mode::empty(),
        )
    };
    drop(plain);
    let [first, second] = mounts;
    drop(first);
    assert_eq!(exclusive().unwrap_err(), rustix::io::Errno::BUSY);
    let mut left = File::create_new(path(&second).join("d"));
    assert!(left.is_err());
    left = File::open(path(&second).join("a"));
    drop(second);
    // An open file keeps it, too.
    assert_eq!(exclusive().unwrap_err(), rustix::io::Errno::BUSY);
    drop(left);
    exclusive().unwrap();
}

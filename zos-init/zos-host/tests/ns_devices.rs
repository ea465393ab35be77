//! Loop, device-mapper, tap and mounts against the running kernel. Needs root; each test says why it
//! was skipped where the kernel or the user can't do it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use zos_host::{SysRoot, block, dm, loopdev, mount, tap};

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_file_becomes_a_disk_and_goes_away() {
    if !root() || !SysRoot::host().exists("/dev/loop-control") {
        eprintln!("skipped: needs root and /dev/loop-control");
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; 1 << 20]).unwrap();
    let options = loopdev::Options { offset: 4096, ..Default::default() };
    let device = match loopdev::attach(file.as_file().as_fd(), "test", &options) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("skipped: {}", error.line());
            return;
        }
    };
    let found = loopdev::list(&SysRoot::host()).unwrap();
    let found = found.iter().find(|found| found.number == device.number).unwrap();
    assert_eq!((found.offset, found.path()), (4096, device.path.clone()));
    let disk = block::disk(&SysRoot::host(), format!("loop{}", device.number)).unwrap();
    assert_eq!((disk.kind, disk.size), (block::Kind::Loop, (1 << 20) - 4096));

    mapped_disk(&device);
    loopdev::detach(&device.path).unwrap();
    drop(device);
}

fn mapped_disk(device: &loopdev::LoopDevice) {
    let dm = match dm::Dm::open() {
        Ok(dm) => dm,
        Err(error) => {
            eprintln!("skipped: {}", error.line());
            return;
        }
    };
    let name = format!("zos-test-{}", std::process::id());
    let created = dm.create(&name, "ZOS-TEST").unwrap();
    assert!(!created.active);
    let target = dm::Target {
        start: 0,
        length: 8,
        kind: "linear".to_owned(),
        params: format!("{} 8", device.path.display()),
    };
    dm.load(&name, std::slice::from_ref(&target), false).unwrap();
    let live = dm.resume(&name).unwrap();
    assert!(live.active && !live.suspended);
    assert!(dm.list().unwrap().contains(&name));
    assert_eq!(dm.find(&name).unwrap().unwrap().uuid, "ZOS-TEST");
    let table = dm.table(&name).unwrap();
    assert_eq!((table.len(), table[0].length, &*table[0].kind), (1, 8, "linear"));
    let mut bytes = [0; 512];
    let mut disk = File::open(live.path()).unwrap();
    disk.seek(SeekFrom::Start(512)).unwrap();
    disk.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [7; 512]);
    drop(disk);
    dm.remove(&name, false).unwrap();
    assert_eq!(dm.find(&name).unwrap(), None);
}

#[test]
fn a_tap_lives_as_long_as_its_descriptor() {
    if !root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (fd, name) = match tap::open("zostest%d") {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("skipped: {}", error.line());
            return;
        }
    };
    let path = format!("/sys/class/net/{name}");
    assert!(SysRoot::host().exists(&path), "{name}");
    tap::set_offload(&fd, 0).unwrap();
    drop(fd);
    assert!(!SysRoot::host().exists(&path));
    // With several queues the last of their descriptors is its life.
    let mut queues = tap::open_queues(&name, 3).unwrap();
    assert_eq!(queues.len(), 3);
    queues.truncate(1);
    assert!(SysRoot::host().exists(&path) && tap::open(&name).is_err());
    drop(queues);
    assert!(!SysRoot::host().exists(&path));
}

#[test]
fn mounts_come_and_go() {
    if !root() {
        eprintln!("skipped: needs root");
        return;
    }
    // A namespace of its own, so that the machine sees nothing of it.
    std::thread::spawn(|| {
        // SAFETY: only this thread's namespace changes, and the thread ends with it.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        mount::make_private("/").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a b");
        mount::mount("test", &target, "tmpfs", mount::data_only(), "size=64k,mode=700").unwrap();
        // mountinfo of the thread, not of the process
        let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(text.contains("a\\040b"));
        mount::remount(&target, mount::data_only() | mount::MountFlags::RDONLY, "").unwrap();
        assert!(File::create(target.join("x")).is_err());
        mount::unmount(&target, mount::UnmountFlags::empty()).unwrap();
        let error = mount::unmount(&target, mount::UnmountFlags::empty()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    })
    .join()
    .unwrap();
}

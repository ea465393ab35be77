//! On a developer's machine: the fence of the template `vm`, but for the empty root, which takes static programs only,
//! and the cgroup.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use zos_host::process::{
    Capabilities, Exit, Namespace, Program, Resource, Root, Sandbox, Spawn, c_string, reap,
};

/// Starts this program again in the fence, with descriptors as vmd passes them.
pub(crate) fn run() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can build the fence");
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("our own path");
    let dir = tempfile::tempdir().expect("a folder");
    let disk = File::create_new(dir.path().join("disk")).expect("a disk");
    disk.set_len(DISK).expect("size a disk");
    let api = std::os::unix::net::UnixListener::bind(dir.path().join("api")).expect("a socket");
    let mut passed: Vec<(&str, OwnedFd)> = vec![
        ("kernel", File::open(&program).expect("some file").into()),
        ("disk-0", disk.into()),
        ("api", api.into()),
    ];
    if let Ok(kvm) = File::options().read(true).write(true).open("/dev/kvm") {
        passed.push(("kvm", kvm.into()));
    }
    let null = File::open("/dev/null").expect("/dev/null");
    let mut descriptors: Vec<(BorrowedFd<'_>, i32)> = vec![(null.as_fd(), 0)];
    let stderr = std::io::stderr();
    descriptors.extend([(stderr.as_fd(), 1), (stderr.as_fd(), 2)]);
    descriptors.extend((3..).zip(&passed).map(|(number, (_, fd))| (fd.as_fd(), number)));
    let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
    let environment =
        [format!("LISTEN_FDS={}", names.len()), format!("LISTEN_FDNAMES={}", names.join(":"))];
    use Namespace::{Cgroup, Ipc, Mount, Net, Pid, Uts};
    let file = File::open(&program).expect("this program");
    let spawn = Spawn {
        program: Program::Descriptor(file.into()),
        arguments: vec![c_string("escape").expect("no NUL")],
        environment: environment.iter().map(|text| c_string(text).expect("no NUL")).collect(),
        listen_pid: true,
        descriptors,
        cgroup: None,
        user: 20_000,
        group: 20_000,
        capabilities: Capabilities::NONE,
        limits: vec![
            (Resource::Core, 0),
            (Resource::Files, 1024),
            (Resource::LockedMemory, 4 << 20),
            (Resource::Processes, 512),
            (Resource::FileSize, DISK),
        ],
        namespaces: vec![Mount, Pid, Net, Ipc, Uts, Cgroup],
        root: Root::Inherited,
        dir: None,
        sandbox: Sandbox::default(),
    };
    let child = spawn.start().expect("start in the fence");
    loop {
        match reap() {
            Some((_, Exit::Code(0))) => return ExitCode::SUCCESS,
            Some((_, exit)) => {
                eprintln!("escape: {exit}; {:?}", child.failure());
                return ExitCode::FAILURE;
            }
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
}

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

//! The real program, spoken to as a VMM and a guest do: vhost-user, a ring in shared memory, FUSE.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod guest;

use guest::Guest;
use rustix::process::geteuid;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_zos-virtiofsd");
const S_IFMT: u32 = 0o170_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// The program at work, ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder `share` with a file, a secret beside it, and the program that serves the folder.
struct Setup {
    dir: tempfile::TempDir,
    server: Server,
    guest: Guest,
}

impl Setup {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        fs::create_dir(&share).unwrap();
        fs::write(share.join("hello"), "hello from the host").unwrap();
        fs::write(dir.path().join("secret"), "never").unwrap();
        prepare(&share);
        let socket = dir.path().join("socket");
        let server = Command::new(PROGRAM)
            .arg(format!("--socket-path={}", socket.display()))
            .arg(format!("--shared-dir={}", share.display()))
            .spawn()
            .unwrap();
        let server = Server(server);
        let guest = Guest::new(connect(&socket));
        Self { dir, server, guest }
    }

    fn share(&self) -> std::path::PathBuf {
        self.dir.path().join("share")
    }
}

/// Connects as soon as somebody listens.
fn connect(socket: &Path) -> UnixStream {
    for _ in 0..250 {
        if let Ok(stream) = UnixStream::connect(socket) {
            return stream;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("nobody listens at {}", socket.display());
}

#[test]
fn files_are_read_and_written() {
    let mut setup = Setup::new(|_| {});
    let guest = &mut setup.guest;
    let hello = guest.lookup(1, "hello").unwrap();
    assert_eq!(hello.size, 19);
    let handle = guest.open(hello.node, 0).unwrap();
    assert_eq!(guest.read(hello.node, handle, 0, 100).unwrap(), b"hello from the host");
    assert_eq!(guest.read(hello.node, handle, 11, 3).unwrap(), b"the");
    // As a user of the guest that the host doesn't have.
    guest.user = 1000;
    let (file, handle) = guest.create(1, "new", 0o4755).unwrap();
    assert_eq!(guest.write(file.node, handle, 0, b"from the guest").unwrap(), 14);
    let path = setup.share().join("new");
    assert_eq!(fs::read(&path).unwrap(), b"from the guest");
    assert_eq!(fs::metadata(&path).unwrap().uid(), geteuid().as_raw());
    assert_eq!(setup.guest.lookup(1, "new").unwrap().owner, 0);
    assert_eq!(setup.guest.lookup(1, "absent").unwrap_err(), libc::ENOENT);
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let mut setup = Setup::new(|share| {
        fs::create_dir(share.join("sub")).unwrap();
    });
    let root = fs::metadata(setup.share()).unwrap().ino();
    let sub_inode = fs::metadata(setup.share().join("sub")).unwrap().ino();
    let guest = &mut setup.guest;
    let sub = guest.lookup(1, "sub").unwrap().node;
    for (node, name) in [
        (1, "../secret"),
        (1, "/etc/passwd"),
        (1, "sub/../../secret"),
        (1, "./hello"),
        (sub, "../../secret"),
    ] {
        if let Ok(entry) = guest.lookup(node, name) {
            // Taken for a path within the folder, where there may be one; the secret has 5 bytes.
            assert_ne!(entry.size, 5, "{name}");
        }
        // May make something, but in there.
        let _ = guest.create(node, name, 0o644);
        let _ = guest.symlink(node, name, "hello");
    }
    let beside = fs::read_dir(setup.dir.path()).unwrap().count();
    assert_eq!(beside, 3, "the folder, the secret, the socket");
    assert_eq!(fs::read(setup.dir.path().join("secret")).unwrap(), b"never");
    // Above a folder is the shared one, or itself.
    let known = [root, sub_inode];
    for node in [1, sub] {
        let mut node = node;
        for _ in 0..3 {
            let Ok(up) = guest.lookup(node, "..") else { break };
            assert!(known.contains(&up.inode), "{up:?}");
            node = up.node;
            if let Ok(secret) = guest.lookup(node, "secret") {
                assert_ne!(secret.size, 5);
            }
        }
    }
}

#[test]
fn links_are_links_and_nothing_opens_through_them() {
    let mut setup = Setup::new(|share| {
        symlink("/etc", share.join("etc")).unwrap();
        symlink("/etc/passwd", share.join("passwd")).unwrap();
        symlink("../secret", share.join("up")).unwrap();
    });
    let guest = &mut setup.guest;
    guest.symlink(1, "own", "/etc/passwd").unwrap();
    for name in ["etc", "passwd", "up", "own"] {
        let link = guest.lookup(1, name).unwrap();
        assert_eq!(link.mode & S_IFMT, S_IFLNK, "{name}");
        for flags in [0, libc::O_RDWR, libc::O_DIRECTORY, libc::O_PATH] {
            guest.open(link.node, flags.cast_unsigned()).unwrap_err();
        }
        guest.open_dir(link.node).unwrap_err();
        guest.lookup(link.node, "passwd").unwrap_err();
        guest.create(1, name, 0o644).unwrap_err();
    }
    let link = guest.lookup(1, "etc").unwrap().node;
    assert_eq!(guest.read_link(link).unwrap(), b"/etc");
    assert_eq!(fs::read(setup.dir.path().join("secret")).unwrap(), b"never");
}

#[test]
fn devices_and_pipes_are_not_opened_and_not_made() {
    let root = geteuid().is_root();
    let mut setup = Setup::new(|share| {
        let make = |name: &str, kind: &[&str]| {
            let mut command = Command::new("mknod");
            let status = command.arg(share.join(name)).args(kind).status().unwrap();
            assert!(status.success());
        };
        make("pipe", &["p"]);
        if root {
            make("null", &["c", "1", "3"]);
        }
    });
    let guest = &mut setup.guest;
    let names: &[&str] = if root { &["pipe", "null"] } else { &["pipe"] };
    for name in names {
        let node = guest.lookup(1, name).unwrap().node;
        for flags in [0, libc::O_RDWR, libc::O_NONBLOCK] {
            guest.open(node, flags.cast_unsigned()).unwrap_err();
        }
    }
    let error = guest.make_node(1, "mem", S_IFCHR | 0o666, 0x101).unwrap_err();
    assert!([libc::EPERM, libc::EACCES].contains(&error), "{error}");
    guest.make_node(1, "file", 0o100_644, 0).unwrap();
}

#[test]
fn the_program_has_given_up_what_it_does_not_need() {
    let mut setup = Setup::new(|_| {});
    // It serves, so all its threads are there.
    setup.guest.lookup(1, "hello").unwrap();
    let tasks = format!("/proc/{}/task", setup.server.0.id());
    let mut threads = 0;
    for task in fs::read_dir(tasks).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let none = "0000000000000000";
        assert_eq!([field("CapEff:"), field("CapPrm:"), field("CapInh:")], [none; 3]);
        if geteuid().is_root() {
            assert_eq!(field("CapBnd:"), none);
        }
        assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
        threads += 1;
    }
    assert!(threads >= 3, "{threads} threads");
}

#[test]
fn hostile_requests_end_in_errors() {
    let mut setup = Setup::new(|_| {});
    let guest = &mut setup.guest;
    for (opcode, node, body) in [
        // Nodes and handles that aren't there, sizes that lie, codes that don't exist.
        (14, 77, vec![0; 8]),
        (15, 1, vec![0xff; 40]),
        (16, 1, vec![0xff; 40]),
        (999, 1, vec![0; 64]),
        (1, 1, [vec![b'a'; 3000], vec![0]].concat()),
    ] {
        assert_ne!(guest.request(opcode, node, &body, 4096).err(), None, "{opcode}");
    }
    guest.lookup(1, "hello").unwrap();
}

#[test]
fn a_request_that_is_none_ends_the_program_and_no_more() {
    // Names without an end, a request shorter than its header says.
    for body in [Vec::new(), vec![b'a'; 3000]] {
        let mut setup = Setup::new(|_| {});
        setup.guest.offer(1, 1, &body, 128);
        assert!(!setup.server.0.wait().unwrap().success());
    }
}

#[test]
fn the_program_ends_with_its_vmm() {
    let Setup { dir: _dir, mut server, guest } = Setup::new(|_| {});
    drop(guest);
    assert!(server.0.wait().unwrap().success());
}

/// Runs a shell that passes descriptors as PID 1 does, after some preparation of the folder's mount.
fn jailed(prepare: &str) -> Option<(Child, tempfile::TempDir)> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can make the folder's mount");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "cd {}; {prepare}; echo hello > share/hello; exec 9<&{} 3<&9 4<share 9<&-; \
         export LISTEN_FDS=2 LISTEN_FDNAMES=socket:folder; exec {PROGRAM}",
        dir.path().display(),
        listener.as_raw_fd(),
    );
    let command = ["-m", "bash", "-ec", &script];
    let child = Command::new("unshare").args(command).stderr(Stdio::piped()).spawn().unwrap();
    Some((child, dir))
}

#[test]
fn in_the_jail_the_folders_mount_is_fenced() {
    let fence = |options: &str| format!("mount -t tmpfs -o {options} share share");
    for options in ["nodev,nosuid", "nodev,noexec", "nosuid,noexec"] {
        let Some((child, _dir)) = jailed(&fence(options)) else { return };
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("lacks nodev"), "{error}");
    }
    let Some((child, dir)) = jailed(&fence("nodev,nosuid,noexec")) else { return };
    let _server = Server(child);
    let mut guest = Guest::new(connect(&dir.path().join("socket")));
    let hello = guest.lookup(1, "hello").unwrap();
    let handle = guest.open(hello.node, 0).unwrap();
    assert_eq!(guest.read(hello.node, handle, 0, 100).unwrap(), b"hello\n");
}

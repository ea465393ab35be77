//! The serial port's socket and terminal with the real program: a guest of a few instructions sends back what is
//! typed, and switches off at a `q`.
//!
//! ```text
//!  test ── socket ── zos-vmm (filters on) ── COM1 ── guest: poll, read, write, until 'q'
//! ```
//!
//! It needs a KVM that runs at least toys; without one the test says so and passes.

use nix::pty::openpty;
use rustix::termios::{LocalModes, tcgetattr};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Begins in 64-bit mode at its first byte.
const GUEST: &[u8] = &[
    0x66, 0xba, 0xfd, 0x03, // again: mov dx, 3fd     line status
    0xec, // in al, dx
    0xa8, 0x01, // test al, 1                         data is there
    0x74, 0xf7, // jz again
    0x66, 0xba, 0xf8, 0x03, // mov dx, 3f8
    0xec, // in al, dx
    0xee, // out dx, al
    0x3c, b'q', // cmp al, 'q'
    0x75, 0xed, // jne again
    0x66, 0xba, 0x00, 0x06, // mov dx, 600            ACPI sleep control
    0xb0, 0x34, // mov al, 34                         S5, now
    0xee, // out dx, al
    0xf4, // hlt
];
const AT: u64 = 0x100_0000;

/// An ELF with one segment, the guest.
fn kernel() -> Vec<u8> {
    let mut elf = vec![0; 120];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    // executable, x86-64, version 1, its entry, program headers behind this one.
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &AT.to_le_bytes());
    put(32, &[64]);
    put(52, &[64, 0, 56, 0, 1]);
    // Loaded: readable and executable, from behind the headers.
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0, 120]);
    put(80, &AT.to_le_bytes());
    put(88, &AT.to_le_bytes());
    put(96, &(GUEST.len() as u64).to_le_bytes());
    put(104, &(GUEST.len() as u64).to_le_bytes());
    elf.extend_from_slice(GUEST);
    elf
}

fn start(folder: &Path) -> Child {
    let kernel_path = folder.join("kernel");
    std::fs::write(&kernel_path, kernel()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let spec = format!(
        r#"{{"cpus": 1, "memory": 67108864, "cmdline": "", "kernel": {{"path": "{}"}}, "rng": true,
            "serial": {{"socket": {{"path": "{}"}}, "file": {{"path": "{}"}}}},
            "console": {{"socket": {{"path": "{}"}}}},
            "vsock": {{"cid": 3, "socket": {{"path": "{}"}}}}}}"#,
        path("kernel"),
        path("serial"),
        path("log"),
        path("console"),
        path("vsock"),
    );
    std::fs::write(folder.join("spec"), spec).unwrap();
    Command::new(env!("CARGO_BIN_EXE_zos-vmm"))
        .arg("--spec")
        .arg(folder.join("spec"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("run zos-vmm")
}

/// Connects once it listens.
fn connect(vmm: &mut Child, path: &Path) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        if let Some(status) = vmm.try_wait().unwrap() {
            let mut said = String::new();
            vmm.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("zos-vmm ended: {status}: {said}");
        }
        std::thread::yield_now();
    }
}

fn runs_here() -> bool {
    let x86_64 = cfg!(target_arch = "x86_64");
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !x86_64 || !kvm {
        eprintln!("left out: the guest is made for x86_64, and /dev/kvm must be there");
    }
    x86_64 && kvm
}

#[test]
fn what_is_typed_comes_back() {
    if !runs_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut vmm = start(folder.path());
    let mut serial = connect(&mut vmm, &folder.path().join("serial"));
    // Twenty times what the port's FIFO holds, and then the end.
    let mut text: Vec<u8> = (0..1280u32).map(|at| b'a' + u8::try_from(at % 16).unwrap()).collect();
    text.push(b'q');
    serial.write_all(&text).unwrap();
    let mut back = Vec::new();
    serial.read_to_end(&mut back).unwrap();
    let ended = vmm.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "the guest switches off: {told}");
    assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(&text));
    assert_eq!(std::fs::read(folder.path().join("log")).unwrap(), text);
    for name in ["serial", "console", "vsock"] {
        assert!(!folder.path().join(name).exists(), "{name} is removed at the end");
    }
}

#[test]
fn a_killed_vmm_leaves_no_sockets() {
    if !runs_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut vmm = start(folder.path());
    // Once the guest answers, all is as it stays.
    let mut serial = connect(&mut vmm, &folder.path().join("serial"));
    serial.write_all(b"a").unwrap();
    serial.read_exact(&mut [0; 1]).unwrap();
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    while ["serial", "console", "vsock"].iter().any(|name| folder.path().join(name).exists()) {
        std::thread::yield_now();
    }
}

#[test]
fn a_terminal_is_raw_while_the_guest_runs() {
    if !runs_here() {
        return;
    }
    let pty = openpty(None, None).unwrap();
    let echoes = || tcgetattr(&pty.slave).unwrap().local_modes.contains(LocalModes::ECHO);
    let folder = tempfile::tempdir().unwrap();
    let kernel_path = folder.path().join("kernel");
    std::fs::write(&kernel_path, kernel()).unwrap();
    let slave = || pty.slave.try_clone().unwrap();
    let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
    // Each way to end: the guest's own, and none at all.
    for kill in [false, true] {
        let mut vmm = Command::new(env!("CARGO_BIN_EXE_zos-vmm"))
            .args(["--memory", "64MiB", "--serial", "tty", "--kernel"])
            .arg(&kernel_path)
            .stdin(slave())
            .stdout(slave())
            .stderr(Stdio::null())
            .spawn()
            .expect("run zos-vmm");
        // The terminal itself would send back what is typed before it is raw.
        while echoes() {
            assert_eq!(vmm.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        // Ctrl-C is a letter like others; so is a line's end.
        let typed = b"a\x03b\r";
        master.write_all(typed).unwrap();
        let mut back = [0; 4];
        master.read_exact(&mut back).unwrap();
        assert_eq!(&back, typed);
        if kill {
            vmm.kill().unwrap();
        } else {
            master.write_all(b"q").unwrap();
            master.read_exact(&mut [0; 1]).unwrap();
        }
        let status = vmm.wait().unwrap();
        assert_eq!(status.success(), !kill, "{status}");
        while !echoes() {
            std::thread::yield_now();
        }
    }
}

//! The serial port's socket with the real program: a guest of a few instructions sends back what is
//! typed, and switches off at a `q`.
//!
//! ```text
//!  test ── socket ── zos-vmm (filters on) ── COM1 ── guest: poll, read, write, until 'q'
//! ```
//!
//! It needs a KVM that runs at least toys; without one the test says so and passes.

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

#[test]
fn what_is_typed_comes_back() {
    if !cfg!(target_arch = "x86_64") {
        return eprintln!("left out: the guest is made for x86_64");
    }
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return eprintln!("left out: /dev/kvm can't be used here");
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
    if !cfg!(target_arch = "x86_64") {
        return eprintln!("left out: the guest is made for x86_64");
    }
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return eprintln!("left out: /dev/kvm can't be used here");
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

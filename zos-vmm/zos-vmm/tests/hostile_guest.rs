//! The bare-metal hostile guest against the real program: it does its worst, then switches off in order.
//!
//! It needs a KVM that runs at least toys; without one the test says so and passes. A node's image test
//! runs the same guest in the node, so that it is never left out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The guest, built once for the whole run.
fn guest() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hostile-guest");
    // Beside what this test itself was built into.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-guest");
    let cargo = Command::new(env!("CARGO"))
        .current_dir(&crate_dir)
        .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .status()
        .expect("run cargo");
    assert!(cargo.success(), "build the hostile guest; `rustup target add x86_64-unknown-none`");
    target.join("x86_64-unknown-none/release/hostile-guest")
}

/// Every kind of device that needs nothing of the host but a folder.
fn run(guest: &Path, seed: u32, dir: &Path) -> Output {
    let vsock = format!("cid=3,socket={}", dir.join("vsock").display());
    let disk = format!("path={},num_queues=2", dir.join("disk").display());
    Command::new(env!("CARGO_BIN_EXE_zos-vmm"))
        .args(["--memory", "128MiB", "--cmdline", &format!("seed={seed} steps=200")])
        .args(["--balloon", "size=0,free_page_reporting=on", "--console", "null"])
        .args(["--vsock", &vsock, "--disk", &disk, "--kernel"])
        .arg(guest)
        .output()
        .expect("run zos-vmm")
}

#[test]
fn a_hostile_guest_is_stood() {
    if !cfg!(target_arch = "x86_64") {
        return eprintln!("left out: the hostile guest is made for x86_64");
    }
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return eprintln!("left out: /dev/kvm can't be used here");
    }
    let guest = guest();
    let dir = tempfile::tempdir().unwrap();
    let disk = std::fs::File::create_new(dir.path().join("disk")).unwrap();
    disk.set_len(4 << 20).unwrap();
    for seed in 1..=5 {
        let output = run(&guest, seed, dir.path());
        let (said, told) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let parts: Vec<&str> = said.lines().filter(|line| line.starts_with("hostile: ")).collect();
        assert_eq!(output.status.code(), Some(0), "seed {seed}: {parts:?} {told}");
        assert!(said.contains("hostile: done, 5 devices"), "seed {seed}: {parts:?} {told}");
        assert!(told.contains("zos-vmm: poweroff after"), "seed {seed}: {told}");
    }
    assert_eq!(disk.metadata().unwrap().len(), 4 << 20, "the disk grew");
}

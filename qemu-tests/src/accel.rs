//! KVM where Linux boots under it and can run VMs itself, else emulation.
//!
//! `/dev/kvm` alone proves nothing: some clouds lend a variant under which Linux hangs. So a kernel is booted once with
//! a short limit, and the answer is kept for this kernel and CPU.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use image_builder::cache::{Cache, hash_fields};

use crate::image;
use crate::qemu::Qemu;

/// How long a kernel may take to its panic for want of a root: a second with KVM.
const LIMIT: Duration = Duration::from_secs(10);
/// Linux's last words without a root.
const BOOTED: &str = "Kernel panic - not syncing: VFS";

/// How QEMU runs the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's own virtualization.
    Kvm,
    /// Emulation, with AMD's SVM for VMs inside.
    Tcg,
}

impl Accel {
    /// Decides once, and keeps the answer.
    pub fn probe() -> Result<Self> {
        static FOUND: OnceLock<std::result::Result<Accel, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| decide().map_err(|error| format!("{error:#}")));
        found.clone().map_err(|error| anyhow!("choose KVM or emulation: {error}"))
    }

    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// A named model: `max` has features that upset kernels.
    pub(crate) fn cpu(self, virtualization: bool) -> &'static str {
        match (self, virtualization) {
            (Self::Kvm, true) => "host",
            (Self::Kvm, false) => "host,-svm,-vmx",
            (Self::Tcg, true) => "EPYC,+svm",
            (Self::Tcg, false) => "EPYC,-svm",
        }
    }
}

fn decide() -> Result<Accel> {
    if !Path::new("/dev/kvm").exists() || !nested() {
        return Ok(Accel::Tcg);
    }
    let qemu = Qemu::find()?;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (cpu, kernel) = (read("/proc/cpuinfo"), read("/proc/version"));
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let key = hash_fields(&[model.as_bytes(), kernel.as_bytes(), qemu.version.as_bytes()]);
    let kept = Cache::of_user()?.root().join("kvm").join(key);
    match std::fs::read_to_string(&kept).as_deref() {
        Ok("yes") => return Ok(Accel::Kvm),
        Ok(_) => return Ok(Accel::Tcg),
        Err(_) => {}
    }
    let works = boots(qemu)?;
    std::fs::create_dir_all(kept.parent().context("the cache has a folder")?)
        .context("make the cache")?;
    std::fs::write(&kept, if works { "yes" } else { "no" }).context("keep the answer")?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

/// Whether KVM here lets a guest run guests.
fn nested() -> bool {
    ["kvm_intel", "kvm_amd"].iter().any(|module| {
        let flag = std::fs::read_to_string(format!("/sys/module/{module}/parameters/nested"));
        flag.is_ok_and(|text| matches!(text.trim(), "1" | "Y"))
    })
}

/// Boots the node's kernel without a root, as far as its panic.
fn boots(qemu: &Qemu) -> Result<bool> {
    let dir = tempfile::tempdir().context("make a temporary folder")?;
    let serial = dir.path().join("serial");
    let mut child = qemu
        .command()
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "q35",
        ])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "512", "-append", "console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(image::vmlinuz()?)
        .args(["-serial", &format!("file:{}", serial.display())])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start QEMU with KVM")?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && child.try_wait().context("look after QEMU")?.is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().ok();
    child.wait().context("end QEMU")?;
    let text = std::fs::read(&serial).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).contains(BOOTED))
}

//! The programs that tests call: `zos` for this machine, the probe (static) for the node. Built once, by cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::image::project;

const STATIC: &str = "x86_64-unknown-linux-musl";
const STATIC_ARM: &str = "aarch64-unknown-linux-musl";

/// The command line of twins.
pub fn zos() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    // The kind that we are, so that one build serves both.
    if cfg!(debug_assertions) {
        once(&BUILT, || build("zos", &[], &["debug", "zos"]))
    } else {
        once(&BUILT, || build("zos", &["--release"], &["release", "zos"]))
    }
}

/// The hand inside a node.
pub fn probe() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        build("zos-probe", &["--release", "--target", STATIC], &[STATIC, "release", "zos-probe"])
    })
}

/// The VMM taken over: a test of `zos-vmm`'s, to stand in its place in a node.
pub fn escape() -> Result<&'static Path> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, || test("zos-vmm", "escape", &["--release", "--target", STATIC]))
}

/// Volumes against the kernel: a test of `storaged`'s, for the node's kernel, since others may lack device-mapper.
pub fn volumes() -> Result<&'static Path> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, || test("storaged", "ns_volume", &["--release", "--target", STATIC]))
}

/// PID 1, as the image has it.
pub fn init() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        build("zos-init", &["--release", "--target", STATIC], &[STATIC, "release", "zos-init"])
    })
}

/// The hand inside a VM.
pub fn agent() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        build("zos-agent", &["--release", "--target", STATIC], &[STATIC, "release", "zos-agent"])
    })
}

/// Who serves a folder to a VM.
pub fn virtiofsd() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        let name = "zos-virtiofsd";
        build(name, &["--release", "--target", STATIC], &[STATIC, "release", name])
    })
}

/// The VMM, as the image has it.
pub fn vmm() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        build("zos-vmm", &["--release", "--target", STATIC], &[STATIC, "release", "zos-vmm"])
    })
}

/// PID 1 of a bare machine, and of the VM in it.
pub fn inside() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        build("zos-inside", &["--release", "--target", STATIC], &[STATIC, "release", "zos-inside"])
    })
}

/// The VMM for the other architecture.
pub fn vmm_arm() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || arm("zos-vmm"))
}

/// PID 1 of a bare machine of the other architecture, and of the VM in it.
pub fn inside_arm() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || arm("zos-inside"))
}

fn arm(package: &str) -> Result<PathBuf> {
    build(package, &["--release", "--target", STATIC_ARM], &[STATIC_ARM, "release", package])
}

/// The bare-metal guest that is up to no good. It has a workspace of its own, since it runs on no operating system.
pub fn hostile_guest() -> Result<&'static Path> {
    static BUILT: Once = OnceLock::new();
    once(&BUILT, || {
        let target = target().join("hostile-guest");
        let words = ["build", "--quiet", "--release", "--locked", "--target-dir"];
        cargo(&project().join("zos-vmm/hostile-guest"), &words, Some(&target))?;
        Ok(target.join("x86_64-unknown-none/release/hostile-guest"))
    })
}

type Once = OnceLock<std::result::Result<PathBuf, String>>;

fn once(built: &'static Once, build: impl FnOnce() -> Result<PathBuf>) -> Result<&'static Path> {
    let built = built.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build(package: &str, flags: &[&str], place: &[&str]) -> Result<PathBuf> {
    let words = ["build", "--quiet", "--locked", "--package", package, "--bin", package];
    cargo(project(), &[&words, flags].concat(), None)?;
    Ok(place.iter().fold(target(), |path, part| path.join(part)))
}

fn cargo(dir: &Path, words: &[&str], last: Option<&Path>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(dir).args(words).args(last);
    // Pure Rust: no linker of the other architecture's C compiler is needed.
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    let output = command.output();
    let output = output.with_context(|| format!("run cargo in {}", dir.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed:\n{said}", words.join(" "));
    Ok(())
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project().join("target"), PathBuf::from)
}

/// A test's own program; cargo tells where it lies.
fn test(package: &str, name: &str, flags: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(project())
        .args(["test", "--no-run", "--quiet", "--locked", "--package", package, "--test", name])
        .args(["--message-format", "json"])
        .args(flags)
        .output()
        .with_context(|| format!("run cargo for {package}'s test {name}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo can't build {package}'s test {name}:\n{error}");
    let told = String::from_utf8_lossy(&output.stdout);
    let built = told.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs = built.filter_map(|line: serde_json::Value| {
        let ours = line["target"]["name"] == name;
        ours.then(|| line["executable"].as_str().map(PathBuf::from))?
    });
    programs
        .next_back()
        .with_context(|| format!("cargo tells no program of {package}'s test {name}"))
}

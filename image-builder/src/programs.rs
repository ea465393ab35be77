//! Our own programs: static, for the node's architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::error::{Error, Result, read};
use crate::progress::say;
use crate::project::Project;
use crate::tool;

/// Package (= program) and where it goes; the guest's PID 1 goes into an initramfs of its own.
pub const PROGRAMS: [(&str, &str); 4] = [
    ("zos-init", "init"),
    ("zosd", "bin/zosd"),
    ("zos-vmm", "bin/zos-vmm"),
    ("zos-virtiofsd", "bin/zos-virtiofsd"),
];
/// PID 1 of `builtin:hello`.
pub const GUEST: &str = "zos-guest";

/// Compiles the programs, or takes them from a folder; gives their bytes by name.
///
/// # Errors
/// A missing toolchain target, a compiler's error, or a program that isn't static.
pub fn build(
    project: &Project,
    arch: Arch,
    ready: Option<&Path>,
    offline: bool,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let names = PROGRAMS.map(|(name, _)| name).into_iter().chain([GUEST]);
    let paths: Vec<(String, PathBuf)> = match ready {
        Some(dir) => names.map(|n| (n.to_owned(), dir.join(n))).collect(),
        None => compile(project, arch, &names.collect::<Vec<_>>(), offline)?,
    };
    let mut programs = BTreeMap::new();
    for (name, path) in paths {
        let data = read(&path)?;
        let needs = crate::elf::needs(&name, &data)?;
        if needs.interpreter.is_some() || !needs.libraries.is_empty() {
            return Err(Error::form(
                name,
                format!("isn't static: needs {}", needs.libraries.join(", ")),
            ));
        }
        programs.insert(name, data);
    }
    Ok(programs)
}

fn compile(
    project: &Project,
    arch: Arch,
    names: &[&str],
    offline: bool,
) -> Result<Vec<(String, PathBuf)>> {
    let target = arch.rust_target();
    check_target(target)?;
    tool::require(&[arch.musl_gcc()])?;
    say(format!("compiling {} for {target} (some minutes the first time)", names.join(", ")));
    let mut cargo = Command::new("cargo");
    cargo.current_dir(project.root()).args(["build", "--release", "--locked", "--target", target]);
    if offline {
        cargo.arg("--offline");
    }
    for name in names {
        cargo.args(["-p", name, "--bin", name]);
    }
    // What only developers need, `zosd sim`, is a default feature.
    cargo.arg("--no-default-features");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(project).join("\x1f")).env_remove("RUSTFLAGS");
    if arch == Arch::Aarch64 {
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
        cargo.env("CC_aarch64_unknown_linux_musl", arch.musl_gcc().name);
    }
    // cargo's own progress goes to the person's terminal.
    let status = cargo.status().map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let dir =
        target_dir.unwrap_or_else(|| project.root().join("target")).join(target).join("release");
    Ok(names.iter().map(|n| ((*n).to_owned(), dir.join(n))).collect())
}

/// Paths of this machine don't get into panic messages: two checkouts give the same bytes.
fn flags(project: &Project) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let rustup =
        std::env::var_os("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from);
    let places = [(cargo, "/cargo"), (rustup, "/rustup"), (project.root().to_owned(), "/zos")];
    places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect()
}

fn check_target(target: &str) -> Result<()> {
    let lib =
        tool::output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(lib.trim()).is_dir() {
        return Ok(());
    }
    Err(Error::form(
        "the Rust toolchain",
        format!("can't compile for {target}; run: rustup target add {target}"),
    ))
}

fn failed(status: String) -> Error {
    Error::Program { program: "cargo build".into(), status, output: String::new() }
}

//! The same program, not as PID 1: what somebody may start by hand.
//!
//! ```text
//!  zos-init DIR                              checks the unit files of a folder
//!  zos-init kexec-load KERNEL INITRD LINE    loads the kernel that `Init.Shutdown {kexec}` starts
//! ```
//! PID 1 itself never loads a kernel: it takes seconds, and units would wait.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use zos_host::{Context, Result, kexec};

use crate::unit;

const USAGE: &str = "zos-init is the first process of a ZOS node. Elsewhere:
  zos-init DIR                              checks DIR/units/*.toml and DIR/templates/*.toml
  zos-init kexec-load KERNEL INITRD LINE    loads a kernel with its command line; INITRD may be -";

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["kexec-load", kernel, initrd, line] => match load(kernel, initrd, line) {
            Ok(()) => {
                println!("loaded; Init.Shutdown {{kexec}} starts it");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("zos-init: {}{}", error.line(), hint(error.errno()));
                ExitCode::FAILURE
            }
        },
        [dir] if !dir.starts_with('-') => check_units(Path::new(dir)),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn load(kernel: &str, initrd: &str, line: &str) -> Result<()> {
    let open = |path: &str| File::open(path).during("open", path);
    let kernel = open(kernel)?;
    let initrd = if initrd == "-" { None } else { Some(open(initrd)?) };
    kexec::load(kernel.as_fd(), initrd.as_ref().map(AsFd::as_fd), line)
}

/// What the kernel's answer means here (kexec_file_load(2)).
fn hint(errno: Option<i32>) -> &'static str {
    match errno {
        Some(1) => " (it takes CAP_SYS_BOOT, and a kernel that allows it)",
        Some(8) => " (the file is no kernel for this machine)",
        Some(16) => " (another load is under way)",
        Some(38) => " (this kernel can't start others)",
        _ => "",
    }
}

fn check_units(dir: &Path) -> ExitCode {
    let units = unit::load(dir);
    for problem in &units.problems {
        eprintln!("{problem}");
    }
    for service in &units.services {
        println!("{}: {}", service.name, service.exec.join(" "));
    }
    for template in units.templates.values() {
        println!("template {}: {}", template.name, template.exec.join(" "));
    }
    if units.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_loaded_is_said() {
        let error = load("/nowhere/vmlinuz", "-", "quiet").unwrap_err();
        assert!(error.line().starts_with("open /nowhere/vmlinuz: "), "{}", error.line());
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel");
        std::fs::write(&kernel, "no kernel").unwrap();
        let kernel = kernel.to_str().unwrap();
        let error = load(kernel, "/nowhere/initrd", "").unwrap_err();
        assert!(error.line().starts_with("open /nowhere/initrd: "), "{}", error.line());
        // Without the right to it, or since it is none: never loaded.
        assert!(load(kernel, "-", "").is_err());
    }
}

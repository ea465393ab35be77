//! Which QEMU: version 10 or newer from PATH, else the pinned packages, unpacked and run in place.
//!
//! ```text
//!  qemu-system-x86_64 on PATH, >= 10, with OVMF beside it ──yes──▶ that one
//!      │ no
//!  inputs.lock, purpose `tests` ──image-builder's cache──▶ usr/lib/.../ld-linux-x86-64.so.2 --library-path .. usr/bin/qemu-..
//! ```
//!
//! The packages hold every library down to the C library, so they run on any x86_64 Linux and nothing is installed.
//! Older versions are refused: Debian 12's 7.2 miscompiles `cmpxchg16b` under emulation, and kernels die at random.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::fetch::Fetcher;
use image_builder::inputs::Purpose;
use image_builder::project::Project;

use crate::slots::{PATIENCE, Slot};

const NAME: &str = "qemu-system-x86_64";
/// The one for the VMM's test on the other architecture; its packages lie in the same folder.
const NAME_ARM: &str = "qemu-system-aarch64";
const OLDEST: u32 = 10;
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A QEMU that may be trusted, and its firmware.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Program and arguments before all others.
    prefix: Vec<String>,
    /// What `--version` says.
    pub version: String,
    /// OVMF's code.
    pub ovmf_code: PathBuf,
    /// OVMF's variables, to be copied for each machine.
    pub ovmf_vars: PathBuf,
    /// The folder of the unpacked packages; none for an installed one.
    pub tree: Option<PathBuf>,
}

impl Qemu {
    /// Finds or unpacks one; the answer is kept.
    pub fn find() -> Result<&'static Self> {
        static FOUND: OnceLock<std::result::Result<Qemu, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| Self::look().map_err(|error| format!("{error:#}")));
        found.as_ref().map_err(|error| anyhow!("no QEMU: {error}"))
    }

    /// The words that start it, before its arguments.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.prefix
    }

    /// A command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command.args(&self.prefix[1..]);
        command
    }

    /// A command that starts a machine of the other architecture.
    pub fn command_arm() -> Result<Command> {
        if let Ok(version) = version(&mut Command::new(NAME_ARM))
            && major(&version) >= Some(OLDEST)
        {
            return Ok(Command::new(NAME_ARM));
        }
        let prefix = place(&tree()?, NAME_ARM);
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]);
        Ok(command)
    }

    fn look() -> Result<Self> {
        if let Some(installed) = Self::installed() {
            return Ok(installed);
        }
        Self::unpacked(&tree()?)
    }

    fn installed() -> Option<Self> {
        let version = version(&mut Command::new(NAME)).ok()?;
        let share = Path::new("/usr/share/OVMF");
        let (code, vars) = (share.join("OVMF_CODE_4M.fd"), share.join("OVMF_VARS_4M.fd"));
        let usable = major(&version)? >= OLDEST && code.exists() && vars.exists();
        usable.then(|| Self {
            prefix: vec![NAME.into()],
            version,
            ovmf_code: code,
            ovmf_vars: vars,
            tree: None,
        })
    }

    fn unpacked(tree: &Path) -> Result<Self> {
        let prefix = place(tree, NAME);
        let version = version(Command::new(&prefix[0]).args(&prefix[1..]))?;
        if major(&version).is_none_or(|major| major < OLDEST) {
            bail!(
                "the pinned QEMU is {version}, {OLDEST} or newer is needed: move its pin (image-builder update)"
            );
        }
        let share = tree.join("usr/share/OVMF");
        let (ovmf_code, ovmf_vars) = (share.join("OVMF_CODE_4M.fd"), share.join("OVMF_VARS_4M.fd"));
        Ok(Self { prefix, version, ovmf_code, ovmf_vars, tree: Some(tree.to_owned()) })
    }
}

/// The pinned packages, unpacked.
fn tree() -> Result<PathBuf> {
    let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    // Two at once would fetch the same, and apt lets only one ask.
    let _one = Slot::one_of(&[project.root().join("target/qemu-tests/qemu.lock")], PATIENCE)?;
    let fetcher = Fetcher::open(&project, Cache::of_user()?, false)?;
    fetcher.merged(Purpose::Tests, Arch::X86_64).context("unpack QEMU")
}

/// The words that start a program of the unpacked packages.
fn place(tree: &Path, name: &str) -> Vec<String> {
    let at = |path: &str| tree.join(path).display().to_string();
    let libraries = at(LIBRARIES);
    let mut words =
        vec![format!("{libraries}/ld-linux-x86-64.so.2"), "--library-path".into(), libraries];
    words.push(at(&format!("usr/bin/{name}")));
    for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        words.extend(["-L".into(), at(data)]);
    }
    words
}

fn version(command: &mut Command) -> Result<String> {
    let output = command.arg("--version").output().context("ask QEMU for its version")?;
    if !output.status.success() {
        bail!("QEMU does not start: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    Ok(line.trim_start_matches("QEMU emulator version ").to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        let check = |text, wanted| assert_eq!(major(text), wanted, "{text}");
        check("10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", Some(10));
        check("7.2.15", Some(7));
        check("", None);
    }
}

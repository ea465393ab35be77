//! A TPM 2.0 in software that isn't ours: swtpm of the pinned packages, a process for each TPM.
//!
//! ```text
//!  Swtpm ─ its folder ─▶ what the chip keeps: the same folder is the same TPM, an empty one a new TPM
//!     ├ server    a socket that takes bare commands, for a program on this machine
//!     └ control   a socket for QEMU's `-tpmdev emulator`
//! ```

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::peers;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// It listens within moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// A TPM that runs. It is switched off when this is dropped, and keeps what it must in its folder.
#[derive(Debug)]
pub struct Swtpm {
    process: Child,
    socket: PathBuf,
}

impl Swtpm {
    /// One that takes bare commands, switched on.
    pub fn server(state: &Path) -> Result<Self> {
        let socket = state.join("server.sock");
        let server = format!("type=unixio,path={}", socket.display());
        Self::start(state, socket, &["--server", &server, "--flags", "not-need-init,startup-clear"])
    }

    /// One for a QEMU; it ends with it.
    pub fn control(state: &Path) -> Result<Self> {
        let socket = state.join("control.sock");
        let control = format!("type=unixio,path={}", socket.display());
        Self::start(state, socket, &["--ctrl", &control, "--terminate"])
    }

    fn start(state: &Path, socket: PathBuf, arguments: &[&str]) -> Result<Self> {
        let tree = peers::tree()?;
        let libraries = tree.join(LIBRARIES);
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        let more = libraries.join("swtpm");
        let path = format!("{}:{}", libraries.display(), more.display());
        command.arg("--library-path").arg(path).arg(tree.join("usr/bin/swtpm"));
        command.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", state.display()));
        let log = File::create(state.join("swtpm.log")).context("make swtpm's log")?;
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut found = Self { process: command.spawn().context("start swtpm")?, socket };
        let start = Instant::now();
        while !found.socket.exists() {
            if let Some(status) = found.process.try_wait()? {
                bail!(
                    "swtpm ended at once: {status}; {} says why",
                    state.join("swtpm.log").display()
                );
            }
            if start.elapsed() > PATIENCE {
                bail!("swtpm does not listen on {}", found.socket.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(found)
    }

    /// A way to it, for bare commands.
    pub fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket).context("reach swtpm")
    }

    /// QEMU's arguments for a machine with it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let chardev = format!("socket,id=tpm,path={}", self.socket.display());
        let words = ["-chardev", &chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device"];
        words.into_iter().chain(["tpm-crb,tpmdev=tpm0"]).map(str::to_owned).collect()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

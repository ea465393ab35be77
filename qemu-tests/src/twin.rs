//! A digital twin: its key, its client, and its command line.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use zos_types::TwinId;

use crate::api::Api;
use crate::machine::Machine;
use crate::programs;

/// How long a command of `zos` may take.
const COMMAND: Duration = Duration::from_secs(90);

/// A twin.
#[derive(Clone, Debug)]
pub struct Twin {
    /// Its key file.
    pub key_file: PathBuf,
    /// Its key.
    pub key: SigningKey,
}

impl Twin {
    /// A twin with a key file; `zos key new` makes it if there is none.
    pub fn at(key_file: PathBuf) -> Result<Self> {
        if !key_file.exists() {
            let mut command = Command::new(programs::zos()?);
            command.arg("--key").arg(&key_file).args(["key", "new"]);
            succeed(&run(command)?, "zos key new")?;
        }
        let pem = std::fs::read_to_string(&key_file).context("read the twin's key")?;
        let key = SigningKey::from_pkcs8_pem(&pem).context("read the twin's key as PKCS#8")?;
        Ok(Self { key_file, key })
    }

    /// Its public key: who it is to a node.
    #[must_use]
    pub fn id(&self) -> TwinId {
        TwinId::from(&self.key.verifying_key())
    }

    /// Its client of a node.
    pub fn api(&self, machine: &Machine) -> Result<Api> {
        Api::new(machine.api_port(), Some(self.key.clone()))
    }

    /// `zos` with this twin's key, for a node; not run yet.
    pub fn zos(&self, machine: &Machine, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(programs::zos()?);
        command
            .arg("--node")
            .arg(machine.address()?)
            .arg("--key")
            .arg(&self.key_file)
            .args(arguments);
        Ok(command)
    }

    /// Runs `zos` and gives what it prints. An error holds what it says.
    pub fn run_zos(&self, machine: &Machine, arguments: &[&str]) -> Result<String> {
        succeed(&run(self.zos(machine, arguments)?)?, &format!("zos {}", arguments.join(" ")))
    }
}

fn succeed(output: &Output, what: &str) -> Result<String> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "`{what}` fails ({}): {}",
        output.status,
        said(&output.stderr)
    );
    Ok(said(&output.stdout))
}

/// Runs a command to its end, which comes in time.
pub fn run(mut command: Command) -> Result<Output> {
    let name = command.get_program().display().to_string();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).map(|_| bytes)
        })
    };
    let stdout = reader(Box::new(stdout.context("the output is a pipe")?));
    let stderr = reader(Box::new(stderr.context("the errors are a pipe")?));
    let end = Instant::now() + COMMAND;
    let status = loop {
        if let Some(status) = child.try_wait().context("look after a command")? {
            break status;
        }
        if Instant::now() > end {
            child.kill().ok();
            child.wait().ok();
            bail!("{name} did not end in {} s", COMMAND.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let bytes = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default()
    };
    Ok(Output { status, stdout: bytes(stdout), stderr: bytes(stderr) })
}

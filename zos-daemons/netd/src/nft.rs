//! `nft`, which loads rules: all of them at once or none.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where it lies: in the image, and on a developer's machine.
const PLACES: [&str; 3] = ["/bin/nft", "/usr/sbin/nft", "/sbin/nft"];
const LIMIT: Duration = Duration::from_secs(10);

/// Why the rules were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error("the program nft is missing")]
    Missing,
    /// It could not be run.
    #[error("run nft")]
    Run(#[source] std::io::Error),
    /// It hangs.
    #[error("nft gave no answer for {} s", LIMIT.as_secs())]
    Hangs,
    /// It refused.
    #[error("nft: {0}")]
    Refused(String),
}

/// Whether there is one.
pub fn place() -> Option<&'static str> {
    PLACES.into_iter().find(|path| Path::new(path).exists())
}

/// Loads a ruleset in one transaction. The child has the ambient capabilities of this process.
pub async fn load(ruleset: &Value) -> Result<(), NftError> {
    let path = place().ok_or(NftError::Missing)?;
    let run = async {
        let mut child = Command::new(path)
            .args(["-j", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let text = ruleset.to_string();
        let write = async move { input.write_all(text.as_bytes()).await };
        let (written, output) = tokio::join!(write, child.wait_with_output());
        let output = output?;
        if output.status.success() {
            written?;
        }
        Ok(output)
    };
    let output = tokio::time::timeout(LIMIT, run)
        .await
        .map_err(|_| NftError::Hangs)?
        .map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).take(2).collect();
    Err(NftError::Refused(format!("{}: {}", output.status, first.join(" "))))
}

//! `zos logs NAME/WORKLOAD [-f]`
//!
//! ```text
//!  GET log?from=n ─▶ bytes … bytes ─┬─ end, without -f ─▶ done
//!        ▲                          └─ end or broke off, with -f ─▶ is the VM still there? ─ no ─▶ done
//!        └──────────────────────────────────────────────────────────────────────┘ yes
//! ```

use std::io::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zos_api::client::{Client, ClientError, Log};
use zos_types::WorkloadName;

use super::patience::{ask_until_answered, passes, tell};
use crate::output::Output;

/// How long a node that was gone may not know the VM: it takes up its deployments again.
const FORGETFUL: Duration = Duration::from_secs(60);

/// Writes the console's bytes as they are; in JSON an object a piece, `{"data": "<base64>"}`.
pub(super) async fn run(
    client: &Client,
    workload: &WorkloadName,
    follow: bool,
    output: Output,
) -> anyhow::Result<()> {
    let mut log = client.log(workload, follow).await?;
    let mut next = log.from();
    loop {
        let broken = copy(&mut log, &mut next, output).await?;
        match broken {
            Some(error) if !follow => return Err(error.into()),
            None if !follow => return Ok(()),
            Some(_) => tell(),
            None => {}
        }
        log = match again(client, workload, next, broken.is_some()).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(()),
            log => log?,
        };
        if log.from() > next {
            eprintln!("zos: {} bytes are no longer there", log.from() - next);
        }
        next = log.from();
    }
}

/// Writes what comes; the error that ended it, if it was one.
async fn copy(
    log: &mut Log,
    next: &mut u64,
    output: Output,
) -> anyhow::Result<Option<ClientError>> {
    while let Some(bytes) = log.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Some(error)),
        };
        let mut stdout = io::stdout().lock();
        if output.json {
            writeln!(stdout, "{{\"data\":\"{}\"}}", STANDARD.encode(&bytes))?;
        } else {
            stdout.write_all(&bytes)?;
        }
        stdout.flush()?;
        *next += bytes.len() as u64;
    }
    Ok(None)
}

/// The log from a position on, once the node answers. A console that is shorter is another one.
async fn again(
    client: &Client,
    workload: &WorkloadName,
    next: u64,
    broken: bool,
) -> Result<Log, ClientError> {
    let forgotten = |error: &ClientError, waited: Duration| {
        let absent = error.problem().is_some_and(|problem| problem.status == 404);
        absent && broken && waited < FORGETFUL
    };
    let ask = async || {
        let log = client.log_from(workload, next, true).await?;
        if log.from() >= next {
            return Ok(log);
        }
        client.log_from(workload, 0, true).await
    };
    ask_until_answered(ask, |error, waited| passes(error) || forgotten(error, waited)).await
}

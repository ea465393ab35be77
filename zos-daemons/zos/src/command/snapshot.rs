//! `zos snapshot create|list|delete|restore NAME/VOLUME[@SNAPSHOT]`
//!
//! ```text
//!  restore ─▶ ask, or --yes ─▶ POST ─▶ GET … until the volume is no longer `restoring`
//! ```

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zos_api::client::Client;
use zos_types::volume::{SnapshotStatus, VolumeStatus};
use zos_types::{Name, Origin, WorkloadName};

use super::deployments::detail;
use super::patience::passes;
use super::sure::ask;
use crate::cli::{SnapshotCommand, Sure};
use crate::exit::{NotInTime, Usage};
use crate::output::{Output, plain, table};

/// How often the node is asked while waiting.
const ASK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    command: SnapshotCommand,
    client: &Client,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Create { snapshot } => create(client, snapshot, output).await,
        SnapshotCommand::List { volume } => list(client, volume, output).await,
        SnapshotCommand::Delete { snapshot, sure } => delete(client, snapshot, sure).await,
        SnapshotCommand::Restore { snapshot, sure, timeout } => {
            restore(client, snapshot, sure, Duration::from_secs(timeout), output).await
        }
    }
}

/// A snapshot with the volume that it is of.
#[derive(Serialize)]
struct Listed {
    /// `deployment/volume`.
    volume: String,
    #[serde(flatten)]
    snapshot: SnapshotStatus,
}

/// What `list` shows.
#[derive(Serialize)]
struct Snapshots {
    snapshots: Vec<Listed>,
}

async fn create(client: &Client, snapshot: Origin, output: Output) -> anyhow::Result<()> {
    let Origin { volume, snapshot } = snapshot;
    let name = snapshot.unwrap_or_else(|| named_by(Timestamp::now()));
    let taken = client.take_snapshot(&volume, &name).await?;
    output.show(&taken, || {
        let SnapshotStatus { name, size, taken, pool } = &taken;
        format!("{volume}@{name}: {size} as of {taken:.0}, on pool {}\n", plain(pool))
    })
}

/// `20261121-093000`
fn named_by(time: Timestamp) -> Name {
    let name = time.strftime("%Y%m%d-%H%M%S").to_string();
    name.parse().expect("digits and a dash")
}

async fn list(client: &Client, volume: Option<WorkloadName>, output: Output) -> anyhow::Result<()> {
    let mut found = Vec::new();
    match volume {
        Some(volume) => found.push((volume.clone(), client.snapshots(&volume).await?.snapshots)),
        None => {
            for deployment in client.list().await?.deployments {
                for (workload, status) in deployment.workloads {
                    let deployment = deployment.name.clone();
                    let volume = WorkloadName { deployment, workload };
                    found.push((volume, status.volume.map(|v| v.snapshots).unwrap_or_default()));
                }
            }
        }
    }
    let listed = found.into_iter().flat_map(|(volume, snapshots)| {
        let volume = volume.to_string();
        snapshots.into_iter().map(move |snapshot| Listed { volume: volume.clone(), snapshot })
    });
    let list = Snapshots { snapshots: listed.collect() };
    output.show(&list, || {
        let rows = list.snapshots.iter().map(|Listed { volume, snapshot }| {
            let SnapshotStatus { name, size, taken, pool } = snapshot;
            [format!("{volume}@{name}"), size.to_string(), format!("{taken:.0}"), plain(pool)]
        });
        table(["SNAPSHOT", "SIZE", "TAKEN", "POOL"], &rows.collect::<Vec<_>>())
    })
}

async fn delete(client: &Client, snapshot: Origin, sure: Sure) -> anyhow::Result<()> {
    let (volume, name) = named(snapshot)?;
    if sure.is_asked("delete the snapshot")? {
        ask(&format!("{volume}@{name} can't be had back. Delete it?"))?;
    }
    client.delete_snapshot(&volume, &name).await?;
    eprintln!("deleted {volume}@{name}");
    Ok(())
}

async fn restore(
    client: &Client,
    snapshot: Origin,
    sure: Sure,
    bound: Duration,
    output: Output,
) -> anyhow::Result<()> {
    let (volume, name) = named(snapshot)?;
    if sure.is_asked("set the volume back")? {
        ask(&format!(
            "What was written to {volume} since {name} is lost, and its VM is stopped and started again. \
             Set it back?"
        ))?;
    }
    let noted = client.restore_snapshot(&volume, &name).await?;
    if bound.is_zero() {
        return output.show(&noted, || format!("{volume} is being set back to {name}\n"));
    }
    let status = wait(client, &volume, &name, bound).await?;
    output.show(&status, || format!("{volume} is as it was at {:.0}: {name}\n", noted.taken))
}

/// Waits until a volume has been set back, telling what it waits for.
async fn wait(
    client: &Client,
    volume: &WorkloadName,
    name: &Name,
    bound: Duration,
) -> anyhow::Result<VolumeStatus> {
    let (start, mut told) = (Instant::now(), String::new());
    loop {
        let words = match client.get(&volume.deployment).await {
            Ok(status) => {
                let workload = status.workloads.get(&volume.workload);
                let workload = workload.ok_or_else(|| {
                    anyhow::anyhow!("{volume} was taken away, and was not set back")
                })?;
                match &workload.volume {
                    Some(volume) if volume.restoring.is_none() => match &volume.restore_error {
                        None => return Ok(volume.clone()),
                        Some(error) => anyhow::bail!("it was not set back: {}", plain(error)),
                    },
                    _ => format!("{} {}", workload.state.word(), detail(&workload.state)),
                }
            }
            Err(error) if passes(&error) => plain(&error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if told != words {
            eprintln!("{:>4} s  {volume}: {words}", start.elapsed().as_secs());
            told = words;
        }
        if start.elapsed() >= bound {
            let (seconds, deployment) = (bound.as_secs(), &volume.deployment);
            let detail = format!(
                "after {seconds} s {volume} is not yet set back to {name}, and the node goes on with it; \
                 `zos show {deployment}` shows how far it is"
            );
            return Err(NotInTime(detail).into());
        }
        sleep(ASK).await;
    }
}

fn named(snapshot: Origin) -> Result<(WorkloadName, Name), Usage> {
    let Origin { volume, snapshot } = snapshot;
    let missing = || Usage(format!("which snapshot? Write {volume}@SNAPSHOT; `zos snapshot list`"));
    Ok((volume.clone(), snapshot.ok_or_else(missing)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_name() {
        let check = |time: &str, name: &str| {
            assert_eq!(named_by(time.parse().unwrap()).as_str(), name);
        };
        check("2026-11-21T09:30:00.123Z", "20261121-093000");
        check("1970-01-01T00:00:00Z", "19700101-000000");
    }

    #[test]
    fn a_snapshot_is_named_in_full() {
        let check = |text: &str, found: Option<(&str, &str)>| {
            let named = named(text.parse().unwrap()).ok();
            let named = named.map(|(volume, name)| (volume.to_string(), name.to_string()));
            assert_eq!(named, found.map(|(v, n)| (v.to_owned(), n.to_owned())), "{text}");
        };
        check("web/data@monday", Some(("web/data", "monday")));
        check("web/data", None);
    }
}

//! `zos list`, `zos show NAME`, `zos delete NAME`

use std::collections::BTreeMap;

use zos_api::client::Client;
use zos_types::Name;
use zos_types::deployment::{Integrity, KeyHolder};
use zos_types::status::{DeploymentStatus, State, WorkloadStatus};
use zos_types::volume::{Sealing, SnapshotStatus, VolumeStatus};

use super::sure::ask;
use crate::cli::Sure;
use crate::output::{Output, plain, table};

pub(super) async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list = client.list().await?;
    output.show(&list, || {
        let rows = list.deployments.iter().map(|status| {
            let DeploymentStatus { name, deployment, workloads } = status;
            [name.to_string(), deployment.version.to_string(), summary(workloads)]
        });
        table(["NAME", "VERSION", "WORKLOADS"], &rows.collect::<Vec<_>>())
    })
}

/// `2 running, 1 ready`
fn summary(workloads: &BTreeMap<Name, WorkloadStatus>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for workload in workloads.values() {
        *counts.entry(workload.state.word()).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

pub(super) async fn show(client: &Client, name: &Name, output: Output) -> anyhow::Result<()> {
    let status = client.get(name).await?;
    output.show(&status, || text(&status))
}

/// A deployment for people.
pub(super) fn text(status: &DeploymentStatus) -> String {
    let rows = status.workloads.iter().map(|(name, workload)| {
        let WorkloadStatus { state, since, restarts, address, .. } = workload;
        let address = address.map_or_else(|| "-".to_owned(), |a| a.to_string());
        [
            format!("{}/{name}", status.name),
            state.word().to_owned(),
            format!("{since:.0}"),
            restarts.to_string(),
            address,
            detail(state),
        ]
    });
    let volumes = status.workloads.iter().filter_map(|(workload, now)| {
        Some(volume_text(&format!("{}/{workload}", status.name), now.volume.as_ref()?))
    });
    let volumes: String = volumes.collect();
    let heading = ["WORKLOAD", "STATE", "SINCE", "RESTARTS", "ADDRESS", "DETAIL"];
    format!(
        "{} version {}\n\n{}{volumes}",
        status.name,
        status.deployment.version,
        table(heading, &rows.collect::<Vec<_>>())
    )
}

/// A volume in full: what it is, where it lies and why, its snapshots.
fn volume_text(name: &str, volume: &VolumeStatus) -> String {
    let VolumeStatus { size, class, integrity, key, sealing, pools, placed, snapshots, .. } =
        volume;
    let integrity = match integrity {
        Integrity::None => "none: bit rot is not noticed",
        Integrity::Detect => "detect: a corrupt block is an error, not wrong data",
        Integrity::Repair => "repair: a corrupt block is mended from a second disk",
    };
    let key = match (key, sealing) {
        (KeyHolder::Twin, _) => "twin: handed over at each start",
        (KeyHolder::Node, Sealing::Tpm) => "node: sealed by the machine's TPM",
        (KeyHolder::Node, Sealing::Beside) => {
            "node: sealed with a key on the node's own disks; who has all of them can read it"
        }
    };
    let pools: Vec<String> = pools.iter().map(|pool| plain(pool)).collect();
    let mut lines = vec![
        ["  size".to_owned(), format!("{size} of {class}")],
        ["  integrity".to_owned(), integrity.to_owned()],
        ["  key".to_owned(), key.to_owned()],
        ["  lies on".to_owned(), format!("pool {}", pools.join(" and pool "))],
    ];
    if !placed.is_empty() {
        lines.push(["  because".to_owned(), plain(placed)]);
    }
    if let Some(snapshot) = &volume.restoring {
        lines.push(["  restoring".to_owned(), snapshot.to_string()]);
    }
    if let Some(error) = &volume.restore_error {
        lines.push(["  not restored".to_owned(), plain(error)]);
    }
    lines.extend(snapshots.iter().map(|snapshot| {
        let SnapshotStatus { name, size, taken, .. } = snapshot;
        ["  snapshot".to_owned(), format!("{name}: {size} as of {taken:.0}")]
    }));
    format!("\n{name}\n{}", table(["", ""], &lines))
}

/// What goes with a deployment, for who is asked.
fn goes(status: &DeploymentStatus) -> String {
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let volumes = status.workloads.values().filter_map(|workload| workload.volume.as_ref());
    let snapshots: usize = volumes.clone().map(|volume| volume.snapshots.len()).sum();
    match (volumes.count(), snapshots) {
        (0, _) => format!("{} has no volumes.", status.name),
        (count, 0) => format!("What is on {} is lost.", plural(count, "volume")),
        (count, _) => {
            let (volumes, snapshots) = (plural(count, "volume"), plural(snapshots, "snapshot"));
            format!("What is on {volumes} is lost, and {snapshots} with it.")
        }
    }
}

/// What a state has to say beyond its word.
pub(super) fn detail(state: &State) -> String {
    match state {
        State::Stopped { cause } => plain(cause),
        State::Locked { reason } | State::AtRisk { reason } | State::Rebuilding { reason } => {
            plain(reason)
        }
        State::Degraded { fault, retry_at } => {
            format!("{}; tried again at {retry_at:.0}", plain(fault))
        }
        State::Quarantined { cause, retry_at } => {
            format!("{}; change it, or it is tried again at {retry_at:.0}", plain(cause))
        }
        _ => String::new(),
    }
}

pub(super) async fn delete(
    client: &Client,
    name: &Name,
    sure: Sure,
    output: Output,
) -> anyhow::Result<()> {
    if sure.is_asked_at_a_terminal() {
        let goes = goes(&client.get(name).await?);
        ask(&format!("{goes} Delete {name}?"))?;
    }
    let deleted = client.delete(name).await?;
    output.show(&deleted, || {
        format!("deleted {name}; the next version of this name is {}\n", deleted.next_version)
    })
}

#[cfg(test)]
mod tests {
    use zos_types::volume::SnapshotStatus;
    use zos_types::{Bytes, Deployment};

    use super::*;

    #[test]
    fn what_goes_with_a_deployment_is_told() {
        let snapshot = |name: &str| SnapshotStatus {
            name: name.parse().unwrap(),
            size: Bytes(1 << 30),
            taken: jiff::Timestamp::UNIX_EPOCH,
            pool: "p".into(),
        };
        let volume = |snapshots| VolumeStatus {
            size: Bytes(1 << 30),
            class: Default::default(),
            integrity: Integrity::Repair,
            key: KeyHolder::Node,
            sealing: Sealing::Tpm,
            pools: vec!["p".into(), "q".into()],
            placed: String::new(),
            snapshots,
            restoring: None,
            restore_error: None,
        };
        let check = |volumes: Vec<VolumeStatus>, text: &str| {
            let workloads = volumes.into_iter().enumerate().map(|(i, volume)| {
                let status = WorkloadStatus::new(State::Ready, jiff::Timestamp::UNIX_EPOCH);
                let name = format!("v{i}").parse().unwrap();
                (name, WorkloadStatus { volume: Some(volume), ..status })
            });
            let workloads = workloads.collect();
            let deployment = Deployment { version: 1, workloads: BTreeMap::new() };
            let status = DeploymentStatus { name: "web".parse().unwrap(), deployment, workloads };
            assert_eq!(goes(&status), text);
        };
        check(vec![], "web has no volumes.");
        check(vec![volume(vec![])], "What is on 1 volume is lost.");
        let two = vec![volume(vec![snapshot("a"), snapshot("b")]), volume(vec![])];
        check(two, "What is on 2 volumes is lost, and 2 snapshots with it.");
        let shown = volume_text("web/v0", &volume(vec![snapshot("monday")]));
        assert!(shown.contains("lies on    pool p and pool q\n"), "{shown}");
        assert!(shown.contains("snapshot   monday: 1 GiB as of 1970-01-01T00:00:00Z\n"), "{shown}");
    }
}

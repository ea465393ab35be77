//! `zos list`, `zos show NAME`, `zos delete NAME`

use std::collections::BTreeMap;

use zos_api::client::Client;
use zos_types::Name;
use zos_types::status::{DeploymentStatus, State, WorkloadStatus};

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
    let heading = ["WORKLOAD", "STATE", "SINCE", "RESTARTS", "ADDRESS", "DETAIL"];
    format!(
        "{} version {}\n\n{}",
        status.name,
        status.deployment.version,
        table(heading, &rows.collect::<Vec<_>>())
    )
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

pub(super) async fn delete(client: &Client, name: &Name, output: Output) -> anyhow::Result<()> {
    let deleted = client.delete(name).await?;
    output.show(&deleted, || {
        format!("deleted {name}; the next version of this name is {}\n", deleted.next_version)
    })
}

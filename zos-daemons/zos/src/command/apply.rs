//! `zos apply -f FILE [--dry-run] [--wait]`
//!
//! ```text
//!  file ─▶ version: the file's, else the one that is due ─▶ PUT ─▶ what changed
//!                                                            └ --wait ─▶ GET … until all run; what is locked is opened
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use zos_api::client::{Client, ClientError};
use zos_api::local::Change;
use zos_api::node::Applied;
use zos_types::deployment::KeyHolder;
use zos_types::status::{DeploymentStatus, State};
use zos_types::{Deployment, Name, Workload, WorkloadName};

use super::deployments::{detail, text};
use super::patience::passes;
use super::unlock::hand_over;
use crate::cli::Apply;
use crate::deployment_file::DeploymentFile;
use crate::exit::NotInTime;
use crate::output::{Output, milli, plain};

/// How often the node is asked while waiting.
const ASK: Duration = Duration::from_secs(1);

pub(super) async fn run(apply: &Apply, client: &Client, output: Output) -> anyhow::Result<()> {
    let file = DeploymentFile::read(&apply.file, apply.name.clone())?;
    let body = body(client, &file).await?;
    let mut applied = client.put(&file.name, &body, apply.dry_run).await?;
    if !apply.wait {
        return output.show(&applied, || applied_text(&applied));
    }
    eprintln!("{}", headline(&applied));
    applied.status = wait(client, &file.name, Duration::from_secs(apply.timeout)).await?;
    output.show(&applied, || text(&applied.status))
}

/// The file's body. Where the file has no version: the one that is there if it is the same
/// otherwise, else the next.
async fn body(client: &Client, file: &DeploymentFile) -> anyhow::Result<Vec<u8>> {
    if file.has_version() {
        return file.body(None);
    }
    let version = match client.get(&file.name).await {
        Ok(there) => {
            let there = there.deployment;
            let same = file.body(Some(there.version))?;
            if Deployment::from_json(&same).is_ok_and(|wanted| wanted == there) {
                return Ok(same);
            }
            there.version + 1
        }
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            problem.next_version.unwrap_or(1)
        }
        Err(error) => return Err(error.into()),
    };
    file.body(Some(version))
}

fn headline(applied: &Applied) -> String {
    let Applied { change, dry_run, used, status } = applied;
    let what = match (change, dry_run) {
        (Change::Unchanged, _) => "unchanged:",
        (Change::Created, false) => "created",
        (Change::Updated, false) => "changed",
        (Change::Created, true) => "would create",
        (Change::Updated, true) => "would change",
    };
    let (name, version) = (&status.name, status.deployment.version);
    let (cu, su) = (milli(used.cu), milli(used.su));
    format!("{what} {name} version {version}; it uses {cu} CU and {su} SU")
}

fn applied_text(applied: &Applied) -> String {
    let headline = headline(applied);
    if applied.dry_run {
        return format!("{headline}\nThe node has room for it. Nothing was changed.\n");
    }
    format!("{headline}\n\n{}", text(&applied.status))
}

/// Waits until every workload runs, is ready or has ended as it may, telling each change. What may
/// pass (a part of the node that does not answer for a while) is waited for too.
async fn wait(client: &Client, name: &Name, bound: Duration) -> anyhow::Result<DeploymentStatus> {
    let start = Instant::now();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut tell = |what: String, state: String| {
        if told.get(&what) != Some(&state) {
            eprintln!("{:>4} s  {what}: {state}", start.elapsed().as_secs());
            told.insert(what, state);
        }
    };
    loop {
        let late = match client.get(name).await {
            Ok(status) => {
                for (workload, now) in &status.workloads {
                    let state = format!("{} {}", now.state.word(), detail(&now.state));
                    tell(format!("{name}/{workload}"), state.trim_end().to_owned());
                }
                if open_locked(client, &status).await? {
                    continue;
                }
                match late(&status) {
                    None => return Ok(status),
                    Some(late) => late,
                }
            }
            Err(error) if passes(&error) => {
                tell("node".to_owned(), plain(&error.to_string()));
                "the node does not tell".to_owned()
            }
            Err(error) => return Err(error.into()),
        };
        if start.elapsed() >= bound {
            let seconds = bound.as_secs();
            let detail = format!("after {seconds} s {late}; `zos show {name}` shows why");
            return Err(NotInTime(detail).into());
        }
        sleep(ASK).await;
    }
}

/// Hands over the keys of volumes that wait for them, made from the twin's key; tells whether there were any.
async fn open_locked(client: &Client, status: &DeploymentStatus) -> anyhow::Result<bool> {
    let mut any = false;
    for (workload, now) in &status.workloads {
        let wanted = status.deployment.workloads.get(workload);
        let Some(Workload::Volume(kept) | Workload::Share(kept)) = wanted else { continue };
        if kept.key != KeyHolder::Twin || !matches!(now.state, State::Locked { .. }) {
            continue;
        }
        let (deployment, workload) = (status.name.clone(), workload.clone());
        let volume = WorkloadName { deployment, workload };
        match hand_over(client, &volume, None, None).await {
            Ok(_) => any = true,
            Err(error) if error.downcast_ref().is_some_and(passes) => {}
            Err(error) => {
                let hint = format!("open {volume}; `zos unlock --help` tells of other keys");
                return Err(error.context(hint));
            }
        }
    }
    Ok(any)
}

/// The workloads that are not yet as they should be; none when all are.
fn late(status: &DeploymentStatus) -> Option<String> {
    let late: Vec<String> = status
        .workloads
        .iter()
        .filter(|(_, workload)| !workload.state.is_settled())
        .map(|(name, workload)| format!("{}/{name} is {}", status.name, workload.state.word()))
        .collect();
    (!late.is_empty()).then(|| late.join(", "))
}

//! `zos apply -f FILE [--dry-run] [--wait]`
//!
//! ```text
//!  file ─▶ version: the file's, else the one that is due ─▶ PUT ─▶ what changed
//!                                                            └ --wait ─▶ GET … until all run
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use zos_api::client::{Client, ClientError};
use zos_api::local::Change;
use zos_api::node::Applied;
use zos_types::status::{DeploymentStatus, State};
use zos_types::{Deployment, Name};

use super::deployments::{detail, text};
use crate::cli::Apply;
use crate::deployment_file::DeploymentFile;
use crate::exit::NotInTime;
use crate::output::{Output, milli};

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

/// Waits until every workload runs or is ready, telling each change.
async fn wait(client: &Client, name: &Name, bound: Duration) -> anyhow::Result<DeploymentStatus> {
    let start = Instant::now();
    let mut told: BTreeMap<Name, String> = BTreeMap::new();
    loop {
        let status = client.get(name).await?;
        for (workload, now) in &status.workloads {
            let state = format!("{} {}", now.state.word(), detail(&now.state));
            if told.get(workload) != Some(&state) {
                let seconds = start.elapsed().as_secs();
                eprintln!("{seconds:>4} s  {name}/{workload}: {}", state.trim_end());
                told.insert(workload.clone(), state);
            }
        }
        let settled = |state: &State| matches!(state, State::Running | State::Ready);
        if status.workloads.values().all(|w| settled(&w.state)) {
            return Ok(status);
        }
        if start.elapsed() >= bound {
            let late: Vec<String> = status
                .workloads
                .iter()
                .filter(|(_, w)| !settled(&w.state))
                .map(|(workload, w)| format!("{name}/{workload} is {}", w.state.word()))
                .collect();
            let late = late.join(", ");
            let detail = format!("after {} s {late}; `zos show {name}` shows why", bound.as_secs());
            return Err(NotInTime(detail).into());
        }
        sleep(ASK).await;
    }
}

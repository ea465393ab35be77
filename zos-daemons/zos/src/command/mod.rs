//! The commands.

mod apply;
mod deployments;
mod disk;
mod key;
mod logs;
mod node;
mod patience;
mod pool;
mod power;
mod service;
mod service_logs;
mod snapshot;
mod sure;
mod unlock;

use zos_api::client::Client;
use zos_api::node::farmer::PowerAction;

use crate::cli::{Cli, Command, Global, NodeCommand, ServiceCommand};
use crate::exit::Usage;
use crate::output::Output;

/// Does what was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let output = Output { json: global.json };
    match command {
        Command::Key(command) => key::run(command, &global, output),
        Command::Node(NodeCommand::Show) => node::show(&global, output).await,
        Command::Node(NodeCommand::Reboot { kexec, sure }) => {
            let action = if kexec { PowerAction::Kexec } else { PowerAction::Reboot };
            power::run(&signing(&global)?, action, sure, output).await
        }
        Command::Node(NodeCommand::Poweroff { sure }) => {
            power::run(&signing(&global)?, PowerAction::Poweroff, sure, output).await
        }
        Command::Node(NodeCommand::Crashes) => node::crashes(&signing(&global)?, output).await,
        Command::Node(NodeCommand::Metrics) => node::metrics(&signing(&global)?, output).await,
        Command::Service(ServiceCommand::List) => service::list(&signing(&global)?, output).await,
        Command::Service(ServiceCommand::Status { name }) => {
            service::status(&signing(&global)?, &name, output).await
        }
        Command::Service(ServiceCommand::Logs(logs)) => {
            service_logs::run(&signing(&global)?, &logs, output).await
        }
        Command::Service(ServiceCommand::Restart { name }) => {
            service::restart(&signing(&global)?, &name, output).await
        }
        Command::Disk(command) => disk::run(&signing(&global)?, command, output).await,
        Command::Pool(command) => pool::run(&signing(&global)?, command, output).await,
        Command::Capacity => node::capacity(&pinned(&global)?, output).await,
        Command::Apply(apply) => apply::run(&apply, &signing(&global)?, output).await,
        Command::List => deployments::list(&signing(&global)?, output).await,
        Command::Show { name } => deployments::show(&signing(&global)?, &name, output).await,
        Command::Delete { name, sure } => {
            deployments::delete(&signing(&global)?, &name, sure, output).await
        }
        Command::Snapshot(command) => snapshot::run(command, &signing(&global)?, output).await,
        Command::Unlock(unlock) => unlock::run(&unlock, &signing(&global)?, output).await,
        Command::Logs { workload, follow } => {
            logs::run(&signing(&global)?, &workload, follow, output).await
        }
    }
}

/// A client of the node that was named with its id.
fn pinned(global: &Global) -> anyhow::Result<Client> {
    client(global, false)
}

/// The same with the twin's key.
fn signing(global: &Global) -> anyhow::Result<Client> {
    client(global, true)
}

fn client(global: &Global, signing: bool) -> anyhow::Result<Client> {
    let address = global.node.clone().ok_or_else(|| {
        Usage("which node? Say it with --node ID@HOST or ZOS_NODE; its screen shows both".into())
    })?;
    if address.id.is_none() {
        let host = &address.host;
        let detail = format!(
            "--node needs the node's id: ID@{host}. `zos node show --node {host}` shows it; \
             compare it with the node's screen"
        );
        return Err(Usage(detail).into());
    }
    let key = if signing {
        let path = crate::key::path(global.key.as_deref())?;
        let key = crate::key::load(&path)?;
        let absent =
            || Usage(format!("there is no key {}; make one with `zos key new`", path.display()));
        Some(key.ok_or_else(absent)?)
    } else {
        None
    };
    Ok(Client::new(address, key))
}

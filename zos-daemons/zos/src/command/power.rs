//! `zos node reboot|poweroff [--yes]`
//!
//! ```text
//!  what runs there? ─▶ ask on the terminal, or --yes ─▶ POST ─▶ the node goes down by itself
//! ```

use zos_api::client::{Client, ClientError};
use zos_api::node::NodeCapacity;
use zos_api::node::farmer::PowerAction;

use super::sure::ask;
use crate::cli::Sure;
use crate::output::{Output, plain};

pub(super) async fn run(
    client: &Client,
    action: PowerAction,
    sure: Sure,
    output: Output,
) -> anyhow::Result<()> {
    if sure.is_asked(verb(action))? {
        let running = running(client.capacity().await)?;
        ask(&format!("{running} {} the node?", capital(verb(action))))?;
    }
    let power = client.power(action).await?;
    output.show(&power, || {
        format!("the node is going down, to {}; VMs stop first\n", verb(power.action))
    })
}

fn verb(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Reboot => "reboot",
        PowerAction::Poweroff => "switch off",
        PowerAction::Kexec => "start the loaded kernel on",
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

/// What a stop would touch. A node that can't tell may still be stopped; one that does not answer can't.
fn running(capacity: Result<NodeCapacity, ClientError>) -> Result<String, ClientError> {
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match capacity {
        Ok(NodeCapacity { vms, deployments, .. }) => {
            let (vms, deployments) = (plural(vms, "VM"), plural(deployments, "deployment"));
            Ok(format!("The node holds {deployments} with {vms}."))
        }
        Err(ClientError::Refused(problem)) => {
            Ok(format!("What runs on the node is not known: {}.", plain(&problem.detail)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use zos_types::Problem;

    use super::*;

    #[test]
    fn what_runs_is_told_or_that_it_is_not_known() {
        let capacity = |deployments, vms| NodeCapacity {
            processor: String::new(),
            capacity: Default::default(),
            offered: Default::default(),
            deployments,
            vms,
        };
        let check = |capacity, text: &str| assert_eq!(running(capacity).unwrap(), text);
        check(Ok(capacity(1, 2)), "The node holds 1 deployment with 2 VMs.");
        check(Ok(capacity(0, 1)), "The node holds 0 deployments with 1 VM.");
        let silent = Problem::new(503, "unavailable", "", "provisiond\u{7} does not answer");
        let silent = ClientError::Refused(Box::new(silent));
        let told = "What runs on the node is not known: provisiond  does not answer.";
        check(Err(silent), told);
        assert!(running(Err(ClientError::Protocol(String::new()))).is_err());
    }
}

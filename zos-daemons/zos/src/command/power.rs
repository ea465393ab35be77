//! `zos node reboot|poweroff [--yes]`
//!
//! ```text
//!  what runs there? ─▶ ask on the terminal, or --yes ─▶ POST ─▶ the node goes down by itself
//! ```

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;
use zos_api::client::{Client, ClientError};
use zos_api::node::NodeCapacity;
use zos_api::node::farmer::PowerAction;

use crate::cli::Sure;
use crate::exit::Usage;
use crate::output::{Output, plain};

pub(super) async fn run(
    client: &Client,
    action: PowerAction,
    sure: Sure,
    output: Output,
) -> anyhow::Result<()> {
    if !sure.yes {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            let detail = format!("nobody is there to be asked; say --yes to {}", verb(action));
            return Err(Usage(detail).into());
        }
        let running = running(client.capacity().await)?;
        eprint!("{running} {} the node? [y/N] ", capital(verb(action)));
        io::stderr().flush()?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer)?;
        if !is_yes(&answer) {
            bail!("nothing was done");
        }
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

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use zos_types::Problem;

    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        let check = |answer: &str, yes: bool| assert_eq!(is_yes(answer), yes, "{answer:?}");
        check("y\n", true);
        check(" YES \n", true);
        check("\n", false);
        check("", false); // the terminal was closed
        check("n\n", false);
        check("yo\n", false);
    }

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

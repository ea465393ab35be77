//! The arguments, and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use zos_api::client::Address;
use zos_types::{Name, WorkloadName};

const AFTER_HELP: &str = "\
Examples:
  zos key new
  export ZOS_NODE=<id>@192.0.2.7
  zos capacity
  zos apply -f hello.toml --wait
  zos logs hello/hello -f

Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  refused by the node: invalid, in conflict, no room, or a bad signature
  4  there is no such thing
  5  the node does not answer, or it is not the node asked for
  6  not running within --timeout

Files:
  $XDG_CONFIG_HOME/zos/key   the twin's key (Ed25519, PKCS#8 PEM, mode 0600); else ~/.config/zos/key";

/// Deployments on ZOS nodes, from your own machine.
///
/// A node is written ID@HOST[:PORT], as its screen shows it: the id is the node's public key, and
/// zos talks to no other. Requests are signed with your twin's key, which never leaves this machine.
#[derive(Debug, Parser)]
#[command(
    name = "zos",
    version,
    after_help = AFTER_HELP,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The node: its id, and where it is.
    #[arg(long, global = true, env = "ZOS_NODE", value_name = "ID@HOST[:PORT]")]
    pub(crate) node: Option<Address>,
    /// The file with the twin's key.
    #[arg(long, global = true, env = "ZOS_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Your twin's key.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The node itself.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What the node has, and what of it is free.
    #[command(
        after_help = "Examples:\n  zos capacity\n  zos capacity --json | jq .capacity.mru.free"
    )]
    Capacity,
    /// Ask for a deployment: new, or changed.
    ///
    /// The file is TOML (or JSON, if its name ends in .json). Its `version` is 1 for a name never
    /// used and one more with each change; without it zos takes the version that is due.
    #[command(after_help = "Examples:
  zos apply -f hello.toml --dry-run        what would change, and is there room?
  zos apply -f hello.toml --wait           until everything runs
  zos apply -f hello.toml --name blue      under another name than the file's
  generate | zos apply -f - --name blue    from standard input")]
    Apply(Apply),
    /// Your deployments on the node.
    #[command(
        after_help = "Examples:\n  zos list\n  zos list --json | jq -r '.deployments[].name'"
    )]
    List,
    /// One deployment, workload by workload.
    #[command(after_help = "Examples:\n  zos show hello\n  zos show hello --json")]
    Show {
        /// The deployment.
        name: Name,
    },
    /// Take a deployment away, with its volumes and what is on them.
    #[command(after_help = "Examples:\n  zos delete hello")]
    Delete {
        /// The deployment.
        name: Name,
    },
    /// What a VM writes to its console.
    #[command(after_help = "Examples:\n  zos logs hello/hello\n  zos logs hello/hello -f")]
    Logs {
        /// The VM: NAME/WORKLOAD.
        workload: WorkloadName,
        /// Go on with what comes, until Ctrl-C or until the VM is gone.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key. A key that is there is never replaced.
    #[command(after_help = "Examples:\n  zos key new\n  zos key new --key ./blue.key")]
    New,
    /// Show the id of your twin: its public key.
    #[command(after_help = "Examples:\n  zos key show\n  zos key show --json | jq -r .id")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Who and how the node is: version, network, services, faults.
    ///
    /// Here alone --node may be a HOST without the id: zos then shows the id that the node proves to
    /// hold. Compare it with the node's screen before you use it.
    #[command(after_help = "Examples:\n  zos node show\n  zos node show --node 192.0.2.7")]
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The deployment's file; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its name; else the file's name without its ending.
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Judge only: nothing is changed.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until everything runs.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    pub(crate) timeout: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Each command shows how it is used.
    #[test]
    fn every_help_has_examples() {
        fn walk(command: &clap::Command) {
            let mut children = command.get_subcommands().peekable();
            if children.peek().is_none() {
                let help = command.get_after_help().map(ToString::to_string);
                assert!(help.unwrap_or_default().contains("Examples:"), "{}", command.get_name());
            }
            children.for_each(walk);
        }
        walk(&Cli::command());
    }
}

//! The arguments, and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zos_api::client::Address;
use zos_types::{Name, WorkloadName};

const AFTER_HELP: &str = "\
Examples:
  zos key new
  export ZOS_NODE=<id>@192.0.2.7
  zos capacity
  zos apply -f hello.toml --wait
  zos logs hello/hello -f
  zos service logs vmd -f          for the node's farmer

Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  refused by the node: invalid, in conflict, no room, a bad signature, or not the farmer
  4  there is no such thing
  5  the node does not answer, or it is not the node asked for
  6  not running within --timeout

Files:
  $XDG_CONFIG_HOME/zos/key   the twin's key (Ed25519, PKCS#8 PEM, mode 0600); else ~/.config/zos/key";

/// Deployments on ZOS nodes, and the nodes themselves, from your own machine.
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
    /// The node's services, for its farmer.
    ///
    /// The farmer is who signs with the key that the node was told with `zos.farmer=`.
    #[command(subcommand)]
    Service(ServiceCommand),
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
    /// Boot the node again, orderly: VMs stop first. For its farmer.
    #[command(after_help = "Examples:
  zos node reboot                  asks first, and tells what runs
  zos node reboot --yes            for scripts
  zos node reboot --kexec --yes    into the kernel that was loaded, without the firmware")]
    Reboot {
        /// Start the kernel that was loaded, without the firmware.
        #[arg(long)]
        kexec: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Switch the node off, orderly: VMs stop first. For its farmer.
    ///
    /// Somebody has to switch it on again by hand.
    #[command(after_help = "Examples:\n  zos node poweroff\n  zos node poweroff --yes")]
    Poweroff {
        #[command(flatten)]
        sure: Sure,
    },
    /// What kernels that died left: the last lines of each one's log. For the node's farmer.
    #[command(after_help = "Examples:
  zos node crashes
  zos node crashes --json | jq -r '.crashes[0].text'")]
    Crashes,
    /// What the node counts, as OpenMetrics text. For its farmer.
    #[command(after_help = "Examples:
  zos node metrics | grep zos_scrape_ok
  zos node metrics > /var/lib/node_exporter/zos.prom")]
    Metrics,
}

/// What can't be undone is asked first.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Sure {
    /// Do it without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Every service: its state, since when, how often it was started again.
    #[command(after_help = "Examples:
  zos service list
  zos service list --json | jq -r '.services[] | select(.state != \"running\").name'")]
    List,
    /// One service, with what it uses and how it ended the last time.
    #[command(after_help = "Examples:\n  zos service status vmd")]
    Status {
        /// The service.
        name: Name,
    },
    /// What a service printed.
    ///
    /// A line is TIME LEVEL MESSAGE and fields; with --json, one object a line as the node has it. With -f
    /// zos goes on when the connection breaks off or the node's API is started again, from where it was.
    #[command(after_help = "Examples:
  zos service logs vmd
  zos service logs vmd -f --level warning
  zos service logs storaged --since 10min
  zos service logs netd --json | jq -r .text")]
    Logs(ServiceLogs),
    /// Stop a service and start it again. Running VMs are not touched.
    #[command(after_help = "Examples:\n  zos service restart vmd")]
    Restart {
        /// The service.
        name: Name,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServiceLogs {
    /// The service.
    pub(crate) name: Name,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this level and worse: emergency, alert, critical, error, warning, notice, info, debug.
    #[arg(long, default_value = "debug")]
    pub(crate) level: Level,
    /// Only what came in the last while: 90s, 10min, 2h, 1d.
    #[arg(long, value_name = "AGO", value_parser = ago)]
    pub(crate) since: Option<Duration>,
}

/// A level of syslog(3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Level {
    #[value(alias = "emerg")]
    Emergency,
    Alert,
    #[value(alias = "crit")]
    Critical,
    #[value(alias = "err")]
    Error,
    #[value(alias = "warn")]
    Warning,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// All of them: 0 to 7.
    pub(crate) const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];
}

/// A while: `90s`, `10min`, `2h`, `1d`.
fn ago(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a number with s, min, h or d: 10min".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number, as in 10min".to_owned())?;
    let seconds = number.checked_mul(seconds).ok_or("that is longer than any log")?;
    Ok(Duration::from_secs(seconds))
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

    #[test]
    fn a_while_has_a_unit() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(ago(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("90s", Some(90));
        check("10min", Some(600));
        check("10m", Some(600));
        check("2h", Some(7200));
        check("1d", Some(86_400));
        check("10", None);
        check("min", None);
        check("-1s", None);
        check("1.5h", None);
        check("99999999999999999999s", None);
        check("9999999999999999999d", None);
    }
}

//! The arguments, and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zos_api::client::Address;
use zos_types::{Name, NodeId, Origin, WorkloadName};

const AFTER_HELP: &str = "\
Examples:
  zos key new
  export ZOS_NODE=<id>@192.0.2.7
  zos capacity
  zos apply -f hello.toml --wait
  zos logs hello/hello -f
  zos service logs vmd -f          for the node's farmer
  zos disk list                    for the node's farmer

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
    /// The node's disks, for its farmer.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// The node's pools, for its farmer.
    #[command(subcommand)]
    Pool(PoolCommand),
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
    /// Take a deployment away, with its volumes, their snapshots and what is on them.
    ///
    /// At a terminal zos tells what goes with it, and asks; a script is not asked.
    #[command(after_help = "Examples:\n  zos delete hello\n  zos delete hello --yes")]
    Delete {
        /// The deployment.
        name: Name,
        #[command(flatten)]
        sure: Sure,
    },
    /// Snapshots of your volumes: kept as they were, to go back to or to make other volumes from.
    ///
    /// A snapshot is written NAME/VOLUME@SNAPSHOT. The volume's full size is set aside and billed for
    /// each, and a volume has at most 32. Another volume is made from one by `from` in its deployment.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Hand over the key of a volume that waits for it.
    ///
    /// A volume with `key = "twin"` is closed after each boot of the node, until its twin opens it. The key is made
    /// from your twin's key, or taken from a file; the first one that is handed over is the volume's for good. It
    /// goes to the node sealed, and the node keeps it in its kernel's memory alone.
    #[command(after_help = "Examples:
  zos unlock web/data
  zos unlock web/data --key-file data.key     64 bytes: head -c 64 /dev/urandom > data.key
  zos unlock web/data --made-on <node id>     a volume that came from another node, with its disk
  zos apply -f web.toml --wait                opens what is locked by itself")]
    Unlock(Unlock),
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

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Keep a volume as it is now, also while its VM runs.
    ///
    /// What the guest has written to the disk is in it; what it still holds in memory is not, as after a
    /// power cut. File systems and databases are made for that; `sync` in the guest before it keeps more.
    /// One of this name that is there is left as it is.
    #[command(after_help = "Examples:
  zos snapshot create web/data@monday
  zos snapshot create web/data             named by date and time
  zos snapshot create web/data --json | jq -r .name")]
    Create {
        /// The volume, and what the snapshot is to be called: NAME/VOLUME[@SNAPSHOT].
        snapshot: Origin,
    },
    /// Snapshots with their size, when they were taken, and the pool they lie on.
    #[command(after_help = "Examples:
  zos snapshot list                        of all your volumes
  zos snapshot list web/data
  zos snapshot list --json | jq -r '.snapshots[].name'")]
    List {
        /// Of this volume only: NAME/VOLUME.
        volume: Option<WorkloadName>,
    },
    /// Destroy a snapshot. Volumes that were made from it are not touched.
    #[command(after_help = "Examples:
  zos snapshot delete web/data@monday
  zos snapshot delete web/data@monday --yes    for scripts")]
    Delete {
        /// The snapshot: NAME/VOLUME@SNAPSHOT.
        snapshot: Origin,
        #[command(flatten)]
        sure: Sure,
    },
    /// Set a volume back to a snapshot: what was written to it since is lost. The snapshot stays.
    ///
    /// A VM that has the volume is stopped, orderly first, and started again when it is done. zos waits
    /// for that; the node brings it to its end also when zos is gone.
    #[command(after_help = "Examples:
  zos snapshot restore web/data@monday
  zos snapshot restore web/data@monday --yes   for scripts
  zos snapshot create web/data@before-restore && zos snapshot restore web/data@monday")]
    Restore {
        /// The snapshot: NAME/VOLUME@SNAPSHOT.
        snapshot: Origin,
        #[command(flatten)]
        sure: Sure,
        /// How long to wait, in seconds; 0: not at all.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Every disk: what it is to the node, and why.
    #[command(after_help = "Examples:
  zos disk list
  zos disk list --json | jq -r '.disks[] | select(.role == \"foreign\").name'")]
    List,
    /// One disk: what is on it, how it does, how far what was begun is.
    #[command(after_help = "Examples:\n  zos disk show sda")]
    Show {
        /// The disk: the name or the id that `zos disk list` shows.
        disk: String,
    },
    /// Give a disk to the node, with all that is on it.
    ///
    /// What is on the disk and would be lost is shown first. Nothing is done until you type the disk's serial
    /// number, or name the plan; and nothing if anything on the disk has changed since the plan was made.
    #[command(after_help = "Examples:
  zos disk adopt sda                   shows what would be lost, and asks
  zos disk adopt sda --dry-run --json | jq -r .hash
  zos disk adopt sda --plan 5f1c...    for scripts: that plan and no other")]
    Adopt {
        /// The disk: the name or the id that `zos disk list` shows.
        disk: String,
        #[command(flatten)]
        word: Word,
    },
    /// Take a disk from the node: it is emptied and wiped, and can then be taken out.
    ///
    /// What lies on it moves to other disks of its kind while it is in use. Nothing that finds no room is
    /// destroyed: the disk then stays, and `zos disk show` says what to do. It goes on after a reboot.
    #[command(after_help = "Examples:
  zos disk release sda --dry-run       what moves where?
  zos disk release sda --wait          asks, and tells how far it is
  zos disk release sda --plan 5f1c...  for scripts")]
    Release {
        /// The disk: the name or the id that `zos disk list` shows.
        disk: String,
        #[command(flatten)]
        word: Word,
        /// Wait until the disk can be taken out.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
    },
}

/// How the farmer gives his word.
#[derive(Debug, Args)]
pub(crate) struct Word {
    /// Show the plan and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Carry out the plan with this hash, without asking.
    #[arg(long, value_name = "HASH", conflicts_with = "dry_run")]
    pub(crate) plan: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Every pool: its disk, its room, how it does.
    #[command(
        after_help = "Examples:\n  zos pool list\n  zos pool list --json | jq '.pools[].free'"
    )]
    List,
    /// Read all that has checksums in a pool, and repair what has a second copy.
    #[command(after_help = "Examples:\n  zos pool scrub 00f1a2b3c4d5e6f7")]
    Scrub {
        /// The pool's id.
        pool: String,
    },
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
pub(crate) struct Unlock {
    /// The volume: NAME/VOLUME.
    pub(crate) volume: WorkloadName,
    /// The key: a file of 64 bytes; else it is made from your twin's key.
    #[arg(long, value_name = "FILE", conflicts_with = "made_on")]
    pub(crate) key_file: Option<PathBuf>,
    /// The node that the volume was made on, if it isn't this one.
    #[arg(long, value_name = "ID")]
    pub(crate) made_on: Option<NodeId>,
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
    /// Wait until everything runs. Volumes that wait for a key made from your twin's are opened.
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

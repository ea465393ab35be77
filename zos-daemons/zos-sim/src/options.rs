//! The arguments, and their help.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use zos_types::unit::GIB;
use zos_types::{Bytes, NodeId};

use crate::fault::FaultOn;
use crate::hardware::Hardware;

const AFTER_HELP: &str = "\
Examples:
  zosd sim                                   one node on 127.0.0.1:8443, gone when it ends
  zosd sim --state ./node                    the same node and deployments at each start
  zosd sim --nodes 100 --port 9000           a hundred nodes on ports 9000 to 9099
  zosd sim --cpus 2 --memory 4GiB --hdd 0    a small node without a rotating disk
  zosd sim --nodes 2 --fault no-disk@2       the second node lives in memory

Faults (--fault NAME for every node, NAME@NUMBER for one):
  vm-crash vm-reboot vm-poweroff   how each VM ends, 5 s after its start
  no-kvm                           no hardware virtualization
  disk-failing disk-foreign        the last disk can't be read; one more holds somebody's data
  no-disk no-network               none at all; no cable

What is real: the node API with TLS and signatures, admission, deployments and their versions, the
node's key, what becomes of disks and VMs, restarts, backoff. What is not: no VM runs, nothing that a
guest would send goes anywhere, and volumes lie in clear in the state's folder.";

/// A whole node without a machine: the real node API over simulated disks, links and VMs.
///
/// It needs no rights and no network beyond the port that it serves on. For twins' developers, for
/// tests, for learning.
#[derive(Clone, Debug, Parser)]
#[command(name = "zosd sim", version, after_help = AFTER_HELP)]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub nodes: u16,
    /// The first node's TCP port; the others have those that follow. 0: any that are free.
    #[arg(long, default_value_t = zos_api::node::PORT)]
    pub port: u16,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub listen: IpAddr,
    /// Keeps disks, and with them keys and deployments; without it they go when this ends.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Hardware threads of each node.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub cpus: u16,
    /// Memory of each node.
    #[arg(long, default_value = "16GiB", value_name = "SIZE", value_parser = memory)]
    pub memory: Bytes,
    /// A solid state disk of each node, may be said several times; 0: none.
    #[arg(long, default_value = "1TiB", value_name = "SIZE", value_parser = disk)]
    pub ssd: Vec<Bytes>,
    /// A rotating disk of each node, may be said several times; 0: none.
    #[arg(long, default_value = "4TiB", value_name = "SIZE", value_parser = disk)]
    pub hdd: Vec<Bytes>,
    /// The farm that the nodes are booted for (zos.farm).
    #[arg(long, value_name = "NAME")]
    pub farm: Option<String>,
    /// The twin who is the farmer (zos.farmer): `zos key show` tells yours.
    #[arg(long, value_name = "KEY")]
    pub farmer: Option<NodeId>,
    /// Draws the nodes' keys from this number, for tests that know them. Such keys are no secret.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long the way to the nodes and back takes: `50ms`, `2s`.
    #[arg(long, default_value = "0ms", value_name = "TIME", value_parser = time)]
    pub latency: Duration,
    /// What goes wrong; may be said several times.
    #[arg(long, value_name = "NAME[@NUMBER]")]
    pub fault: Vec<FaultOn>,
    /// Show what the daemons log.
    #[arg(long)]
    pub debug: bool,
    /// Tell the addresses in JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// One node on a free port, for tests.
    pub fn local() -> Self {
        Self::parse_from(["zosd sim", "--port", "0"])
    }

    /// The machine that each node finds.
    pub(crate) fn hardware(&self) -> Hardware {
        let some = |disks: &[Bytes]| disks.iter().copied().filter(|size| size.0 > 0).collect();
        Hardware {
            cpus: self.cpus,
            memory: self.memory,
            ssd: some(&self.ssd),
            hdd: some(&self.hdd),
        }
    }

    /// What the farmer says to each node.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let said = [
            ("farm", self.farm.clone()),
            ("farmer", self.farmer.map(|farmer| farmer.to_string())),
            ("mode", Some("dev".to_owned())),
        ];
        said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

fn memory(text: &str) -> Result<Bytes, String> {
    let size: Bytes = text.parse().map_err(|error| format!("{error}"))?;
    if size.0 < GIB / 2 { Err("a node has at least 512MiB".into()) } else { Ok(size) }
}

fn disk(text: &str) -> Result<Bytes, String> {
    let size: Bytes = text.parse().map_err(|error| format!("{error}"))?;
    match size.0 {
        0 | 1_073_741_824.. => Ok(size),
        _ => Err("a disk has at least 1GiB, or 0 for none".into()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let rule = || format!("`{text}` is no time: write `50ms` or `2s`");
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => return Err(rule()),
    };
    let count: u32 = digits.parse().map_err(|_| rule())?;
    let millis = u64::from(count) * unit;
    if millis > 60_000 { Err("at most 60s".into()) } else { Ok(Duration::from_millis(millis)) }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::fault::Fault;

    #[test]
    fn the_arguments_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_document_names_every_option_and_fault() {
        let document = include_str!("../../../docs/sim.md");
        for option in Options::command().get_opts().filter_map(clap::Arg::get_long) {
            let known = ["help", "version"].contains(&option);
            assert!(known || document.contains(&format!("--{option}")), "--{option}");
        }
        for fault in Fault::value_variants().iter().filter_map(ValueEnum::to_possible_value) {
            assert!(document.contains(&format!("`{}`", fault.get_name())), "{}", fault.get_name());
            assert!(AFTER_HELP.contains(fault.get_name()), "{}", fault.get_name());
        }
    }

    #[test]
    fn arguments_are_read() {
        let read = |words: &str| {
            Options::try_parse_from(["zosd sim"].into_iter().chain(words.split_whitespace()))
        };
        let plain = read("").unwrap();
        assert_eq!((plain.nodes, plain.port, plain.latency), (1, 8443, Duration::ZERO));
        assert_eq!((plain.hardware().ssd.len(), plain.hardware().hdd.len()), (1, 1));
        let small = read("--hdd 0 --ssd 2GiB --ssd 4GiB --latency 50ms --farm 7").unwrap();
        assert_eq!((small.hardware().hdd.len(), small.hardware().ssd.len()), (0, 2));
        assert_eq!(small.latency, Duration::from_millis(50));
        assert_eq!(small.settings()[0], ("farm".into(), "7".into()));
        for wrong in [
            "--nodes 0",
            "--nodes x",
            "--memory 1MiB",
            "--ssd 1MiB",
            "--latency 5",
            "--latency 2m",
            "--latency 61s",
            "--fault x",
            "--fault no-disk@0",
            "--farmer me",
            "--listen host",
            "--port 70000",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

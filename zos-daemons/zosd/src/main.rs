//! Every daemon of the node in one program: `zosd storaged` is `storaged`.
//!
//! One file keeps the image small, and the daemons share its pages in memory. They share nothing
//! else: each is a process of its own, under its own user.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use zos_daemon::Daemon;

const HELP: &str = "\
A daemon of a ZOS node. PID 1 starts each; there is no use in starting one by hand.

Usage: zosd DAEMON

Daemons, in the order of their start:
  storaged     disks, the state's place, pools, volumes
  identityd    the node's key: signs, certifies, seals
  netd         links, addresses, the VMs' network and firewall
  capacityd    measures what the machine has to give
  vmd          runs virtual machines
  provisiond   keeps deployments and makes them so
  apid         the node API
  consoled     the farmer's screen";

/// What a developer's program can do besides.
#[cfg(feature = "sim")]
const MORE: &str = "\n
For developers:
  sim          whole nodes without a machine: `zosd sim --help`";
#[cfg(not(feature = "sim"))]
const MORE: &str = "";

fn main() -> ExitCode {
    #[cfg(feature = "sim")]
    if std::env::args_os().nth(1).is_some_and(|word| word == "sim") {
        return simulate();
    }
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("--help" | "-h" | "help"), None) => {
            println!("{HELP}{MORE}");
            ExitCode::SUCCESS
        }
        (Some("--version" | "-V"), None) => {
            println!("zosd {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        (Some(name), None) => match run(name) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                zos_daemon::log_end(name, &error);
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{HELP}{MORE}");
            ExitCode::from(2)
        }
    }
}

/// Whole nodes without a machine; the image's program can't.
#[cfg(feature = "sim")]
fn simulate() -> ExitCode {
    match zos_sim::run(std::env::args_os().skip(2)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zosd sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The life of a daemon: one thread, what PID 1 passed, its own `run`.
fn run(name: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        match name {
            "storaged" => storaged::run(Daemon::start("storaged")?).await,
            "identityd" => identityd::run(Daemon::start("identityd")?).await,
            "netd" => netd::run(Daemon::start("netd")?).await,
            "capacityd" => capacityd::run(Daemon::start("capacityd")?).await,
            "vmd" => vmd::run(Daemon::start("vmd")?).await,
            "provisiond" => provisiond::run(Daemon::start("provisiond")?).await,
            "apid" => apid::run(Daemon::start("apid")?).await,
            "consoled" => consoled::run(Daemon::start("consoled")?).await,
            other => bail!("there is no daemon `{other}`; `zosd --help` names them"),
        }
    })
}

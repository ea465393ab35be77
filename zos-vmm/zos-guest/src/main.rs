//! zos-guest: PID 1 of a micro-VM: an agent for its host, and the user space of `builtin:hello`.
//!
//! ```text
//!  main: mounts ─▶ console ─▶ marker ─▶ agent ─▶ hello: disks, shares ─▶ threads ─▶ a line a second
//!                                                 ├─ network: DHCPv4 on eth0, for ever
//!                                                 ├─ http: 8080, GET /, /reach?to=IP:PORT, /write?seconds=N
//!                                                 ├─ echo: UDP 8080
//!                                                 ├─ writer: numbers on its own disk, once asked
//!                                                 └─ power: button (evdev), Ctrl-Alt-Del (SIGINT)
//! ```
//!
//! Hello reports what it sees and stores how often it started with this disk and with each share, and the
//! writer's numbers.
//! With `zos.guest=agent` on the kernel's command line there is the agent alone: everything else is its
//! host's to ask for.
#![forbid(unsafe_code)]

mod agent;
mod disks;
mod echo;
mod http;
mod launch;
mod machine;
mod network;
mod power;
mod report;
mod shares;
mod start;
mod writer;

use anyhow::Context;
use report::Report;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The word that leaves hello out.
const AGENT_ALONE: &str = "zos.guest=agent";

fn main() -> anyhow::Result<ExitCode> {
    // The kernel gives PID 1 the words that it doesn't know.
    if std::process::id() != 1 {
        return by_hand();
    }
    let stops = power::block_signals()?;
    start::mount_all();
    start::open_console();
    start::tell_hypervisor();

    let processes = agent::Processes::with_reaper()?;
    if let Err(error) = agent::spawn(processes) {
        println!("hello: no agent: {error}");
    }
    power::spawn(stops)?;
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if words.split_whitespace().any(|word| word == AGENT_ALONE) {
        loop {
            std::thread::park();
        }
    }
    hello()
}

/// Not as PID 1: a process of the agent's, or a developer's agent.
fn by_hand() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [launch::WORD, exec] => Ok(launch::run(exec).into()),
        ["agent", path] => {
            // Orphans come to us, as to PID 1.
            nix::sys::prctl::set_child_subreaper(true).context("adopt orphans")?;
            let processes = agent::Processes::with_reaper()?;
            agent::on_socket(Path::new(path), &processes)
                .with_context(|| format!("listen on {path}"))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!(
                "zos-guest is PID 1 of a micro-VM.\n\nFor developers: zos-guest agent PATH\n  \
                 the agent on a Unix socket, such as `zos-vmm exec --agent PATH -- ls` speaks to"
            );
            Ok(ExitCode::from(2))
        }
    }
}

fn hello() -> anyhow::Result<ExitCode> {
    let (disks, shares) = (Arc::new(disks::survey()), Arc::new(shares::survey()));
    let network = Arc::new(network::Network::default());
    network::spawn(network.clone())?;
    // Where the boot is counted the ring behind the counter may be ours, too.
    let counted = disks.iter().find(|disk| disk.boots.is_some());
    let writer = counted
        .and_then(|disk| writer::Writer::spawn(&Path::new("/dev").join(&disk.name)).ok().flatten());
    let writes = writer.clone();
    let see = move || Report::now(&disks, &shares, &network, writes.as_ref());
    http::spawn(see.clone(), writer)?;
    echo::spawn()?;

    println!("{}", serde_json::to_string_pretty(&see())?);
    for count in 1u64.. {
        println!("hello {count}: {}", see().line());
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(ExitCode::SUCCESS)
}

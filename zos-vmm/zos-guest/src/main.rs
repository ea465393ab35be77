//! zos-guest: the user space of `builtin:hello`, PID 1 of a twin's first VM.
//!
//! ```text
//!  main: mounts ─▶ console ─▶ marker ─▶ disks ─▶ threads ─▶ a line a second
//!                                                 ├─ network: DHCPv4 on eth0, for ever
//!                                                 ├─ http: 8080, GET /, /reach?to=IP:PORT, /write?seconds=N
//!                                                 ├─ echo: UDP 8080
//!                                                 ├─ writer: numbers on its own disk, once asked
//!                                                 └─ power: button (evdev), Ctrl-Alt-Del (SIGINT)
//! ```
//!
//! It reports what it sees and stores how often it started with this disk, and the writer's numbers.
#![forbid(unsafe_code)]

mod disks;
mod echo;
mod http;
mod machine;
mod network;
mod power;
mod report;
mod start;
mod writer;

use report::Report;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let stops = power::block_signals()?;
    start::mount_all();
    start::open_console();
    start::tell_hypervisor();

    let disks = Arc::new(disks::survey());
    let network = Arc::new(network::Network::default());
    network::spawn(network.clone())?;
    power::spawn(stops)?;
    // Where the boot is counted the ring behind the counter may be ours, too.
    let counted = disks.iter().find(|disk| disk.boots.is_some());
    let writer = counted
        .and_then(|disk| writer::Writer::spawn(&Path::new("/dev").join(&disk.name)).ok().flatten());
    let writes = writer.clone();
    let see = move || Report::now(&disks, &network, writes.as_ref());
    http::spawn(see.clone(), writer)?;
    echo::spawn()?;

    println!("{}", serde_json::to_string_pretty(&see())?);
    for count in 1u64.. {
        println!("hello {count}: {}", see().line());
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

//! zos-guest: the user space of `builtin:hello`, PID 1 of a twin's first VM.
//!
//! ```text
//!  main: mounts ─▶ console ─▶ marker ─▶ disks ─▶ threads ─▶ a line a second
//!                                                 ├─ network: DHCPv4 on eth0, for ever
//!                                                 ├─ http: 8080, GET / and GET /reach?to=IP:PORT
//!                                                 └─ power: button (evdev), Ctrl-Alt-Del (SIGINT)
//! ```
//!
//! It reports what it sees and stores one number: how often it started with this disk.
#![forbid(unsafe_code)]

mod disks;
mod http;
mod machine;
mod network;
mod power;
mod report;
mod start;

use report::Report;
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
    let see = move || Report::now(&disks, &network);
    http::spawn(see.clone())?;

    println!("{}", serde_json::to_string_pretty(&see())?);
    for count in 1u64.. {
        println!("hello {count}: {}", see().line());
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

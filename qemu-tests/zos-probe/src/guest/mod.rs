//! The init of the bench's guests, the same for each VMM: measures from inside what its command line names.
//!
//! ```text
//!  bench.role=idle              says that it is there, and waits for its end
//!  bench.role=speed             its disk and the way to bench.to, each alone     ─▶ BENCH {json}
//!  bench.role=serve             the other end of a way (10.77.0.3)
//!  bench.role=victim            delays of timer, disk and network, a round at a time ─▶ BENCH {json} each
//!  bench.role=cpu|disk|net|memory|console   a neighbour that takes all it can get
//!  bench.address=10.77.0.2/24 bench.to=10.77.0.1 bench.seconds=3
//! ```
//!
//! Without a role it ends at once: a boot is all that is measured then.

mod disk;
mod hostile;
pub(crate) mod net;
mod samples;
mod victim;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use serde_json::Value;

/// What the command line says.
pub(crate) struct Orders {
    words: BTreeMap<String, String>,
}

impl Orders {
    fn read() -> Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline").context("read the command line")?;
        let words = line.split_whitespace().filter_map(|word| word.strip_prefix("bench."));
        let words = words.filter_map(|word| word.split_once('='));
        Ok(Self { words: words.map(|(key, value)| (key.into(), value.into())).collect() })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.words.get(key).map(String::as_str)
    }

    /// The other end.
    fn to(&self) -> Result<Ipv4Addr> {
        Ok(self.get("to").context("bench.to is missing")?.parse()?)
    }

    /// How long one measurement takes.
    fn time(&self) -> Duration {
        Duration::from_secs(self.get("seconds").and_then(|text| text.parse().ok()).unwrap_or(3))
    }
}

/// The life of a guest's init.
pub(crate) fn init() -> Result<Infallible> {
    for (target, kind) in
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs"), ("/run", "tmpfs")]
    {
        let nothing = None::<&std::ffi::CStr>;
        std::fs::create_dir_all(target).ok();
        mount(kind, target, kind, MountFlags::empty(), nothing).ok();
    }
    tell_the_vmm();
    let orders = Orders::read()?;
    if let Some(role) = orders.get("role") {
        if let Err(error) = run(role, &orders) {
            say(&serde_json::json!({"error": format!("{error:#}")}));
        }
        // The end is the VMM's: what was said is out by then.
        std::thread::sleep(Duration::from_millis(500));
    }
    reboot(RebootCommand::Restart).context("ask for a reboot")?;
    bail!("still here after a reboot")
}

fn run(role: &str, orders: &Orders) -> Result<()> {
    if let Some(address) = orders.get("address") {
        network(address)?;
    }
    match role {
        "idle" => {
            say(&"idle".into());
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        "serve" => {
            say(&"serving".into());
            net::serve()
        }
        "speed" => {
            let mut told = disk::speed(disk::FIRST, orders.time())?;
            if orders.get("to").is_some() {
                told["network"] = net::speed(orders.to()?, orders.time())?;
            }
            say(&told);
            Ok(())
        }
        "victim" => loop {
            say(&victim::round(orders.to()?, orders.time())?);
        },
        neighbour => {
            say(&"hostile".into());
            hostile::run(neighbour, orders)
        }
    }
}

/// `DISK SECONDS`: a disk of the node itself, by the same program: a line of JSON.
pub(crate) fn speed(path: &str, seconds: &str) -> Result<()> {
    let time = Duration::from_secs(seconds.parse().context("SECONDS")?);
    println!("{}", disk::speed(path, time)?);
    Ok(())
}

/// A line on the console, marked as ours.
fn say(value: &Value) {
    use std::io::Write as _;
    if let Ok(mut console) = File::options().write(true).open("/dev/ttyS0") {
        writeln!(console, "\nBENCH {value}").ok();
    }
}

/// An address on the only card, by iproute2.
fn network(address: &str) -> Result<()> {
    for line in [
        "link set lo up".to_owned(),
        format!("addr add {address} dev eth0"),
        "link set eth0 up".to_owned(),
    ] {
        let words = ["--library-path", "/peers", "/peers/ip"].into_iter().chain(line.split(' '));
        let output = Command::new("/peers/ld-linux-x86-64.so.2").args(words).output();
        let output = output.context("run ip")?;
        if !output.status.success() {
            bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

/// Writes the mark of a running init, 0x60 to I/O port 0x80, where the guest has `/dev/port`. A VMM that
/// knows the mark notes the time.
fn tell_the_vmm() {
    use std::os::unix::fs::FileExt as _;
    if let Ok(port) = File::options().write(true).open("/dev/port") {
        port.write_all_at(&[0x60], 0x80).ok();
    }
}

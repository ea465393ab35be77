//! Neighbours that take all they can get: one kind each.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, bail};

use super::{Orders, disk, net};

/// Threads of a flood: more than a small guest has CPUs.
const THREADS: u64 = 4;

/// Goes on until the VM is ended.
pub(crate) fn run(kind: &str, orders: &Orders) -> Result<()> {
    let work: fn(u64, Ipv4Addr) -> Result<()> = match kind {
        "cpu" => |_, _| loop {
            std::hint::spin_loop();
        },
        "disk" => |seed, _| flood_disk(seed),
        "net" => |_, to| flood_net(to),
        "memory" => |_, _| touch_memory(),
        "console" => |_, _| flood_console(),
        _ => bail!("there is no neighbour {kind}"),
    };
    let to = orders.to().unwrap_or(Ipv4Addr::LOCALHOST);
    let threads: Vec<_> =
        (1..=THREADS).map(|seed| std::thread::spawn(move || work(seed, to))).collect();
    threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread died")?)
}

fn flood_disk(seed: u64) -> Result<()> {
    let file = disk::open(disk::FIRST)?;
    let (mut buffer, mut state) = (disk::Aligned::new(64 << 10), seed);
    loop {
        let at = disk::next(&mut state) % (disk::SPAN / (64 << 10)) * (64 << 10);
        disk::once(&file, buffer.get(), at, true)?;
    }
}

fn flood_net(to: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a socket")?;
    let datagram = [0; 1400];
    loop {
        // What the card doesn't take is lost, and the next one follows.
        socket.send_to(&datagram, (to, net::PORT + 1)).ok();
    }
}

/// A word of each page, over and over, in most of a small guest's memory.
fn touch_memory() -> Result<()> {
    let mut memory = vec![0_u8; 16 << 20];
    loop {
        memory.chunks_mut(4096).for_each(|page| page[0] = page[0].wrapping_add(1));
        std::hint::black_box(&mut memory);
    }
}

fn flood_console() -> Result<()> {
    let mut console = File::options().write(true).open("/dev/ttyS0").context("open the console")?;
    let line = [b'x'; 4096];
    loop {
        console.write_all(&line).context("write to the console")?;
    }
}

//! On real taps, in a network namespace of this test's own: two devices on a bridge.
//! Where that isn't permitted the tests say so and do nothing.
//!
//! ```text
//!  guest a ── tap ta ──┐
//!                      ├─ bridge0
//!  guest b ── tap tb ──┘
//! ```
#![allow(unsafe_code)]

use super::*;
use crate::virtio::driver::BUFFERS;
use crate::virtio::net::features::{
    F_CSUM, F_CTRL_VQ, F_GUEST_CSUM, F_GUEST_TSO4, F_HOST_TSO4, F_MQ,
};
use std::process::Command;

const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xa];
const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xb];
const IP_A: [u8; 4] = [10, 0, 0, 0xa];
const IP_B: [u8; 4] = [10, 0, 0, 0xb];
const FEATURES: u64 = F_MRG_RXBUF | F_CSUM;

/// Runs it in a thread with a network of its own; tells whether that could be.
fn alone(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        let outside = || -> Result<(), String> {
            // SAFETY: it moves the calling thread into a new network namespace, and no memory.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(format!("no network namespace: {}", std::io::Error::last_os_error()));
            }
            // The host would say a few things on the bridge by itself.
            let silent =
                |of| std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1");
            if std::path::Path::new("/proc/sys/net/ipv6").exists() {
                silent("default").map_err(|error| format!("no silence: {error}"))?;
            }
            ip("link set lo up")?;
            Taps::open("probe", 2).map(drop).map_err(|error| format!("no tap: {error}"))
        };
        match outside() {
            Ok(()) => test(),
            Err(why) => eprintln!("skipped, since it isn't permitted here: {why}"),
        }
    };
    std::thread::spawn(run).join().unwrap();
}

fn ip(arguments: &str) -> Result<(), String> {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip {arguments}: {status}")),
        Err(error) => Err(format!("no program `ip`: {error}")),
    }
}

/// A guest on a tap of this name, which is up and on the bridge.
fn guest(name: &str, pairs: u16, mac: [u8; 6], addresses: Option<Vec<IpAddr>>) -> Net {
    let taps = Taps::open(name, pairs).unwrap();
    ip(&format!("link set {name} master bridge0 up")).unwrap();
    // A port forwards some time after it is up.
    let forwards = || {
        let shown = Command::new("ip").args(["-d", "link", "show", name]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("state forwarding")
    };
    while !forwards() {
        std::thread::yield_now();
    }
    let spec = zos_vmm_spec::Net { mac: Some(Mac(mac)), ..spec(addresses) };
    Net::new(taps, &spec, Limiter::default(), Limiter::default())
}

fn bridge() {
    ip("link add name bridge0 type bridge mcast_snooping 0").unwrap();
    ip("link set bridge0 up").unwrap();
}

fn driver(net: Net, features: u64) -> Driver {
    let mut driver = Driver::in_filter(net.profile(), net.into_parts(), Some(Kind::Net));
    driver.start(features);
    settle(&mut driver);
    driver
}

/// TCP from a to b with so much in it, its checksum left to be filled in.
fn tcp(from: ([u8; 6], [u8; 4]), payload: usize, segment: u16) -> Vec<u8> {
    let total = (40 + payload) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend_from_slice(&from.1);
    ip.extend_from_slice(&IP_B);
    let sum = fold(&ip);
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let mut tcp = vec![0; 20];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
    tcp[4..8].copy_from_slice(&1000u32.to_be_bytes());
    (tcp[12], tcp[13]) = (0x50, 0x10);
    // The pseudo-header's sum stands where the checksum goes.
    let length = (20 + payload) as u16;
    let pseudo = [&from.1[..], &IP_B, &[0, 6], &length.to_be_bytes()].concat();
    tcp[16..18].copy_from_slice(&fold(&pseudo).to_be_bytes());
    let gso = u8::from(segment > 0);
    let [low, high] = segment.to_le_bytes();
    let header = [1, gso, 54 * gso, 0, low, high, 34, 0, 16, 0, 0, 0];
    let data: Vec<u8> = (0..payload).map(|at| (at / 7) as u8).collect();
    [&header[..], &B, &from.0, &[8, 0], &ip, &tcp, &data].concat()
}

/// The ones' complement sum.
fn fold(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0u32, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether a received TCP segment's checksum is right as it stands.
fn is_whole(frame: &[u8]) -> bool {
    let ip = &frame[header::BYTES + 14..];
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = &ip[20..length];
    let pseudo = [&ip[12..20], &[0, 6], &((length - 20) as u16).to_be_bytes()].concat();
    fold(&[&pseudo[..], tcp].concat()) == 0xffff
}

fn send_frame(driver: &mut Driver, frame: &[u8]) {
    driver.memory.write_slice(frame, GuestAddress(BUFFERS)).unwrap();
    let before = driver.queues[1].used().len();
    driver.queues[1].offer(&[(BUFFERS, frame.len() as u32, false)]);
    driver.kick(1);
    driver.wait(|driver| driver.queues[1].used().len() > before);
}

const ROOM: u64 = 0x4000;

/// Offers so many buffers on a receive queue.
fn offer(driver: &mut Driver, queue: u32, count: u64) {
    for index in 0..count {
        driver.queues[queue as usize].offer(&[(
            BUFFERS + 0x10_0000 + index * ROOM,
            ROOM as u32,
            true,
        )]);
    }
    driver.kick(queue);
}

/// What came in the buffers of `offer`, TCP only: frames with their headers.
fn came(driver: &Driver, queue: usize) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut rest = 0;
    for (index, (_, length)) in (0u64..).zip(driver.queues[queue].used()) {
        let chain = bytes(&driver.memory, BUFFERS + 0x10_0000 + index * ROOM, length as usize);
        if rest == 0 {
            rest = u16::from_le_bytes([chain[10], chain[11]]);
            frames.push(Vec::new());
        }
        frames.last_mut().unwrap().extend(chain);
        rest -= 1;
    }
    frames.retain(|frame| frame.get(24..26) == Some(&[8, 0]) && frame.get(35) == Some(&6));
    frames
}

#[test]
fn segments_cross_a_bridge_whole_where_both_take_them() {
    alone(|| {
        bridge();
        let tso = FEATURES | F_HOST_TSO4 | F_GUEST_CSUM | F_GUEST_TSO4;
        let mut a = driver(guest("ta", 1, A, Some(vec![IP_A.into()])), tso);
        let mut b = driver(guest("tb", 1, B, None), tso);
        offer(&mut b, 0, 15);
        let frame = tcp((A, IP_A), 30_000, 1400);
        send_frame(&mut a, &frame);
        b.wait(|b| !came(b, 0).is_empty());
        let received = came(&b, 0).swap_remove(0);
        // It was never cut: one frame of three buffers, with its checksum still to be filled in.
        assert_eq!(received.len(), frame.len());
        assert_eq!(received[12..], frame[12..]);
        assert_eq!((received[0] & 1, received[1], &received[4..6]), (1, 1, &frame[4..6]));
        assert_eq!(received[10], 2);
    });
}

#[test]
fn segments_are_cut_for_one_who_takes_none() {
    alone(|| {
        bridge();
        let mut a = driver(guest("ta", 1, A, None), FEATURES | F_HOST_TSO4);
        let mut b = driver(guest("tb", 1, B, None), FEATURES);
        offer(&mut b, 0, 15);
        let frame = tcp((A, IP_A), 4000, 1400);
        send_frame(&mut a, &frame);
        b.wait(|b| came(b, 0).len() == 3);
        let mut data = Vec::new();
        for received in came(&b, 0) {
            assert_eq!((received[0] & 1, received[1]), (0, 0));
            assert!(is_whole(&received), "the kernel filled in each checksum");
            data.extend_from_slice(&received[header::BYTES + 54..]);
        }
        assert_eq!(data, frame[header::BYTES + 54..]);
    });
}

#[test]
fn a_foreign_source_never_reaches_the_bridge() {
    alone(|| {
        bridge();
        let net = guest("ta", 1, A, Some(vec![IP_A.into()]));
        let counters = net.profile().counters;
        let mut a = driver(net, FEATURES | F_HOST_TSO4);
        let mut b = driver(guest("tb", 1, B, None), FEATURES);
        offer(&mut b, 0, 15);
        send_frame(&mut a, &tcp((A, IP_B), 100, 0));
        send_frame(&mut a, &tcp((B, IP_A), 100, 0));
        send_frame(&mut a, &tcp((A, IP_A), 200, 0));
        b.wait(|b| !came(b, 0).is_empty());
        let frames = came(&b, 0);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].len(), header::BYTES + 54 + 200);
        assert_eq!(counters.read()["tx_filtered"], 2);
    });
}

#[test]
fn pairs_of_a_real_tap_come_and_go() {
    alone(|| {
        bridge();
        let features = FEATURES | F_CTRL_VQ | F_MQ;
        let mut b = driver(guest("tb", 3, B, None), features);
        let mut a = driver(guest("ta", 1, A, None), FEATURES);
        let pairs = |driver: &mut Driver, count: u8| {
            let before = driver.queues[6].used().len();
            driver.memory.write_slice(&[4, 0, count, 0], GuestAddress(BUFFERS)).unwrap();
            driver.queues[6].offer(&[(BUFFERS, 4, false), (BUFFERS + 8, 1, true)]);
            driver.kick(6);
            driver.wait(|driver| driver.queues[6].used().len() > before);
            driver.memory.read_obj::<u8>(GuestAddress(BUFFERS + 8)).unwrap()
        };
        for count in [3, 2, 3, 1, 2] {
            assert_eq!(pairs(&mut b, count), 0, "{count} pairs");
        }
        // Two are in use: a flow that b never answered may come in either.
        for queue in 0..3 {
            offer(&mut b, queue * 2, 5);
        }
        for port in 0..8 {
            let mut frame = tcp((A, IP_A), 64, 0);
            frame[header::BYTES + 35] = port;
            send_frame(&mut a, &frame);
        }
        b.wait(|b| came(b, 0).len() + came(b, 2).len() >= 4);
        assert!(came(&b, 4).is_empty(), "the third pair isn't in use");
    });
}

#[test]
fn a_tap_that_is_deleted_is_a_pulled_cable() {
    alone(|| {
        bridge();
        let net = guest("ta", 2, A, None);
        let mut a = driver(net, FEATURES);
        offer(&mut a, 0, 2);
        ip("link del ta").unwrap();
        a.wait(|a| {
            use crate::pci::Function;
            let mut status = [7];
            a.function.bar_read(0x2000 + shared::STATUS_AT as u32, &mut status);
            status == [0]
        });
        // It goes on, and drops.
        send_frame(&mut a, &tcp((A, IP_A), 64, 0));
    });
}

#[test]
fn descriptors_of_two_taps_are_no_pairs() {
    alone(|| {
        let open = |name| Taps::open(name, 2).unwrap();
        let (one, other) = (open("t1"), open("t2"));
        let file = |taps: Taps| {
            use std::os::fd::AsFd;
            let tap = &taps.into_inner()[0];
            std::fs::File::from(tap.as_fd().try_clone_to_owned().unwrap())
        };
        let files = vec![file(one), file(other)];
        assert!(matches!(Taps::from_files(files), Err(TapError::Pairs)));
        let single = file(Taps::open("t3", 1).unwrap());
        let again = single.try_clone().unwrap();
        assert!(matches!(Taps::from_files(vec![single, again]), Err(TapError::Pairs)));
        assert!(matches!(Taps::from_files(Vec::new()), Err(TapError::Pairs)));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Taps::from_files(vec![null]), Err(TapError::NoTap(_))));
    });
}

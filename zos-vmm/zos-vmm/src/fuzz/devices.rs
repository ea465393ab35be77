//! Devices behind their transport. Whatever a script did: after a reset the device works.

use super::script::Script;
use crate::console::{Console, ConsoleEnds, Session, Sink, Wire};
use crate::rate::Limiter;
use crate::virtio::balloon::{Balloon, Options};
use crate::virtio::blk::{self, Blk};
use crate::virtio::console::VirtioConsole;
use crate::virtio::driver::{BUFFERS, Driver, MEMORY};
use crate::virtio::net::{Net, Taps};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::{Vsock, VsockEnds};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes, GuestAddress};
use zos_vmm_spec::{Bucket, IoEngine, Mac, Rate};

const SECTORS: u64 = 64;
const MARK: &[u8; 512] = &[0x5a; 512];

pub(super) fn rng(bytes: &[u8]) {
    let rng = Rng::default();
    let mut driver = Driver::new(rng.profile(), Box::new(rng));
    Script::new(bytes).play(&mut driver);
    again(&mut driver);
    assert_eq!(driver.request(&[(BUFFERS, 64, true)]), 64);
}

/// Pages go back, memory that is no page's stays.
pub(super) fn balloon(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let target = u64::from(script.byte()) << 12;
    let options = Options { target, deflate_on_oom: true, reporting: true };
    let balloon = Balloon::new(options, MEMORY as u64).unwrap();
    let counters = balloon.profile().counters;
    let mut driver = Driver::new(balloon.profile(), Box::new(balloon));
    script.play(&mut driver);
    again(&mut driver);
    driver.memory.write_obj(BUFFERS >> 12, GuestAddress(BUFFERS + 0x1000)).unwrap();
    driver.memory.write_obj(1u8, GuestAddress(BUFFERS)).unwrap();
    assert_eq!(driver.request(&[(BUFFERS + 0x1000, 4, false)]), 0);
    let gone: u8 = driver.memory.read_obj(GuestAddress(BUFFERS)).unwrap();
    assert_eq!(gone, 0, "a page that was given back reads as zeros");
    assert!(counters.read()["actual_bytes"] <= MEMORY as u64);
}

/// A disk that ends with a sector of marks behind what the guest may reach.
pub(super) fn blk(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let choice = script.byte();
    let readonly = choice & 1 == 1;
    let engine = if choice & 2 == 0 { IoEngine::Sync } else { IoEngine::Auto };
    let file = std::fs::File::from(
        rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
    );
    file.set_len(SECTORS * 512).unwrap();
    let serial = [0; 20];
    let options = blk::Options { readonly, serial, queues: 1, engine, limiter: Limiter::default() };
    let blk = Blk::new(file.try_clone().unwrap(), &options).unwrap();
    // What the file grew by afterwards is no part of the disk.
    file.write_all_at(MARK, SECTORS * 512).unwrap();
    let (profile, mut parts) = (blk.profile(), blk.into_parts());
    let (_, part) = parts.remove(0);
    let mut driver = Driver::new(profile, part);
    script.play(&mut driver);
    again(&mut driver);
    // A read of the first sector: header, data, status.
    driver.memory.write_slice(&[0; 16], GuestAddress(BUFFERS)).unwrap();
    let (data, status) = (BUFFERS + 0x1000, BUFFERS + 0x8000);
    let used = driver.request(&[(BUFFERS, 16, false), (data, 512, true), (status, 1, true)]);
    let ended: u8 = driver.memory.read_obj(GuestAddress(status)).unwrap();
    assert_eq!((used, ended), (513, 0));
    let (mut behind, mut first) = ([0; 512], [0; 512]);
    file.read_exact_at(&mut behind, SECTORS * 512).unwrap();
    assert_eq!(&behind, MARK, "written behind its end");
    assert_eq!(file.metadata().unwrap().len(), (SECTORS + 1) * 512);
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(!readonly || first == [0; 512], "a read-only disk was written");
}

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// Bytes of `virtio_net_hdr` with `num_buffers`.
const NET_HEADER: usize = 12;

/// An interface that is held to its addresses: nothing leaves that lies about its source.
pub(super) fn net(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (tap, wire) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
    let (taps, _) = Taps::of_sockets(vec![tap]);
    let spec = zos_vmm_spec::Net {
        id: "net".into(),
        source: zos_vmm_spec::Source::Tap("unused".into()),
        mac: Some(Mac(MAC)),
        queues: 1,
        addresses: Some(vec![[10, 0, 0, 2].into()]),
        receive_rate: None,
        transmit_rate: None,
    };
    let net = Net::new(taps, &spec, Limiter::new(None), Limiter::new(None));
    let mut driver = Driver::with_parts(net.profile(), net.into_parts());
    for _ in 0..script.byte() % 8 {
        let length = usize::from(script.word() % 2000);
        let mut frame = vec![0; NET_HEADER + length];
        let said = script.take(64.min(length));
        frame[NET_HEADER..NET_HEADER + said.len()].copy_from_slice(said);
        let _ = send(&wire, &frame, SendFlags::empty());
    }
    script.play(&mut driver);
    again(&mut driver);
    // A frame of IPv4 that says the truth.
    let mut frame = vec![0; NET_HEADER + 60];
    frame[NET_HEADER + 6..NET_HEADER + 12].copy_from_slice(&MAC);
    frame[NET_HEADER + 12..NET_HEADER + 15].copy_from_slice(&[8, 0, 0x45]);
    frame[NET_HEADER + 26..NET_HEADER + 30].copy_from_slice(&[10, 0, 0, 2]);
    driver.memory.write_slice(&frame, GuestAddress(BUFFERS)).unwrap();
    driver.request_on(1, &[(BUFFERS, 72, false)]);
    let (mut buffer, mut last) = (vec![0; 1 << 17], Vec::new());
    while let Ok((count, _)) = recv(&wire, &mut buffer[..], RecvFlags::empty()) {
        let source = buffer[..count].get(NET_HEADER + 6..NET_HEADER + 12);
        assert_eq!(source, Some(&MAC[..]), "a frame with a foreign source left");
        last = buffer[..count].to_vec();
    }
    assert_eq!(last.get(NET_HEADER..), Some(&frame[NET_HEADER..]), "what is true leaves");
}

/// Sockets between host and guest: a guest that lies about credit, ports and lengths.
pub(super) fn vsock(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (listener, address) = abstract_socket();
    let mut clients: Vec<UnixStream> = (0..script.byte() % 4)
        .map(|port| {
            let mut client = UnixStream::connect_addr(&address).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = writeln!(client, "CONNECT {port}");
            client
        })
        .collect();
    let vsock = Vsock::new(3, VsockEnds { listener: listener.into(), calls: None }).unwrap();
    let mut driver = Driver::new(vsock.profile(), Box::new(vsock));
    script.play(&mut driver);
    for client in &mut clients {
        let _ = client.write(script.take(64));
        let _ = client.read(&mut [0; 4096]);
    }
    again(&mut driver);
    // A question to nobody is answered by a refusal, among what clients still ask.
    let mut packet = [0; 44];
    (packet[0], packet[8], packet[28], packet[30]) = (3, 2, 1, 1);
    packet[16] = 77;
    driver.memory.write_slice(&packet, GuestAddress(BUFFERS)).unwrap();
    let rooms: [u64; 8] = std::array::from_fn(|room| BUFFERS + 0x1000 * (room as u64 + 1));
    for room in rooms {
        driver.queues[0].offer(&[(room, 4096, true)]);
    }
    driver.kick(0);
    driver.request_on(1, &[(BUFFERS, 44, false)]);
    driver.wait(|driver| {
        rooms.iter().any(|room| {
            let word = |at| driver.memory.read_obj::<u16>(GuestAddress(room + at)).unwrap();
            // To our port, from the one that we asked: RST.
            (word(20), word(30)) == (77, 3)
        })
    });
}

/// A console whose output goes nowhere, with somebody at its socket.
pub(super) fn console(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (listener, address) = abstract_socket();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.set_nonblocking(true).unwrap();
    let _ = client.write(script.take(100));
    let wire = Arc::new(Wire::new().unwrap());
    let session = Session::socket(wire.clone(), listener.into());
    let rate = Bucket { per_second: 1000, burst: 100 };
    let rate = Rate { bytes: Some(rate), operations: None };
    let console = Console::new(Sink::Nowhere, Some(rate), Some(wire));
    let ends = ConsoleEnds { console, session: Some(session), size: Some((80, 24)) };
    let device = VirtioConsole::new(ends);
    let mut driver = Driver::new(device.profile(), Box::new(device));
    script.play(&mut driver);
    let _ = client.write(script.take(100));
    let _ = client.read(&mut [0; 4096]);
    again(&mut driver);
    assert_eq!(driver.request_on(1, &[(BUFFERS, 64, false)]), 0);
}

/// A socket that needs no folder, under a name of its own.
fn abstract_socket() -> (UnixListener, SocketAddr) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("zos-vmm-fuzz-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener, address)
}

/// A reset, and the way of a good driver.
fn again(driver: &mut Driver) {
    driver.reset();
    assert_eq!(driver.status(), 0);
    driver.start(0);
}

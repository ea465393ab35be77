//! The device over packet sockets in a tap's place, and on real taps where they may be made.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod control;
mod device;
mod real;
mod receive;
mod transmit;

use super::*;
use crate::jail::Kind;
use crate::memory::GuestMemory;
use crate::virtio::driver::{BUFFERS, Driver};
use crate::virtio::net::tap::Record;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use vm_memory::{Bytes, GuestAddress};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// The tap's end, and the wire's.
fn wire() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap()
}

fn put_on(wire: &OwnedFd, frame: &[u8]) {
    send(wire, frame, SendFlags::empty()).unwrap();
}

/// A frame with its header, if one is there.
fn take_off(wire: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 17];
    let (count, _) = recv(wire, &mut buffer[..], RecvFlags::empty()).ok()?;
    buffer.truncate(count);
    Some(buffer)
}

fn bytes(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// A spec's interface.
fn spec(addresses: Option<Vec<IpAddr>>) -> zos_vmm_spec::Net {
    zos_vmm_spec::Net {
        id: "net".into(),
        source: zos_vmm_spec::Source::Tap("unused".into()),
        mac: Some(Mac(MAC)),
        queues: 1,
        addresses,
        receive_rate: None,
        transmit_rate: None,
    }
}

/// A device with so many pairs, the wires of its tap's queues, and what the tap is told.
struct Cable {
    net: Net,
    wires: Vec<OwnedFd>,
    record: Record,
}

impl Cable {
    fn new(pairs: usize, spec: &zos_vmm_spec::Net) -> Self {
        let (taps, wires) = (0..pairs).map(|_| wire()).unzip();
        let (taps, record) = Taps::of_sockets(taps);
        let limiter = |rate| Limiter::new(rate);
        let net = Net::new(taps, spec, limiter(spec.receive_rate), limiter(spec.transmit_rate));
        record.lock().unwrap().clear();
        Self { net, wires, record }
    }

    /// Its threads are in the filter that they have in a VM: a call beyond it ends the tests.
    fn driver(self) -> (Driver, Vec<OwnedFd>, Record) {
        let driver = Driver::in_filter(self.net.profile(), self.net.into_parts(), Some(Kind::Net));
        (driver, self.wires, self.record)
    }
}

/// Waits until the first pair's thread is at work: what stood on the wire before is gone then.
fn settle(driver: &mut Driver) {
    let before = driver.queues[1].used().len();
    driver.queues[1].offer(&[(BUFFERS, 1, false)]);
    driver.kick(1);
    driver.wait(|driver| driver.queues[1].used().len() > before);
}

/// What all pairs share, for a receiver or a transmitter alone.
fn shared(addresses: Option<Vec<IpAddr>>) -> Arc<Shared> {
    Cable::new(1, &spec(addresses)).net.shared
}

fn count(shared: &Shared, name: &str) -> u64 {
    shared.counters.read()[name]
}

/// A frame of IPv4 from this address, with an empty header before it.
fn ipv4_from(source: [u8; 4], length: usize) -> Vec<u8> {
    let mut frame = vec![0; header::BYTES + length];
    let bytes = &mut frame[header::BYTES..];
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&MAC);
    bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    bytes[26..30].copy_from_slice(&source);
    for (index, byte) in bytes.iter_mut().enumerate().skip(34) {
        *byte = index as u8;
    }
    frame
}

//! Receiving and transmitting over a pair of packet sockets in a tap's place.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use crate::virtio::Broken;
use crate::virtio::driver::{BUFFERS, GuestQueue, MEMORY, interrupt, memory};
use proptest::prelude::*;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use vm_memory::{Bytes, GuestAddress};

/// The tap's end, and the wire's.
fn wire() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap()
}

fn bytes(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

struct Setup {
    memory: GuestMemory,
    guest: GuestQueue,
    receiver: Receiver,
    interrupt: Arc<Interrupt>,
    tap: OwnedFd,
    wire: OwnedFd,
}

impl Setup {
    fn new(mergeable: bool, largest: usize) -> Self {
        let memory = memory();
        let guest = GuestQueue::new(&memory, 0);
        let queue = ActiveQueue::new(0, guest.queue());
        let receiver = Receiver::new(&memory, queue, mergeable, largest);
        let (tap, wire) = wire();
        Self { memory, guest, receiver, interrupt: interrupt(), tap, wire }
    }

    fn refill(&mut self) -> Result<(), Broken> {
        self.receiver.refill(&self.memory, &self.interrupt)
    }

    fn receive(&mut self, frame: &[u8]) -> Result<(), Broken> {
        send(&self.wire, frame, SendFlags::empty()).unwrap();
        self.receiver.receive(&self.memory, &self.interrupt, self.tap.as_fd())
    }
}

#[test]
fn a_frame_spreads_over_chains_and_counts_them() {
    let mut setup = Setup::new(true, 250);
    for index in 0..4 {
        setup.guest.offer(&[(BUFFERS + index * 0x100, 100, true)]);
    }
    setup.refill().unwrap();
    assert!(setup.receiver.has_room());
    let frame: Vec<u8> = (0..250).collect();
    setup.receive(&frame).unwrap();
    assert_eq!(setup.guest.used(), [(0, 100), (1, 100), (2, 50)]);
    let mut first = frame[..100].to_vec();
    first[10..12].copy_from_slice(&3u16.to_le_bytes());
    assert_eq!(bytes(&setup.memory, BUFFERS, 100), first);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x200, 50), frame[200..]);
    // One chain of 100 bytes is left: no room for the largest frame until more come.
    assert!(!setup.receiver.has_room());
    setup.guest.offer(&[(BUFFERS + 0x1000, 400, true)]);
    setup.refill().unwrap();
    setup.receive(&frame[..60]).unwrap();
    assert_eq!(setup.guest.used()[3], (3, 60));
}

#[test]
fn without_merging_a_frame_takes_one_chain() {
    let mut setup = Setup::new(false, PLAIN_FRAME);
    setup.guest.offer(&[(BUFFERS, 12, true), (BUFFERS + 0x1000, 1600, true)]);
    setup.guest.offer(&[(BUFFERS + 0x4000, 2000, true)]);
    setup.refill().unwrap();
    setup.receive(&[7; 300]).unwrap();
    setup.receive(&[8; 90]).unwrap();
    assert_eq!(setup.guest.used(), [(0, 300), (2, 90)]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x1000, 288), [7; 288]);
}

#[test]
fn chains_that_cannot_receive_go_back_empty() {
    let mut setup = Setup::new(true, 100);
    setup.guest.offer(&[(BUFFERS, 100, false)]);
    setup.guest.offer(&[(BUFFERS, 4, true)]);
    setup.guest.offer(&[(MEMORY as u64, 100, true)]);
    setup.refill().unwrap();
    assert_eq!(setup.guest.used(), [(0, 0), (1, 0), (2, 0)]);
    assert!(!setup.receiver.has_room());
    setup.guest.set_available(60);
    assert_eq!(setup.refill(), Err(Broken::Available));
}

#[test]
fn frames_go_out_whole_and_wrong_ones_are_dropped() {
    let memory = memory();
    let mut guest = GuestQueue::new(&memory, 0);
    let mut transmitter = Transmitter::new(&memory, ActiveQueue::new(1, guest.queue()));
    let (tap, wire) = wire();
    let frame: Vec<u8> = (0..200).collect();
    memory.write_slice(&frame, GuestAddress(BUFFERS)).unwrap();
    guest.offer(&[(BUFFERS, 12, false), (BUFFERS + 12, 188, false)]);
    guest.offer(&[(BUFFERS, 11, false)]);
    guest.offer(&[(BUFFERS, LARGEST_FRAME as u32 + 1, false)]);
    guest.offer(&[(BUFFERS, 200, true)]);
    guest.offer(&[(u64::MAX, 200, false)]);
    let share = transmitter.send(&memory, &interrupt(), tap.as_fd()).unwrap();
    assert_eq!((share, guest.used().len()), (Share::Done, 5));
    let mut buffer = [0; 4096];
    let (count, _) = recv(&wire, &mut buffer[..], RecvFlags::empty()).unwrap();
    assert_eq!(&buffer[..count], &frame[..]);
    assert!(recv(&wire, &mut buffer[..], RecvFlags::empty()).is_err(), "nothing else went out");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Any receive buffers and frames: every chain comes back at most once, lengths stay within.
    #[test]
    fn any_buffers(
        mergeable in any::<bool>(),
        rounds in prop::collection::vec(
            (
                prop::collection::vec(
                    (0u64..0x8000, prop_oneof![0u32..300, any::<u32>()], any::<bool>()), 1..4),
                prop::collection::vec(any::<u8>(), 12..400),
            ),
            1..6,
        ),
    ) {
        let mut setup = Setup::new(mergeable, 400);
        let mut rooms = BTreeMap::new();
        for (buffers, frame) in rounds {
            let buffers: Vec<_> =
                buffers.into_iter().map(|(at, length, w)| (BUFFERS + at, length, w)).collect();
            let room: u64 = buffers.iter().map(|(_, length, _)| u64::from(*length)).sum();
            rooms.insert(u32::from(setup.guest.offer(&buffers)), room);
            setup.refill().unwrap();
            setup.receive(&frame).unwrap();
        }
        for (head, written) in setup.guest.used() {
            let room = rooms.remove(&head);
            prop_assert!(room.is_some_and(|room| u64::from(written) <= room), "head {head}");
        }
    }
}

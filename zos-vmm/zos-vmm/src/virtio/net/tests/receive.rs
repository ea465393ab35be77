//! From the wire into many, few and short buffers.

use super::*;
use crate::virtio::SHARE;
use crate::virtio::driver::{BUFFERS, GuestQueue, MEMORY, interrupt, memory};
use crate::virtio::net::receive::Receiver;
use crate::virtio::net::transmit::Cost;
use proptest::prelude::*;
use std::collections::BTreeMap;

struct Setup {
    memory: GuestMemory,
    guest: GuestQueue,
    receiver: Receiver,
    shared: Arc<Shared>,
    tap: OwnedFd,
    wire: OwnedFd,
}

impl Setup {
    fn new(features: u64) -> Self {
        let memory = memory();
        let guest = GuestQueue::new(&memory, 0);
        let queue = ActiveQueue::new(0, guest.queue());
        let receiver = Receiver::new(&memory, queue, features);
        let (tap, wire) = wire();
        Self { memory, guest, receiver, shared: shared(None), tap, wire }
    }

    fn turn_if(&mut self, may: impl FnMut(Cost) -> bool) -> Result<Share, Broken> {
        self.receiver.turn(&self.memory, &interrupt(), &self.shared, &self.tap, may)
    }

    fn turn(&mut self) -> Result<Share, Broken> {
        self.turn_if(|_| true)
    }

    fn receive(&mut self, frame: &[u8]) {
        put_on(&self.wire, frame);
        self.turn().unwrap();
    }

    fn dropped(&self) -> u64 {
        count(&self.shared, "rx_dropped")
    }
}

#[test]
fn a_frame_spreads_over_chains_and_counts_them() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    for index in 0..4 {
        setup.guest.offer(&[(BUFFERS + index * 0x100, 100, true)]);
    }
    setup.turn().unwrap();
    assert!(setup.receiver.has_room());
    let frame: Vec<u8> = (0..250).collect();
    setup.receive(&frame);
    assert_eq!(setup.guest.used(), [(0, 100), (1, 100), (2, 50)]);
    let mut first = frame[..100].to_vec();
    first[10..12].copy_from_slice(&3u16.to_le_bytes());
    assert_eq!(bytes(&setup.memory, BUFFERS, 100), first);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x200, 50), frame[200..]);
    setup.receive(&frame[..60]);
    assert_eq!(setup.guest.used()[3], (3, 60));
    assert_eq!((count(&setup.shared, "rx_frames"), count(&setup.shared, "rx_bytes")), (2, 286));
}

#[test]
fn a_frame_without_room_waits_for_chains_and_is_whole_then() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    setup.guest.offer(&[(BUFFERS, 100, true)]);
    let frame: Vec<u8> = (0..=255).chain(0..=255).collect();
    setup.receive(&frame);
    assert!(setup.guest.used().is_empty() && !setup.receiver.has_room());
    setup.guest.offer(&[(BUFFERS + 0x100, 200, true)]);
    setup.turn().unwrap();
    assert!(setup.guest.used().is_empty());
    // A frame behind it stays in the tap meanwhile, and comes second.
    setup.receive(&[9; 40]);
    setup.guest.offer(&[(BUFFERS + 0x200, 300, true)]);
    setup.guest.offer(&[(BUFFERS + 0x400, 300, true)]);
    setup.turn().unwrap();
    assert_eq!(setup.guest.used(), [(0, 100), (1, 200), (2, 212), (3, 40)]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 12, 88), frame[12..100]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x100, 200), frame[100..300]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x200, 212), frame[300..]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 10, 2), [3, 0]);
    assert_eq!(setup.dropped(), 0);
}

#[test]
fn a_ring_that_can_never_hold_a_frame_loses_it() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    for index in 0..16 {
        setup.guest.offer(&[(BUFFERS + index * 0x100, 20, true)]);
    }
    setup.receive(&[7; 400]);
    assert_eq!((setup.dropped(), setup.guest.used().len()), (1, 0));
    // One that fits is received with the same chains.
    setup.receive(&[8; 40]);
    assert_eq!(setup.guest.used(), [(0, 20), (1, 20)]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 12, 8), [8; 8]);
}

#[test]
fn without_merging_a_frame_takes_one_chain_or_none() {
    let mut setup = Setup::new(0);
    setup.guest.offer(&[(BUFFERS, 12, true), (BUFFERS + 0x1000, 600, true)]);
    setup.guest.offer(&[(BUFFERS + 0x4000, 2000, true)]);
    setup.receive(&[6; 613]);
    assert_eq!((setup.dropped(), setup.guest.used().len()), (1, 0));
    setup.receive(&[7; 300]);
    setup.receive(&[8; 90]);
    assert_eq!(setup.guest.used(), [(0, 300), (2, 90)]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 0x1000, 288), [7; 288]);
    assert_eq!(bytes(&setup.memory, BUFFERS + 10, 2), [1, 0]);
}

#[test]
fn many_frames_come_back_at_once() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    for index in 0..16 {
        setup.guest.offer(&[(BUFFERS + index * 0x1000, 0x1000, true)]);
    }
    for index in 0..10 {
        put_on(&setup.wire, &[index; 64]);
    }
    // 64 KiB are there for the first frame; the others find what it left.
    setup.turn().unwrap();
    let lengths: Vec<u32> = setup.guest.used().iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [64; 10]);
    for index in 0..10u8 {
        let at = BUFFERS + u64::from(index) * 0x1000;
        assert_eq!(bytes(&setup.memory, at + 12, 52), [index; 52]);
    }
}

/// A frame and a buffer come for each that is delivered: the thread has to look up all the same.
#[test]
fn a_flood_gets_a_share() {
    let mut setup = Setup::new(0);
    setup.guest.offer(&[(BUFFERS, 2000, true)]);
    put_on(&setup.wire, &[4; 64]);
    let Setup { memory, guest, receiver, shared, tap, wire } = &mut setup;
    let mut frames = 1;
    let endless = |_| {
        guest.offer(&[(BUFFERS, 2000, true)]);
        put_on(wire, &[4; 64]);
        frames += 1;
        true
    };
    receiver.turn(memory, &interrupt(), shared, &*tap, endless).unwrap();
    assert!(frames <= 1 + SHARE);
    assert_eq!(count(shared, "rx_frames") + 1, frames as u64);
}

#[test]
fn a_frame_that_may_not_come_yet_waits() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    setup.guest.offer(&[(BUFFERS, 2000, true)]);
    setup.guest.offer(&[(BUFFERS + 0x1000, 2000, true)]);
    put_on(&setup.wire, &[1; 112]);
    put_on(&setup.wire, &[2; 1600]);
    let mut asked = Vec::new();
    setup
        .turn_if(|cost| {
            asked.push((cost.bytes, cost.frames));
            false
        })
        .unwrap();
    assert!(setup.guest.used().is_empty() && !setup.receiver.has_room());
    setup
        .turn_if(|cost| {
            asked.push((cost.bytes, cost.frames));
            asked.len() == 2
        })
        .unwrap();
    assert_eq!(asked, [(100, 1), (100, 1), (1588, 2)]);
    assert_eq!(setup.guest.used(), [(0, 112)]);
    setup.turn().unwrap();
    assert_eq!(setup.guest.used()[1..], [(1, 1600)]);
}

#[test]
fn chains_that_cannot_receive_go_back_empty() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    setup.guest.offer(&[(BUFFERS, 100, false)]);
    setup.guest.offer(&[(BUFFERS, 4, true)]);
    setup.guest.offer(&[(MEMORY as u64, 100, true)]);
    setup.turn().unwrap();
    assert_eq!(setup.guest.used(), [(0, 0), (1, 0), (2, 0)]);
    assert!(!setup.receiver.has_room());
    setup.guest.set_available(60);
    assert_eq!(setup.turn(), Err(Broken::Available));
}

#[test]
fn frames_that_are_none_are_dropped() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    setup.guest.offer(&[(BUFFERS, 2000, true)]);
    setup.receive(&[5; 11]);
    setup.receive(&vec![5; LARGEST_FRAME + 3000]);
    assert_eq!((setup.dropped(), setup.guest.used().len()), (2, 0));
    setup.receive(&[5; 12]);
    assert_eq!(setup.guest.used(), [(0, 12)]);
}

#[test]
fn a_tap_that_is_gone_is_a_pulled_cable() {
    let mut setup = Setup::new(F_MRG_RXBUF);
    setup.guest.offer(&[(BUFFERS, 2000, true)]);
    // What was closed can't be read.
    let (mut nothing, _) = rustix::pipe::pipe().map(|(read, write)| (write, read)).unwrap();
    std::mem::swap(&mut setup.tap, &mut nothing);
    setup.turn().unwrap();
    let mut status = [7];
    setup.shared.config.read(shared::STATUS_AT, &mut status);
    assert_eq!((status, setup.shared.has_link()), ([0], false));
    setup.shared.try_link();
    setup.shared.config.read(shared::STATUS_AT, &mut status);
    assert_eq!((status, setup.shared.has_link()), ([LINK_UP], true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Any receive buffers and frames: every chain comes back at most once, lengths stay within,
    /// and each frame comes whole, in its order, or is counted as dropped.
    #[test]
    fn any_buffers(
        mergeable in any::<bool>(),
        rounds in prop::collection::vec(
            (
                prop::collection::vec(
                    (0u32..3, prop_oneof![0u32..300, 0u32..3000], any::<bool>()), 1..4),
                12usize..1200,
            ),
            1..6,
        ),
    ) {
        let mut setup = Setup::new(if mergeable { F_MRG_RXBUF } else { 0 });
        let (mut rooms, mut sent) = (BTreeMap::new(), Vec::new());
        let mut next = BUFFERS;
        for (buffers, frame) in rounds {
            let buffers: Vec<_> = buffers.into_iter().map(|(gap, length, writable)| {
                let at = next + u64::from(gap);
                next = at + u64::from(length);
                (at, length, writable)
            }).collect();
            rooms.insert(u32::from(setup.guest.offer(&buffers)), buffers);
            setup.turn().unwrap();
            let mark = sent.len() as u8 + 1;
            let frame: Vec<u8> = (0..frame).map(|at| (at as u8) ^ (mark * 37)).collect();
            setup.receive(&frame);
            sent.push(frame);
        }
        // What came: chains in their order, frames where a header says how many of them it takes.
        let mut came: Vec<Vec<u8>> = Vec::new();
        let mut rest = 0;
        for (head, written) in setup.guest.used() {
            let buffers = rooms.remove(&head);
            prop_assert!(buffers.is_some(), "head {head} came twice");
            let mut chain = Vec::new();
            for (at, length, _) in buffers.unwrap() {
                chain.extend(bytes(&setup.memory, at, length as usize));
            }
            prop_assert!(chain.len() >= written as usize);
            chain.truncate(written as usize);
            if chain.is_empty() {
                continue;
            }
            if rest == 0 {
                rest = u16::from_le_bytes([chain[10], chain[11]]);
                came.push(Vec::new());
            }
            came.last_mut().unwrap().extend(chain);
            rest -= 1;
        }
        prop_assert_eq!(rest, 0);
        prop_assert!(mergeable || came.len() as u64 == count(&setup.shared, "rx_frames"));
        let mut expected = sent.iter();
        for mut frame in came {
            let found = expected.any(|sent| {
                frame[10..12].copy_from_slice(&sent[10..12]);
                &frame == sent
            });
            prop_assert!(found, "a frame that nobody sent, or out of order");
        }
    }
}

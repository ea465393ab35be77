//! From the guest to the wire: what leaves is what was checked.

use super::*;
use crate::virtio::SHARE;
use crate::virtio::driver::{BUFFERS, GuestQueue, interrupt, memory};
use crate::virtio::net::features::offered;
use crate::virtio::net::transmit::{Cost, Transmitter};
use proptest::prelude::*;
use std::os::fd::AsFd;

const OWN: [u8; 4] = [10, 0, 0, 2];

struct Setup {
    memory: GuestMemory,
    guest: GuestQueue,
    transmitter: Transmitter,
    shared: Arc<Shared>,
    tap: OwnedFd,
    wire: OwnedFd,
}

impl Setup {
    fn new(addresses: Option<Vec<IpAddr>>) -> Self {
        let memory = memory();
        let guest = GuestQueue::new(&memory, 0);
        let queue = ActiveQueue::new(1, guest.queue());
        let transmitter = Transmitter::new(&memory, queue, offered(true, 1, true));
        let (tap, wire) = wire();
        Self { memory, guest, transmitter, shared: shared(addresses), tap, wire }
    }

    fn place(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(BUFFERS + at)).unwrap();
    }

    fn turn_if(&mut self, may: impl FnMut(Cost) -> bool) -> Share {
        let tap = self.tap.as_fd();
        self.transmitter.turn(&self.memory, &interrupt(), &self.shared, tap, may).unwrap()
    }

    fn turn(&mut self) -> Share {
        self.turn_if(|_| true)
    }

    fn counts(&self) -> [u64; 3] {
        ["tx_frames", "tx_dropped", "tx_filtered"].map(|name| count(&self.shared, name))
    }
}

#[test]
fn frames_go_out_whole_and_wrong_ones_are_dropped() {
    let mut setup = Setup::new(None);
    let frame = ipv4_from(OWN, 188);
    setup.place(0, &frame);
    setup.guest.offer(&[(BUFFERS, 12, false), (BUFFERS + 12, 188, false)]);
    setup.guest.offer(&[(BUFFERS, 11, false)]);
    setup.guest.offer(&[(BUFFERS, 25, false)]);
    setup.guest.offer(&[(BUFFERS, LARGEST_FRAME as u32 + 1, false)]);
    setup.guest.offer(&[(BUFFERS, 200, true)]);
    setup.guest.offer(&[(u64::MAX, 200, false)]);
    // A header in pieces, a frame in many.
    let pieces: Vec<_> = (0..6).map(|index| (BUFFERS + index * 33, 33, false)).collect();
    setup.guest.offer(&pieces);
    assert_eq!((setup.turn(), setup.guest.used().len()), (Share::Done, 7));
    assert_eq!(take_off(&setup.wire).as_deref(), Some(&frame[..]));
    assert_eq!(take_off(&setup.wire).as_deref(), Some(&frame[..198]));
    assert_eq!(take_off(&setup.wire), None);
    assert_eq!(setup.counts(), [2, 5, 0]);
    assert_eq!(count(&setup.shared, "tx_bytes"), 188 + 186);
}

#[test]
fn a_header_that_lies_does_not_reach_the_tap() {
    let mut setup = Setup::new(None);
    let lies: [[u8; 12]; 4] = [
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        [0, 1, 54, 0, 100, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0],
        [1, 99, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0],
    ];
    for (index, lie) in (0u64..).zip(lies) {
        let mut frame = ipv4_from(OWN, 188);
        frame[..12].copy_from_slice(&lie);
        setup.place(index * 0x200, &frame);
        setup.guest.offer(&[(BUFFERS + index * 0x200, 200, false)]);
    }
    setup.turn();
    assert_eq!(take_off(&setup.wire), None);
    assert_eq!(setup.counts(), [0, 4, 0]);
}

#[test]
fn another_source_does_not_leave() {
    let mut setup = Setup::new(Some(vec![OWN.into()]));
    for (index, source) in (0u64..).zip([OWN, [10, 0, 0, 3]]) {
        setup.place(index * 0x200, &ipv4_from(source, 188));
        setup.guest.offer(&[(BUFFERS + index * 0x200, 200, false)]);
    }
    setup.turn();
    assert_eq!(take_off(&setup.wire), Some(ipv4_from(OWN, 188)));
    assert_eq!(take_off(&setup.wire), None);
    assert_eq!((setup.counts(), setup.guest.used().len()), ([1, 0, 1], 2));
}

#[test]
fn no_checksum_is_written_over_what_was_checked() {
    let mut setup = Setup::new(Some(vec![OWN.into()]));
    // The kernel would write it over the source's second half; over a field of TCP it may.
    for (index, (start, offset)) in (0u64..).zip([(20u8, 8u8), (14, 12), (26, 2), (34, 16)]) {
        let mut frame = ipv4_from(OWN, 188);
        frame[0] = 1;
        (frame[6], frame[8]) = (start, offset);
        setup.place(index * 0x200, &frame);
        setup.guest.offer(&[(BUFFERS + index * 0x200, 200, false)]);
    }
    setup.turn();
    assert_eq!(take_off(&setup.wire).map(|frame| frame[6]), Some(34));
    assert_eq!(take_off(&setup.wire), None);
    assert_eq!(setup.counts(), [1, 0, 3]);
}

/// The guest changes the frame between the check and the sending, which the limiter holds apart.
#[test]
fn a_frame_changed_after_its_check_leaves_as_it_was_checked() {
    let mut setup = Setup::new(Some(vec![OWN.into()]));
    let frame = ipv4_from(OWN, 188);
    setup.place(0, &frame);
    setup.guest.offer(&[(BUFFERS, 200, false)]);
    setup.turn_if(|_| false);
    assert!(setup.guest.used().is_empty());
    let mut forged = ipv4_from([10, 0, 0, 3], 188);
    forged[..12].copy_from_slice(&[1, 1, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    forged[18..24].fill(0xee);
    forged[150..].fill(0xdd);
    setup.place(0, &forged);
    setup.turn();
    let sent = take_off(&setup.wire).unwrap();
    // Its end isn't checked, and is the guest's until it is sent.
    assert_eq!(sent[..128], frame[..128]);
    assert_eq!(sent[150..], forged[150..]);
    assert_eq!((setup.counts(), setup.guest.used()), ([1, 0, 0], vec![(0, 0)]));
}

#[test]
fn what_waits_for_tokens_goes_out_once_and_in_order() {
    let mut setup = Setup::new(None);
    for index in 0..3u8 {
        setup.place(u64::from(index) * 0x200, &ipv4_from([10, 0, 0, index], 88));
        setup.guest.offer(&[(BUFFERS + u64::from(index) * 0x200, 100, false)]);
    }
    let mut asked = 0;
    let mut once = |cost: Cost| {
        assert_eq!((cost.bytes, cost.frames), (88, 1));
        asked += 1;
        asked == 1
    };
    assert_eq!(setup.turn_if(&mut once), Share::Done);
    assert_eq!(setup.guest.used().len(), 1);
    // Kicks don't help.
    assert_eq!(setup.turn_if(&mut once), Share::Done);
    setup.turn();
    let sources: Vec<u8> =
        std::iter::from_fn(|| take_off(&setup.wire)).map(|frame| frame[12 + 29]).collect();
    assert_eq!(sources, [0, 1, 2]);
}

#[test]
fn a_segmented_frame_costs_what_it_becomes() {
    let mut setup = Setup::new(None);
    let mut frame = ipv4_from(OWN, 54 + 14_480);
    frame[..10].copy_from_slice(&[1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0]);
    setup.place(0, &frame);
    setup.guest.offer(&[(BUFFERS, frame.len() as u32, false)]);
    let mut costs = Vec::new();
    setup.turn_if(|cost| {
        costs.push((cost.bytes, cost.frames));
        true
    });
    assert_eq!(costs, [(14_534, 10)]);
    assert_eq!(take_off(&setup.wire), Some(frame));
}

/// A tap takes a frame or leaves it; what took a part of one must not get the rest as another.
#[test]
fn the_rest_of_a_frame_is_never_sent_as_another() {
    let mut setup = Setup::new(None);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (tap, wire) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    // With so little room a stream takes some of its pieces, and not the last.
    rustix::net::sockopt::set_socket_send_buffer_size(&tap, 20_000).unwrap();
    let mut room = vec![0; 1 << 17];
    setup.tap = tap;
    let frame = ipv4_from(OWN, 65_000);
    setup.place(0, &frame);
    setup.guest.offer(&[(BUFFERS, frame.len() as u32, false)]);
    setup.turn();
    assert_eq!(setup.guest.used().len(), 1);
    let mut all = Vec::new();
    while let Ok(count @ 1..) = rustix::io::read(&wire, &mut room) {
        all.extend_from_slice(&room[..count]);
    }
    let part = &all[..];
    assert!(!part.is_empty() && part.len() < frame.len(), "{} of {}", part.len(), frame.len());
    assert!(frame.starts_with(part));
    // Now there would be room.
    setup.turn();
    assert!(rustix::io::read(&wire, &mut room).is_err());
    assert_eq!(setup.counts(), [0, 1, 0]);
}

/// The guest offers a frame for each that is sent: the thread has to look up all the same.
#[test]
fn a_guest_that_never_stops_gets_a_share() {
    let mut setup = Setup::new(None);
    setup.place(0, &ipv4_from(OWN, 88));
    let Setup { memory, guest, transmitter, shared, tap, .. } = &mut setup;
    guest.offer(&[(BUFFERS, 100, false)]);
    let mut offered = 1;
    let endless = |_| {
        guest.offer(&[(BUFFERS, 100, false)]);
        offered += 1;
        true
    };
    let share = transmitter.turn(memory, &interrupt(), shared, tap.as_fd(), endless).unwrap();
    assert_eq!((share, offered), (Share::More, 1 + SHARE));
}

#[test]
fn a_full_wire_drops() {
    let mut setup = Setup::new(None);
    setup.place(0, &ipv4_from(OWN, 188));
    for _ in 0..2000 {
        setup.guest.offer(&[(BUFFERS, 200, false)]);
        setup.turn();
    }
    let [sent, dropped, _] = setup.counts();
    assert!(sent > 0 && dropped > 0 && sent + dropped == 2000);
    assert_eq!(std::iter::from_fn(|| take_off(&setup.wire)).count() as u64, sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Whatever a guest offers: no frame on the wire has another's source, and each has its length.
    #[test]
    fn no_foreign_frame_on_the_wire(
        frames in prop::collection::vec(
            (
                prop::collection::vec((0usize..70, prop_oneof![Just(0u8), any::<u8>()]), 0..5),
                0usize..300,
                1u32..4,
            ),
            1..6,
        ),
    ) {
        let mut setup = Setup::new(Some(vec![OWN.into()]));
        let mut offered = Vec::new();
        for (index, (changes, length, pieces)) in (0u64..).zip(frames) {
            let mut frame = ipv4_from(OWN, 300);
            for (at, value) in changes {
                frame[at] = value;
            }
            frame.truncate(length);
            let base = index * 0x1000;
            setup.place(base, &frame);
            let step = length as u32 / pieces;
            let chain: Vec<_> = (0..pieces)
                .map(|piece| {
                    let last = piece + 1 == pieces;
                    let bytes = if last { length as u32 - piece * step } else { step };
                    (BUFFERS + base + u64::from(piece * step), bytes, false)
                })
                .collect();
            setup.guest.offer(&chain);
            offered.push(frame);
        }
        setup.turn();
        prop_assert_eq!(setup.guest.used().len(), offered.len());
        while let Some(frame) = take_off(&setup.wire) {
            let body = &frame[12..];
            prop_assert!(offered.iter().any(|offered| offered.get(12..) == Some(body)));
            prop_assert_eq!(&body[6..12], &MAC);
            let own = match body[12..14] {
                [8, 0] => body[26..30] == OWN || body[26..34] == [0, 0, 0, 0, 255, 255, 255, 255],
                [8, 6] => body[22..28] == MAC,
                _ => body[12..14] == [0x86, 0xdd],
            };
            prop_assert!(own, "{body:x?}");
            // The kernel writes nothing over what was looked at.
            let at = u16::from_le_bytes([frame[6], frame[7]]) + u16::from_le_bytes([frame[8], frame[9]]);
            prop_assert!(frame[0] == 0 || at >= 34);
        }
    }
}

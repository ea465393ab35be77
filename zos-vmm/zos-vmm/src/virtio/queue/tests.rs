//! The arithmetic of rings: every small case, around the wrap of its indices too.

use super::*;
use crate::virtio::driver::{GuestQueue, memory};

/// Begins that meet the wrap of 16 bits, and of a ring of 16 entries.
fn begins() -> impl Iterator<Item = u16> {
    (0..40).chain(u16::MAX - 40..=u16::MAX)
}

#[test]
fn an_event_is_passed_when_a_step_goes_over_it() {
    for old in begins() {
        for steps in 0..=34u16 {
            for event in (0..80u16).map(|ahead| old.wrapping_sub(40).wrapping_add(ahead)) {
                // One step after another: does one leave the index that the driver named?
                let model = (0..steps).any(|step| old.wrapping_add(step) == event);
                let new = Wrapping(old) + Wrapping(steps);
                let found = passed(Wrapping(event), Wrapping(old), new);
                assert_eq!(found, model, "{event} from {old}, {steps} steps");
            }
        }
    }
}

#[test]
fn what_is_given_back_stands_in_order_across_any_wrap() {
    const SIZE: u16 = 16;
    let batches = [0usize, 1, 2, 5, 16];
    for begin in begins() {
        for first in batches {
            for second in batches {
                let memory = memory();
                let guest = GuestQueue::new(&memory, 0);
                let mut queue = guest.queue();
                queue.set_next_used(begin);
                let mut active = ActiveQueue::new(0, queue);
                let used = |from: usize, count: usize| -> Vec<Used> {
                    let head = |n: usize| u16::try_from(n % 16).unwrap();
                    (from..from + count).map(|n| Used { head: head(n), written: n * 3 }).collect()
                };
                active.give_back_all(&memory, &used(0, first)).unwrap();
                active.give_back_all(&memory, &used(first, second)).unwrap();
                let all = used(0, first + second);
                let [_, _, ring] = guest.rings();
                let index: u16 = memory.read_obj(GuestAddress(ring + 2)).unwrap();
                let total = u16::try_from(all.len()).unwrap();
                let expected = if all.is_empty() { 0 } else { begin.wrapping_add(total) };
                assert_eq!(index, expected);
                // What the last turn of the ring left is still there.
                for (n, used) in all.iter().enumerate().skip(all.len().saturating_sub(16)) {
                    let entry = begin.wrapping_add(u16::try_from(n).unwrap()) % SIZE;
                    let at = ring + 4 + u64::from(entry) * 8;
                    let head: u32 = memory.read_obj(GuestAddress(at)).unwrap();
                    let written: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
                    let expected = (u32::from(used.head), u32::try_from(used.written).unwrap());
                    assert_eq!((head, written), expected);
                }
            }
        }
    }
}

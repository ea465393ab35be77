//! Page numbers of the inflate queue: taken in steps, sorted, merged into ranges, given back.

use super::{INFLATED_BYTES, MOST, PAGE};
use crate::memory::IoVecs;
use crate::virtio::Counters;
use vm_memory::GuestAddress;

/// Bytes of a page number.
pub(super) const NUMBER: usize = 4;
/// Page numbers of one step. A range of them lies in at most two pieces of memory for each number,
/// which the list of pieces holds.
const STEP: usize = 256;

/// Takes a step's numbers and gives their pages back; tells in how many calls.
pub(super) fn give_back(numbers: &mut IoVecs, scratch: &mut IoVecs, counters: &Counters) -> usize {
    let mut bytes = [0; STEP * NUMBER];
    let count = numbers.take(&mut bytes) / NUMBER;
    let mut pages = [0; STEP];
    for (page, bytes) in pages.iter_mut().zip(bytes[..count * NUMBER].chunks_exact(NUMBER)) {
        *page = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut calls = 0;
    ranges(&mut pages[..count], |first, last| {
        calls += add(scratch, first, last, counters);
    });
    calls
}

/// Gives a range of pages back, or where it isn't all memory those pages of it that are.
fn add(scratch: &mut IoVecs, first: u32, last: u32, counters: &Counters) -> usize {
    let bytes = |first, last| usize::try_from((u64::from(last - first) + 1) * PAGE).unwrap_or(0);
    let address = |page: u32| GuestAddress(u64::from(page) * PAGE);
    scratch.clear();
    if scratch.push(address(first), bytes(first, last)).is_err() {
        scratch.clear();
        for page in first..=last {
            // A page is in memory or outside, since regions are whole pages.
            let _ = scratch.push(address(page), bytes(page, page));
        }
    }
    let mut calls = 1;
    while scratch.bytes() > 0 {
        counters.add(INFLATED_BYTES, scratch.discard(MOST) as u64);
        calls += 1;
    }
    calls
}

/// Sorts numbers and tells of each run of them: its first and last.
fn ranges(pages: &mut [u32], mut range: impl FnMut(u32, u32)) {
    pages.sort_unstable();
    let mut run: Option<(u32, u32)> = None;
    for page in pages.iter().copied() {
        run = Some(match run {
            Some((first, last)) if page <= last.saturating_add(1) => (first, page),
            Some((first, last)) => {
                range(first, last);
                (page, page)
            }
            None => (page, page),
        });
    }
    if let Some((first, last)) = run {
        range(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Each number is in exactly one range, nothing else is, and no two ranges touch.
        #[test]
        fn ranges_are_the_numbers(
            mut pages in prop::collection::vec(prop_oneof![0u32..40, Just(u32::MAX), any::<u32>()], 0..60),
        ) {
            let expected: BTreeSet<u32> = pages.iter().copied().collect();
            let mut got = Vec::new();
            ranges(&mut pages, |first, last| got.push((first, last)));
            prop_assert!(got.windows(2).all(|pair| u64::from(pair[0].1) + 1 < u64::from(pair[1].0)));
            let all: BTreeSet<u32> = got.iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(all, expected);
        }
    }
}

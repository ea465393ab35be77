//! What the guest tells of its memory (virtio 1.2, 5.5.6.3): pairs of a tag and a number.

use super::{FIRST_STAT, STATS_ANSWERS};
use crate::memory::IoVecs;
use crate::virtio::Counters;

/// The counters of the tags 0 to 15.
pub(super) const NAMES: [&str; 16] = [
    "swap_in",
    "swap_out",
    "major_faults",
    "minor_faults",
    "free_memory",
    "total_memory",
    "available_memory",
    "disk_caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "alloc_stalls",
    "async_scans",
    "direct_scans",
    "async_reclaims",
    "direct_reclaims",
];
/// A tag of 2 bytes and a number of 8, packed.
const PAIR: usize = 10;
/// Most pairs of one answer.
const MOST: usize = 64;

/// Notes an answer; tells that it took one call.
pub(super) fn note(answer: &mut IoVecs, counters: &Counters) -> usize {
    let mut bytes = [0; MOST * PAIR];
    let count = answer.take(&mut bytes);
    for pair in bytes[..count].chunks_exact(PAIR) {
        let tag = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
        let value = pair[2..].try_into().map_or(0, u64::from_le_bytes);
        if tag < NAMES.len() {
            counters.set(FIRST_STAT + tag, value);
        }
    }
    if count >= PAIR {
        counters.add(STATS_ANSWERS, 1);
    }
    1
}

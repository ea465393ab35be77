//! What a hostile service prints, through lines into a ring: bounded, whole characters, numbered without gaps.
#![no_main]
#![allow(dead_code, unreachable_pub, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/journal/mod.rs"]
mod journal;
#[path = "../../src/supervise/mod.rs"]
mod supervise;
#[path = "../../src/unit/mod.rs"]
mod unit;

use journal::{Journal, Lines, Rules};
use supervise::UnitId;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (ring, piece, bytes) = input;
    let rules = Rules { ring: usize::from(ring), ..Rules::SERVICE };
    let unit = UnitId(1);
    let mut journal = Journal::new(false);
    journal.open(0, unit, "noisy".to_owned(), &rules);
    let mut lines = Lines::default();
    let mut mirrored = 0_u64;
    for (now, piece) in bytes.chunks(usize::from(piece).max(1)).enumerate() {
        journal.take(now as u64, unit, &mut lines, piece, &mut |_, _, _| mirrored += 1);
        assert!(journal.bytes(unit) <= rules.ring);
    }
    journal.end(0, unit, &mut lines, &mut |_, _, _| mirrored += 1);
    assert!(mirrored <= journal.newest(unit) + 1);

    // A reader that asks again and again gets each line that is still held once, in order.
    let (mut after, mut told) = (0, 0);
    while after < journal.newest(unit) {
        let page = journal.after(unit, after, 1000);
        told += page.missed;
        for entry in &page.entries {
            told += 1;
            assert_eq!(entry.cursor, told);
            assert!(!entry.text.contains('\n') && entry.level < 8);
        }
        after = page.entries.last().map_or(journal.newest(unit), |entry| entry.cursor);
        assert_eq!(after, told);
    }
});

//! What a cut left on one of its two disks alone.
//!
//! ```text
//!  make     record on a ─┃─ record on b     a has the volume, b's files are swept up: b is stale, made anew when it is used
//!  take     record on a ─┃─ record on b     ┐ the snapshot lies on one of them alone: the other copy of what is made
//!  forget   none on a   ─┃─ none on b       ┘ of it is written anew
//! ```
//! None of it was acknowledged, and all of it is found when both disks are here. Without this the volume would say that it
//! is whole, and could not be opened.

use super::Table;
use super::files::Files;
use super::record::{self, Standing};

impl Table {
    /// Looks at each volume and snapshot with a place on a pool that is here and has nothing of it. Gives what could not
    /// be written, in words.
    pub(super) fn mend_halves(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let pools = &self.pools;
        for ((twin, name), entry) in &mut self.entries {
            let files = |pool: &String| Some(Files::of(&pools.get(pool)?.root, twin, name));
            let lacks = |pool: &String, of: &dyn Fn(Files) -> Files| {
                files(pool).is_some_and(|files| !of(files).has_record())
            };
            for shot in entry.shots.values_mut() {
                let of = |files: Files| files.snapshot(&shot.name);
                shot.legs.retain(|pool| !lacks(pool, &of));
            }
            let Standing::Leads(record) = &entry.standing else { continue };
            if entry.making || entry.moving {
                continue;
            }
            let (without, with): (Vec<String>, Vec<String>) =
                record.legs.iter().filter(|pool| record.is_whole(pool)).cloned().partition(
                    |pool| !entry.copies.contains_key(pool) && lacks(pool, &|files| files),
                );
            if without.is_empty() || !with.iter().any(|pool| entry.copies.contains_key(pool)) {
                continue;
            }
            let mut record = record.as_ref().clone();
            record.stale.extend(without);
            record.sequence += 1;
            tracing::warn!(
                "volume {name} of {}: it was half made on {}, and is made anew there",
                twin.short(),
                record.stale.join(", ")
            );
            for (pool, copy) in &mut entry.copies {
                let Some(files) = files(pool).filter(|_| record.legs.contains(pool)) else {
                    continue;
                };
                match files.write_record(&record) {
                    Ok(()) => copy.clone_from(&record),
                    Err(error) => wrong.push(format!("{name}: {error}")),
                }
            }
            entry.standing = record::lead(&entry.copies);
        }
        wrong
    }
}

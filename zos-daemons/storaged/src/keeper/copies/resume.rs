//! Over a restart of storaged: what is remembered of the copies, and how they are known again.
//!
//! ```text
//!  a step ─▶ remembered: which copies, where each is shown, also lost ones ─▶ jobs begin
//!                                          │ storaged dies anywhere
//!  headers, as they are now ─▶ lead ───────┴▶ the set; what isn't in it is hidden
//! ```

use std::time::Duration;

use super::super::{Entry, Job, Keeper, KnownCopy, Work, sooner};
use crate::copies::set::Copy;
use crate::copies::{self, Generation, Here, Lead, Mark, Set};
use crate::disk::header::Header;

impl Keeper {
    pub(in crate::keeper) fn known_copies(&self) -> Vec<KnownCopy> {
        let Some(set) = &self.copies.set else { return self.copies.known.clone() };
        let used = set.members().iter().chain(set.filling()).map(|copy| &copy.pool);
        let lost = self.copies.places.keys().filter(|pool| set.coming(pool).is_none());
        let known = used.chain(lost).filter_map(|pool| {
            let place = *self.copies.places.get(pool)?;
            Some(KnownCopy { pool: pool.clone(), coming: set.coming(pool), place })
        });
        known.collect()
    }

    /// After a restart of storaged: the copies that it knew, by what their headers say now.
    pub(super) fn resume(
        &mut self,
        now: Duration,
        jobs: &mut Vec<Job>,
        wake: &mut Option<Duration>,
    ) {
        if self.copies.set.is_some() || self.copies.known.is_empty() || !self.listed {
            return;
        }
        let read = |entry: &Entry| {
            let busy = matches!(
                entry.work,
                Work::Probing | Work::Opening | Work::Owning | Work::Open { owning: true }
            );
            entry.boot_medium || entry.verdict.is_some() && !busy
        };
        if !self.entries.values().all(read) {
            return;
        }
        let used = |copy: &KnownCopy| {
            let coming =
                copy.coming.filter(|_| self.holder(&copy.pool).is_some_and(Entry::is_open));
            coming.map(|coming| Copy { pool: copy.pool.clone(), coming })
        };
        let known: Vec<Copy> = self.copies.known.iter().filter_map(used).collect();
        let headers = known.iter().filter_map(|copy| self.header_of(&copy.pool));
        // One that says it carries none was lost, and is no history of its own.
        let headers = headers.filter(|header| header.state);
        let headers: Vec<&Header> = headers.collect();
        let marks: Vec<Mark> = headers.iter().map(|header| Mark::of(header)).collect();
        let here = headers.iter().zip(&marks).map(|(header, mark)| Here {
            pool: &header.pool,
            mark,
            members: &header.state_pools,
        });
        let here: Vec<Here<'_>> = here.collect();
        let Lead::Copies { pools, renewed, .. } = copies::lead(&here, None, Generation::draw())
        else {
            return;
        };
        if let Some(mark) = renewed {
            match self.copies.again.get(&pools[0]) {
                Some(again) if *again > now => sooner(wake, *again),
                _ => self.inscribe_first(&pools[0], mark, jobs),
            }
            return;
        }
        let Some(mark) = self.header_of(&pools[0]).map(Mark::of) else { return };
        let members = known.into_iter().filter(|copy| pools.contains(&copy.pool)).collect();
        // Also of those that are no copies any more: they are shown still.
        for copy in std::mem::take(&mut self.copies.known) {
            self.copies.places.insert(copy.pool.clone(), copy.place);
            self.note_disk(&copy.pool);
        }
        self.copies.set = Some(Set::new(mark, members));
    }
}

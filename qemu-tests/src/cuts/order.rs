//! Which cuts over several disks are cuts at one moment.
//!
//! ```text
//!  disk 0   w w F ┃ w w F w ┃ w w          ┃ moments: so far were both logs at once
//!  disk 1   w F   ┃ w w w   ┃ F w
//!                   ╵   ╵                  a cut between two: of each disk any part, but ...
//! ```
//! What a node does on one disk because of another comes after a flush there was answered: all else may be lost by the
//! cut whatever it did. So a cut between two moments is one that can be if no flush that it leaves out, of one disk,
//! stands before something that it holds, of another. In which order two disks came between two moments nobody
//! knows; where a flush is left out, the other disk gives up what it had after the moment before.

use anyhow::Result;

use super::chance::Chance;
use super::recording::Recording;

/// What is known of the order of several logs.
#[derive(Clone, Debug)]
pub struct Order {
    moments: Vec<Vec<usize>>,
    /// What was asked for and acknowledged: from, to.
    spans: Vec<(Vec<usize>, Vec<usize>)>,
    /// The flushes of each disk, by entry.
    flushes: Vec<Vec<usize>>,
}

impl Order {
    /// That of a recording.
    pub fn of(recording: &Recording) -> Result<Self> {
        let logs = recording.logs()?;
        let flushes = logs.iter().map(|(log, _)| {
            let flushes = log.entries.iter().enumerate().filter(|(_, e)| e.flush || e.fua);
            flushes.map(|(index, _)| index).collect()
        });
        let facts = recording.facts.0.iter();
        Ok(Self {
            moments: recording.moments.clone(),
            spans: facts.filter_map(|f| Some((f.begun.clone(), f.done.clone()?))).collect(),
            flushes: flushes.collect(),
        })
    }

    /// A moment by chance, most of them while something was asked for.
    pub fn draw(&self, chance: &mut Chance) -> Vec<usize> {
        let Some(last) = self.moments.last() else { return Vec::new() };
        match chance.below(4) {
            // Right when something was acknowledged: nothing of it may be missing.
            0 if !self.spans.is_empty() => self.spans[chance.place(self.spans.len())].1.clone(),
            // While something was asked for.
            1 | 2 if !self.spans.is_empty() => {
                let (begun, done) = &self.spans[chance.place(self.spans.len())];
                self.between(begun, done, chance)
            }
            _ => self.between(&vec![0; last.len()], last, chance),
        }
    }

    fn between(&self, from: &[usize], to: &[usize], chance: &mut Chance) -> Vec<usize> {
        // A disk on which something happened, if there is one.
        let busy: Vec<usize> = (0..from.len()).filter(|disk| from[*disk] < to[*disk]).collect();
        let disk = if busy.is_empty() { 0 } else { busy[chance.place(busy.len())] };
        let at = from[disk] + chance.place(to[disk].saturating_sub(from[disk]) + 1);
        self.with(disk, at, chance)
    }

    /// A moment at which one disk had so many entries, or one shortly before.
    pub fn with(&self, disk: usize, at: usize, chance: &mut Chance) -> Vec<usize> {
        let later = self.moments.partition_point(|moment| moment[disk] < at);
        let Some(high) = self.moments.get(later).or(self.moments.last()) else { return Vec::new() };
        let zero = vec![0; high.len()];
        let low = later.checked_sub(1).map_or(&zero, |before| &self.moments[before]);
        let mut any: Vec<usize> =
            (0..high.len()).map(|d| low[d] + chance.place(high[d] - low[d] + 1)).collect();
        any[disk] = at.min(high[disk]);
        let (mut late, mut early) = (high.clone(), low.clone());
        (late[disk], early[disk]) = (any[disk], any[disk]);
        let all = [any, late, early];
        let can_be = all.into_iter().find(|cut| self.can_be(low, high, cut));
        can_be.unwrap_or_else(|| low.clone())
    }

    /// Whether a cut between two moments is one that can be.
    fn can_be(&self, low: &[usize], high: &[usize], cut: &[usize]) -> bool {
        let left_out = |disk: usize| {
            let (from, to) = (cut[disk], high[disk]);
            self.flushes[disk].iter().any(|flush| (from..to).contains(flush))
        };
        (0..cut.len()).all(|disk| {
            let others = (0..cut.len()).filter(|other| *other != disk);
            cut[disk] == low[disk] || !others.into_iter().any(left_out)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two disks in one order: capital letters flush, `a` and `b` say which disk.
    fn order(all: &str, moments: &[usize]) -> Order {
        let of = |disk: char, end: usize| {
            all[..end].chars().filter(|c| c.eq_ignore_ascii_case(&disk)).count()
        };
        let moment = |end: &usize| vec![of('a', *end), of('b', *end)];
        let flushes = ['a', 'b'].map(|disk| {
            let its = all.chars().filter(|c| c.eq_ignore_ascii_case(&disk)).enumerate();
            its.filter(|(_, c)| c.is_uppercase()).map(|(index, _)| index).collect()
        });
        let mut moments: Vec<Vec<usize>> =
            [0, all.len()].iter().chain(moments).map(moment).collect();
        moments.sort();
        moments.dedup();
        Order { moments, spans: Vec::new(), flushes: flushes.into() }
    }

    #[test]
    fn a_flush_that_is_left_out_has_nothing_after_it() {
        let check = |all: &str, cut: [usize; 2], fits: bool| {
            let order = order(all, &[]);
            let (low, high) = (&order.moments[0], &order.moments[1]);
            assert_eq!(order.can_be(low, high, &cut), fits, "{all} {cut:?}");
        };
        check("aabb", [1, 2], true);
        check("aAbb", [2, 1], true);
        check("aAbb", [1, 0], true);
        // Nobody knows which came first, so it might be after the flush.
        check("aAbb", [1, 1], false);
        check("bbaA", [1, 1], false);
        check("aAbB", [2, 1], false);
        check("aAbB", [2, 2], true);
        check("aAbB", [0, 0], true);
    }

    proptest! {
        /// In the true order nothing of a cut comes after a flush of another disk that it leaves out.
        #[test]
        fn cuts_can_be(
            all in "[aAbB]{1,30}", seen in prop::collection::vec(0..30_usize, 0..6),
            second: bool, part in 0..=100_usize, seed: u64,
        ) {
            let seen: Vec<usize> = seen.into_iter().map(|at| at.min(all.len())).collect();
            let order = order(&all, &seen);
            let disk = usize::from(second);
            let at = order.moments.last().unwrap()[disk] * part / 100;
            let cut = order.with(disk, at, &mut Chance::new(seed));
            prop_assert!(cut[disk] <= at || at == 0);
            let mut counts = [0, 0];
            let mut left_out = [false, false];
            for c in all.chars() {
                let disk = usize::from(c.eq_ignore_ascii_case(&'b'));
                let held = counts[disk] < cut[disk];
                counts[disk] += 1;
                prop_assert!(!(held && left_out[1 - disk]), "{all} {cut:?}");
                left_out[disk] |= !held && c.is_uppercase();
            }
        }
    }
}

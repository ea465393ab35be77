//! Which copy of a store leads: the rule alone.
//!
//! ```text
//!  what lies in each place ─▶ lead ─▶ Create        nothing was ever kept
//!                                  ├▶ Lead          the highest sequence; the others are made equal to it
//!                                  ├▶ Newer         a later program wrote one: none is touched
//!                                  └▶ Unreadable    something was kept, and none of it can be read: never afresh
//! ```
//! It holds among the *current* copies, which lie on disks that carry one history (storaged's rule).
//! Each acknowledged transaction is in all of them, so whichever leads has them all.

/// What lies in a place of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing, and nothing was ever put aside.
    Missing,
    /// A whole store.
    Whole {
        /// The schema that it was written with.
        schema: u32,
        /// Its newest transaction.
        sequence: u64,
    },
    /// A store that can't be read, or only what was put aside as such.
    Unreadable,
}

/// What is to be done, by the places' indices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// An empty store is made in every place.
    Create,
    /// One leads.
    Lead {
        /// Which.
        lead: usize,
        /// Those that are to be made equal to it first.
        renew: Vec<usize>,
    },
    /// This one was written by a later program: nothing is touched.
    Newer(usize),
    /// Nothing that is there can be read: nothing is touched.
    Unreadable,
}

/// Decides. `schema` is the newest that this program knows.
pub fn lead(found: &[Found], schema: u32) -> Plan {
    let newer = |found: &Found| matches!(found, Found::Whole { schema: of, .. } if *of > schema);
    if let Some(newer) = found.iter().position(newer) {
        return Plan::Newer(newer);
    }
    let mut best: Option<(usize, u64)> = None;
    for (index, found) in found.iter().enumerate() {
        if let Found::Whole { sequence, .. } = *found
            && best.is_none_or(|(_, most)| sequence > most)
        {
            best = Some((index, sequence));
        }
    }
    match best {
        Some((lead, _)) => {
            let others = (0..found.len()).filter(|index| found[*index] != found[lead]);
            Plan::Lead { lead, renew: others.collect() }
        }
        None if found.iter().all(|found| *found == Found::Missing) => Plan::Create,
        None => Plan::Unreadable,
    }
}

/// What became of a transaction that was written to each copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// Every copy has it, or those that have not are to be declared lost first (by index).
    Durable(Vec<usize>),
    /// No current copy has it.
    Nowhere,
}

/// Judges a write by what became of it in each place: whether the place is current, and whether it has the write.
pub fn judge(places: &[(bool, bool)]) -> Written {
    if !places.iter().any(|(current, written)| *current && *written) {
        return Written::Nowhere;
    }
    Written::Durable((0..places.len()).filter(|index| !places[*index].1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        use Found::{Missing, Unreadable};
        let whole = |schema, sequence| Found::Whole { schema, sequence };
        let led = |lead, renew: &[usize]| Plan::Lead { lead, renew: renew.to_vec() };
        let check = |found: &[Found], plan: Plan| assert_eq!(lead(found, 2), plan, "{found:?}");
        check(&[Missing], Plan::Create);
        check(&[Missing, Missing], Plan::Create);
        check(&[whole(2, 0)], led(0, &[]));
        check(&[whole(2, 7), whole(2, 7)], led(0, &[]));
        check(&[whole(2, 6), whole(2, 7)], led(1, &[0]));
        check(&[whole(2, 7), whole(2, 6)], led(0, &[1]));
        check(&[whole(2, 0), Missing], led(0, &[1]));
        check(&[Missing, whole(2, 0)], led(1, &[0]));
        check(&[Unreadable, whole(2, 3)], led(1, &[0]));
        check(&[whole(1, 3), whole(2, 4)], led(1, &[0]));
        check(&[whole(1, 3)], led(0, &[]));
        check(&[Unreadable], Plan::Unreadable);
        check(&[Unreadable, Missing], Plan::Unreadable);
        check(&[Missing, Unreadable], Plan::Unreadable);
        check(&[Unreadable, Unreadable], Plan::Unreadable);
        check(&[whole(2, 9), whole(3, 1)], Plan::Newer(1));
        check(&[Unreadable, whole(3, 1)], Plan::Newer(1));
    }

    #[test]
    fn a_write_is_durable_when_one_current_copy_has_it() {
        let check = |places: &[(bool, bool)], written| assert_eq!(judge(places), written);
        check(&[(true, true)], Written::Durable(vec![]));
        check(&[(true, true), (true, true)], Written::Durable(vec![]));
        check(&[(true, false), (true, true)], Written::Durable(vec![0]));
        check(&[(true, true), (false, false)], Written::Durable(vec![1]));
        check(&[(true, false), (false, true)], Written::Nowhere);
        check(&[(true, false)], Written::Nowhere);
    }
}

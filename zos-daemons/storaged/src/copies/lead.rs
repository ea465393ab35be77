//! Which of the copies that are here lead: the rule of a boot.

use std::collections::{BTreeMap, BTreeSet};

use super::mark::{Generation, Mark};

/// A pool with a copy that is here.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// The pool.
    pub pool: &'a str,
    /// Its mark.
    pub mark: &'a Mark,
    /// The pools that it names as those with the state.
    pub members: &'a [String],
}

/// What the copies that are here come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lead {
    /// There is none.
    None,
    /// The farmer's choice, each history with one of its pools: several went on without each other, or the newest
    /// is here only as a copy that was being filled.
    Torn(Vec<(Generation, String)>),
    /// These lead, whole and of one history: one pool, or two.
    Copies {
        /// The pools.
        pools: Vec<String>,
        /// What the first one's header must say, durably, before anything is served: it goes on
        /// without a copy that it names. Then it leads alone.
        renewed: Option<Mark>,
        /// The pools that the farmer set aside by it, whose headers must say before that, durably, that they are
        /// not whole: one that was to lead alone later would go on in a history that is over.
        aside: Vec<String>,
    },
}

/// Decides. `fresh` is the generation that is begun if one is; `word` is the farmer's: the history that
/// is to lead where the marks leave it open.
pub fn lead(here: &[Here<'_>], word: Option<Generation>, fresh: Generation) -> Lead {
    let mut histories: BTreeMap<Generation, Vec<&Here<'_>>> = BTreeMap::new();
    for copy in here {
        histories.entry(copy.mark.generation).or_default().push(copy);
    }
    let whole = |generation: &Generation| -> Vec<&Here<'_>> {
        histories[generation].iter().filter(|copy| copy.mark.whole).copied().collect()
    };
    // One that is being filled holds nothing to rely on, and yet shows how far history went.
    let is_behind = |generation: &Generation| here.iter().any(|c| c.mark.past.contains(generation));
    let tips: Vec<Generation> = histories.keys().filter(|g| !is_behind(g)).copied().collect();
    if let [tip] = tips[..]
        && let copies = whole(&tip)
        && !copies.is_empty()
    {
        return among(&copies, here, fresh);
    }
    if here.is_empty() {
        return Lead::None;
    }
    let leads_without_word = |tip: &Generation| !whole(tip).is_empty();
    let choices = histories.iter().filter(|(generation, _)| {
        tips.contains(generation) || !tips.iter().all(leads_without_word)
    });
    let choices = choices.map(|(generation, copies)| {
        (*generation, whole(generation).first().copied().unwrap_or(copies[0]))
    });
    let choices: Vec<(Generation, &Here<'_>)> = choices.collect();
    match choices.iter().find(|(generation, _)| Some(*generation) == word) {
        Some((_, copy)) => chosen(copy, here, fresh),
        None => Lead::Torn(choices.iter().map(|(g, copy)| (*g, copy.pool.to_owned())).collect()),
    }
}

/// Those of one history: together if each that any of them names is here.
fn among(copies: &[&Here<'_>], here: &[Here<'_>], fresh: Generation) -> Lead {
    let pools: BTreeSet<&str> = copies.iter().map(|copy| copy.pool).collect();
    let mut named = copies.iter().flat_map(|copy| copy.members);
    // A pool that is here twice is two disks, of which neither can be told from the other: not here.
    let complete = named.all(|pool| pools.contains(pool.as_str())) && pools.len() == copies.len();
    if !complete {
        return alone(copies[0], here, fresh);
    }
    let pools = copies.iter().map(|copy| copy.pool.to_owned()).collect();
    Lead::Copies { pools, renewed: None, aside: Vec::new() }
}

/// One goes on by the farmer's word, and what isn't behind it already is from then on.
fn chosen(copy: &Here<'_>, here: &[Here<'_>], fresh: Generation) -> Lead {
    let is_other =
        |mark: &Mark| mark.generation != copy.mark.generation && !copy.mark.is_after(mark);
    let others = here.iter().filter(|other| other.mark.whole && is_other(other.mark));
    let others: Vec<String> = others.map(|other| other.pool.to_owned()).collect();
    match alone(copy, here, fresh) {
        Lead::Copies { pools, renewed, .. } => Lead::Copies { pools, renewed, aside: others },
        other => other,
    }
}

/// One goes on without the others.
fn alone(copy: &Here<'_>, here: &[Here<'_>], fresh: Generation) -> Lead {
    let others: Vec<&Mark> =
        here.iter().filter(|other| other.pool != copy.pool).map(|other| other.mark).collect();
    let mut mark = copy.mark.next(&others, fresh);
    if !copy.mark.whole {
        // Whoever it was filled from may not know of it, and go on in that generation: it isn't behind.
        let passed = others.iter().any(|other| other.past.contains(&copy.mark.generation));
        mark.past.retain(|generation| passed || *generation != copy.mark.generation);
    }
    Lead::Copies { pools: vec![copy.pool.to_owned()], renewed: Some(mark), aside: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Generation = Generation(99);

    fn mark(generation: u64, past: &[u64]) -> Mark {
        let past: Vec<Generation> = past.iter().copied().map(Generation).collect();
        let first = Mark::first(Generation(generation));
        Mark { epoch: past.len() as u64 + 1, past, ..first }
    }

    fn whole(
        pool: &str,
        members: &str,
        generation: u64,
        past: &[u64],
    ) -> (String, Mark, Vec<String>) {
        let members = members.chars().map(|c| c.to_string()).collect();
        (pool.to_owned(), mark(generation, past), members)
    }

    fn filling(pool: &str, members: &str, generation: u64) -> (String, Mark, Vec<String>) {
        let (pool, mark, members) = whole(pool, members, generation, &[]);
        (pool, mark.filling(), members)
    }

    #[test]
    fn boots() {
        let check = |here: &[(String, Mark, Vec<String>)], word: Option<u64>, expected: &str| {
            let here: Vec<Here<'_>> =
                here.iter().map(|(pool, mark, members)| Here { pool, mark, members }).collect();
            let histories = |list: Vec<(Generation, String)>| {
                list.into_iter().map(|(g, pool)| format!(" {}:{pool}", g.0)).collect::<String>()
            };
            let decided = lead(&here, word.map(Generation), FRESH);
            let said = match decided.clone() {
                Lead::None => "none".to_owned(),
                Lead::Torn(list) => format!("torn{}", histories(list)),
                Lead::Copies { pools, renewed: None, .. } => pools.concat(),
                Lead::Copies { pools, renewed: Some(mark), aside } => {
                    assert!(mark.whole && mark.generation == FRESH);
                    // Whatever else is here is behind from now on.
                    let others = here.iter().filter(|copy| copy.pool != pools[0]);
                    assert!(others.clone().all(|copy| mark.is_after(copy.mark)));
                    let aside: String = aside.iter().map(|pool| format!(" not {pool}")).collect();
                    format!("{} renewed{aside}", pools.concat())
                }
            };
            assert_eq!(said, expected, "{here:?}");
        };
        check(&[], None, "none");
        check(&[whole("p", "p", 1, &[])], None, "p");
        // both are here
        check(&[whole("p", "pq", 1, &[]), whole("q", "pq", 1, &[])], None, "pq");
        // one is not
        check(&[whole("p", "pq", 1, &[])], None, "p renewed");
        check(&[whole("q", "pq", 1, &[])], None, "q renewed");
        // one went on alone: the other is behind, however the farmer's old word goes
        let (p, q) = (whole("p", "p", 2, &[1]), whole("q", "pq", 1, &[]));
        check(&[p.clone(), q.clone()], None, "p");
        check(&[q.clone(), p.clone()], Some(1), "p");
        // both went on alone
        let torn = [whole("p", "p", 2, &[1]), whole("q", "q", 3, &[1])];
        check(&torn, None, "torn 2:p 3:q");
        check(&torn, Some(3), "q renewed not p");
        check(&torn, Some(1), "torn 2:p 3:q");
        // one alone, then the other, which was further: no matter how far
        check(&[whole("p", "p", 5, &[1, 2, 4]), whole("q", "q", 3, &[1])], None, "torn 3:q 5:p");
        // two disks of two nodes' making, of an older ZOS
        check(&[whole("p", "p", 1, &[]), whole("q", "q", 2, &[])], None, "torn 1:p 2:q");
        // being filled
        check(&[whole("p", "p", 1, &[]), filling("q", "p", 1)], None, "p");
        check(&[whole("p", "pq", 1, &[]), filling("q", "p", 1)], None, "p renewed");
        check(&[filling("q", "p", 1)], None, "torn 1:q");
        check(&[filling("q", "p", 1)], Some(1), "q renewed");
        check(&[filling("q", "p", 1)], Some(2), "torn 1:q");
        // a whole one that is behind one that was being filled: what is between is elsewhere
        let (_, mark, members) = whole("r", "p", 2, &[1]);
        let behind = [whole("q", "q", 1, &[]), ("r".to_owned(), mark.filling(), members)];
        check(&behind, None, "torn 1:q 2:r");
        check(&behind, Some(1), "q renewed");
        check(&behind, Some(2), "r renewed");
        // a third one that is behind
        let both = [whole("p", "pq", 2, &[1]), whole("q", "pq", 2, &[1]), whole("r", "pr", 1, &[])];
        check(&both, None, "pq");
        check(&both[1..], None, "q renewed");
        check(&both[2..], None, "r renewed");
        // a pool that is here twice counts as none of the two
        check(&[whole("p", "pq", 1, &[]), whole("p", "pq", 1, &[])], None, "p renewed");
    }
}

//! Boots as rows: which disks are here since when, and what comes of it.

use super::*;
use crate::disk::header::sample;

fn node(n: u8) -> NodeId {
    // Any seed gives a key; ids come from public keys, which these vectors are.
    let known = [
        "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy",
        "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo",
    ];
    known[usize::from(n)].parse().unwrap()
}

fn state(pool: u64, owner: Option<u8>) -> Verdict {
    Verdict::Ours(Box::new(Header { owner: owner.map(node), ..sample(pool) }))
}

fn copy(pool: u64, generation: u64, past: &[u64], states: &[u64]) -> Verdict {
    let past = past.iter().copied().map(Generation).collect();
    let copy = Some(Mark { past, ..Mark::first(Generation(generation)) });
    let state_pools = states.iter().map(|pool| format!("{pool:016x}")).collect();
    let header = Header { owner: Some(node(0)), copy, state_pools, ..sample(pool) };
    Verdict::Ours(Box::new(header))
}

fn data(pool: u64, owner: u8, states: &[u64]) -> Verdict {
    let state_pools = states.iter().map(|pool| format!("{pool:016x}")).collect();
    let header = Header { owner: Some(node(owner)), state: false, state_pools, ..sample(pool) };
    Verdict::Ours(Box::new(header))
}

fn made_new(pool: u64, owner: u8, instead_of: &[u8]) -> Verdict {
    let instead_of = Some(instead_of.iter().map(|n| node(*n)).collect());
    Verdict::Ours(Box::new(Header { owner: Some(node(owner)), instead_of, ..sample(pool) }))
}

const BROKEN: fn() -> Verdict = || Verdict::Unreadable("I/O error".into());
const TRACE: fn() -> Verdict = || Verdict::Trace("a broken header".into());
const FOREIGN: fn() -> Verdict = || Verdict::Foreign("xfs".into());

/// `disks`: seconds of arrival, and the verdict. Gives when it settles, in seconds, and how.
fn boot(disks: &[(u64, Option<Verdict>)], wanted: Wanted) -> (u64, String) {
    let names: Vec<String> = (0..disks.len()).map(|i| format!("sd{i}")).collect();
    let mut now = Duration::ZERO;
    loop {
        let seen: Vec<Seen<'_>> = disks
            .iter()
            .zip(&names)
            .map(|((arrived, verdict), name)| Seen {
                name,
                arrived: Duration::from_secs(*arrived),
                verdict: verdict.as_ref(),
            })
            .filter(|disk| disk.arrived <= now)
            .collect();
        let word = Word { state: None, fresh: Generation(99) };
        match settle(now, Duration::ZERO, &seen, wanted, word) {
            Outcome::Settled(choice) => {
                let text = match choice {
                    Choice::Pool { pool, second, renewed, refusal, .. } => {
                        let number = |pool: String| u64::from_str_radix(&pool, 16).unwrap();
                        let second = second.map(|pool| format!(" and {}", number(pool)));
                        let second = second.unwrap_or_default();
                        let renewed = if renewed.is_some() { ", renewed" } else { "" };
                        let may = if refusal.is_some() { "" } else { ", may make" };
                        format!("pool {}{second}{renewed}{may}.", number(pool))
                    }
                    Choice::Fresh { instead_of: None } => "fresh".to_owned(),
                    Choice::Fresh { instead_of: Some(nodes) } => {
                        format!("fresh instead of {}", nodes.len())
                    }
                    Choice::Memory { refusal } => format!("memory: {refusal}"),
                };
                return (now.as_secs(), text);
            }
            Outcome::Wait(until) => {
                assert!(until > now, "a wait ends later");
                let next = disks.iter().map(|(at, _)| Duration::from_secs(*at));
                now = next.filter(|at| *at > now && *at < until).min().unwrap_or(until);
            }
        }
    }
}

#[test]
fn boots() {
    let check = |disks: &[(u64, Option<Verdict>)], wanted: Wanted, at: u64, how: &str| {
        let (settled, choice) = boot(disks, wanted);
        assert_eq!(settled, at, "{choice}: {disks:?}");
        assert!(choice.contains(how) && !how.is_empty(), "{choice} is not `{how}`: {disks:?}");
    };
    use Verdict::{Blank, Empty};
    use Wanted::{New, Node, Unsaid};
    // the usual boot waits for nothing
    check(&[(0, Some(state(1, Some(0))))], Unsaid, 0, "pool 1");
    check(&[(0, Some(state(1, Some(0)))), (0, Some(data(2, 0, &[1])))], Unsaid, 0, "pool 1");
    check(
        &[(0, Some(state(1, Some(0)))), (0, Some(Empty)), (0, Some(FOREIGN()))],
        Unsaid,
        0,
        "pool 1",
    );
    // the first boot waits for disks that may come
    check(&[], Unsaid, 5, "fresh");
    check(&[(0, Some(Empty))], Unsaid, 5, "fresh");
    check(&[(0, Some(Blank)), (4, Some(Empty)), (8, Some(Empty))], Unsaid, 13, "fresh");
    // the key 3 s late beside an empty disk: the same node, as soon as it is there
    check(&[(0, Some(Empty)), (3, Some(state(1, Some(0))))], Unsaid, 3, "pool 1");
    // 20 s late: decided without it
    check(&[(0, Some(Empty)), (20, Some(state(1, Some(0))))], Unsaid, 5, "fresh");
    // a trickle of disks ends at 60 s
    let trickle: Vec<_> = (0..30).map(|i| (i * 4, Some(Empty))).collect();
    check(&trickle, Unsaid, 60, "fresh");
    // a disk that is never read through is waited for, but not for ever
    check(&[(0, None), (0, Some(Empty))], Unsaid, 60, "can't be read");
    check(&[(0, None), (0, Some(state(1, Some(0))))], Unsaid, 60, "pool 1");
    // no new identity beside a disk that may hold the old one
    check(&[(0, Some(BROKEN())), (0, Some(Empty))], Unsaid, 5, "sd0 can't be read");
    check(&[(0, Some(TRACE())), (0, Some(Empty))], Unsaid, 5, "sd0 shows a trace");
    check(&[(0, Some(data(2, 0, &[1])))], Unsaid, 5, "the disk with the node's state is not");
    // but beside its own disk a broken one is no matter
    check(&[(0, Some(BROKEN())), (0, Some(state(1, Some(0))))], Unsaid, 0, "pool 1");
    // begun by a boot that ended before the key was kept
    check(&[(0, Some(state(1, None)))], Unsaid, 5, "pool 1, may make");
    check(&[(0, Some(state(1, None))), (0, Some(BROKEN()))], Unsaid, 5, "pool 1");
    check(&[(0, Some(state(1, None))), (0, Some(state(2, Some(1))))], Unsaid, 0, "pool 2");
    check(
        &[(0, Some(state(1, None))), (0, Some(state(2, None)))],
        Unsaid,
        5,
        "several disks hold a state",
    );
    // two copies of one state: both, or one that goes on without the other and says so first
    let pair = [(0, Some(copy(1, 7, &[], &[1, 2]))), (0, Some(copy(2, 7, &[], &[1, 2])))];
    check(&pair, Unsaid, 0, "pool 1 and 2.");
    check(&pair[1..], Unsaid, 5, "pool 2, renewed.");
    check(&[pair[0].clone(), (3, pair[1].1.clone())], Unsaid, 3, "pool 1 and 2.");
    check(&[pair[0].clone(), (30, pair[1].1.clone())], Unsaid, 5, "pool 1, renewed.");
    // one that is behind: not waited for whom it names, and it never leads
    let behind = [(0, Some(copy(1, 7, &[], &[1, 3]))), (0, Some(copy(2, 8, &[7], &[2])))];
    check(&behind, Unsaid, 0, "pool 2.");
    check(&behind, Node(node(0)), 0, "pool 2.");
    // both went on alone: nobody leads without the farmer
    let torn = [(0, Some(copy(1, 9, &[7], &[1]))), (0, Some(copy(2, 8, &[7], &[2])))];
    check(&torn, Unsaid, 5, "0000000000000008 on sd1, 0000000000000009 on sd0");
    check(&torn, Node(node(0)), 5, "several disks hold a state");
    // two nodes' disks: the farmer's choice
    let two = [(0, Some(state(1, Some(0)))), (0, Some(state(2, Some(1))))];
    check(&two, Unsaid, 5, "disks of several nodes");
    check(&two, Node(node(0)), 0, "pool 1");
    check(&two, Node(node(1)), 0, "pool 2");
    check(&two, New, 5, "fresh instead of 2");
    check(&two[1..], Node(node(0)), 5, "no disk with its state");
    // a copy of a disk is not chosen either
    check(
        &[(0, Some(state(1, Some(0)))), (0, Some(state(1, Some(0))))],
        Unsaid,
        5,
        "shows a trace",
    );
    // `new` makes one new identity, not one at each boot
    check(&[(0, Some(Empty))], New, 5, "fresh instead of 0");
    check(&[(0, Some(made_new(1, 0, &[])))], New, 5, "pool 1");
    check(&[(0, Some(state(1, Some(0)))), (0, Some(made_new(2, 1, &[0])))], New, 5, "pool 2");
    check(&[(0, Some(state(1, Some(0)))), (0, Some(made_new(2, 1, &[])))], New, 5, "pool 2");
    check(&[(0, Some(made_new(1, 0, &[]))), (0, Some(made_new(2, 1, &[0])))], New, 5, "pool 2");
    check(&[(0, Some(made_new(1, 0, &[1]))), (0, Some(made_new(2, 1, &[0])))], New, 5, "say which");
    check(&[(0, Some(state(1, Some(0)))), (0, Some(state(2, None)))], New, 5, "pool 2, may make");
    check(&[(0, Some(BROKEN())), (0, Some(Empty))], New, 5, "fresh instead of 0");
}

//! Boots, played through: a machine whose jobs are done by the test, at times of its own.

use std::collections::BTreeMap;

use zos_host::block::Bus;
use zos_types::disk::Role;

use super::*;
use crate::disk::header::{Stage, sample};

pub(super) const X: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";
const Y: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo";

pub(super) fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

pub(super) fn disk(name: &str, gib: u64) -> block::Disk {
    block::Disk {
        name: name.to_owned(),
        kind: Kind::Disk,
        bus: Bus::Nvme,
        device: (259, 0),
        size: gib << 30,
        logical_block: 512,
        physical_block: 512,
        rotational: name.starts_with("sd"),
        removable: false,
        read_only: false,
        model: None,
        serial: None,
        id: name.to_owned(),
        id_is_slot: false,
        holders: Vec::new(),
        partitions: Vec::new(),
    }
}

/// What the disks hold, and when each comes, in seconds.
pub(super) struct Machine {
    pub(super) keeper: Keeper,
    now: u64,
    pub(super) disks: BTreeMap<String, (u64, block::Disk, Verdict)>,
    pub(super) next_pool: u64,
    /// What was written, in order: `adopt nvme0n1 state`, `own nvme0n1 x`.
    pub(super) written: Vec<String>,
    opened: Vec<String>,
    marked: Vec<String>,
    slow: Vec<String>,
    pub(super) fails: Vec<String>,
    /// The pool at each place of the state.
    pub(super) shown: BTreeMap<usize, String>,
    /// What each try to empty a pool leaves on it, the last first.
    left: Vec<String>,
    /// What storaged remembers over a restart.
    kept: Option<Memory>,
    /// After how many steps more storaged dies; none: it lives.
    pub(super) dies: Option<usize>,
    /// Whether the last of the jobs that are begun at once is done first.
    pub(super) turned: bool,
}

impl Machine {
    pub(super) fn new(wanted: Wanted, disks: &[(u64, &str, Verdict)]) -> Self {
        let settings = Settings { adopt: true, wanted, state: None };
        let comes = |(at, name, verdict): &(u64, &str, Verdict)| {
            ((*name).to_owned(), (*at, disk(name, 8), verdict.clone()))
        };
        Self {
            keeper: Keeper::new(settings, None, ["/state".into(), "/mirror".into()], None),
            now: 0,
            disks: disks.iter().map(comes).collect(),
            next_pool: 100,
            written: Vec::new(),
            opened: Vec::new(),
            marked: Vec::new(),
            slow: Vec::new(),
            fails: Vec::new(),
            shown: BTreeMap::new(),
            left: Vec::new(),
            kept: None,
            dies: None,
            turned: false,
        }
    }

    /// What an earlier storaged of this boot left.
    pub(super) fn remember(&mut self, memory: &str) {
        self.kept = serde_json::from_str(memory).unwrap();
    }

    /// storaged starts again in the same boot.
    pub(super) fn restart(&mut self) {
        let memory = serde_json::to_string(&self.kept).unwrap();
        self.remember(&memory);
        let paths = ["/state".into(), "/mirror".into()];
        self.keeper = Keeper::new(self.keeper.settings, None, paths, self.kept.clone());
        self.dies = None;
    }

    /// Whether storaged lives to do one thing more.
    fn step(&mut self) -> bool {
        let lives = self.dies != Some(0);
        self.dies = self.dies.map(|steps| steps.saturating_sub(1));
        lives
    }

    /// Lives until this second.
    pub(super) fn until(&mut self, end: u64) {
        while self.now <= end {
            let here = |(at, ..): &&(u64, block::Disk, Verdict)| *at <= self.now;
            let list = self.disks.values().filter(here).map(|(_, disk, _)| disk.clone()).collect();
            self.event(Event::Disks(list, Vec::new()));
            self.event(Event::Tick);
            self.now += 1;
        }
    }

    /// Lives so many seconds more.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.until(self.now + seconds);
    }

    pub(super) fn event(&mut self, event: Event) {
        let mut events = vec![event];
        if self.dies == Some(0) {
            return;
        }
        while let Some(event) = events.pop() {
            let (mut jobs, _) = self.keeper.handle(Duration::from_secs(self.now), event);
            // As `Life` does it: what is remembered first.
            let memory = self.keeper.memory();
            if memory != self.kept {
                if !self.step() {
                    return;
                }
                self.kept = memory;
            }
            // They are begun at once, so any of them may be done first.
            if self.turned {
                jobs.reverse();
            }
            for job in jobs {
                if !self.step() {
                    return;
                }
                events.extend(self.work(job));
            }
        }
    }

    fn work(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Probe(key) => {
                let verdict = match &self.disks[&key.name].2 {
                    Verdict::Empty => Verdict::Blank,
                    other => other.clone(),
                };
                Some(Event::Judged(key, verdict))
            }
            Job::Mark(key) => {
                let whole = match &self.disks[&key.name].2 {
                    Verdict::Foreign(what) => vec![what.clone()],
                    Verdict::Ours(_) => vec!["pool of ZOS".to_owned()],
                    _ => Vec::new(),
                };
                self.marked.push(key.name.clone());
                Some(Event::Marked(key, Marks { whole, partitions: Vec::new() }))
            }
            Job::Sample(key) if self.slow.contains(&key.name) => None,
            Job::Sample(key) => {
                let verdict = self.disks[&key.name].2.clone();
                Some(Event::Judged(key, verdict))
            }
            Job::Adopt(key, _) | Job::Open(key, _) if self.fails.contains(&key.name) => {
                Some(Event::Opened(key, Err("I/O error".into())))
            }
            Job::Adopt(key, plan) => {
                self.next_pool += 1;
                let header = laid(self.next_pool, &plan);
                self.written.push(format!(
                    "adopt {}{}",
                    key.name,
                    if plan.state { " state" } else { "" }
                ));
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Ours(Box::new(header.clone()));
                Some(Event::Opened(key.clone(), Ok(Box::new(self.pool(&key, header)))))
            }
            Job::Open(key, header) => {
                self.opened.push(key.name.clone());
                Some(Event::Opened(key.clone(), Ok(Box::new(self.pool(&key, *header)))))
            }
            Job::Own(key, header, owner) => {
                self.written.push(format!("own {} {}", key.name, &owner.to_string()[..1]));
                let header = Header { owner: Some(owner), ..*header };
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Ours(Box::new(header.clone()));
                Some(Event::Owned(key, Ok(Box::new(header))))
            }
            Job::Take(key, ..) if self.fails.contains(&key.name) => {
                let why = NotTaken::Refused("it has changed".into());
                Some(Event::Taken(key, Err(why)))
            }
            Job::Take(key, plan, word) => {
                self.next_pool += 1;
                let header = laid(self.next_pool, &plan);
                let state = if plan.state { " state" } else { "" };
                self.written.push(format!("take {} by {word}{state}", key.name));
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Ours(Box::new(header.clone()));
                Some(Event::Taken(key.clone(), Ok(Box::new(self.pool(&key, header)))))
            }
            Job::Leave(key, header) => {
                self.written.push(format!("leave {}", key.name));
                let header = Header { stage: Stage::Leaving, ..*header };
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Ours(Box::new(header.clone()));
                Some(Event::Owned(key, Ok(Box::new(header))))
            }
            Job::Drain(key, _) => {
                let left = self.left.pop().map_or(Ok(()), Err);
                Some(Event::Drained(key, left))
            }
            Job::Wipe(key, _) if self.fails.contains(&key.name) => {
                Some(Event::Wiped(key, Err("I/O error".into())))
            }
            Job::Wipe(key, header) => {
                let shown = self.shown.values().any(|pool| *pool == header.pool);
                assert!(!shown, "{} is mounted", key.name);
                self.written.push(format!("wipe {}", key.name));
                let header = Box::new(Header { stage: Stage::Released, ..*header });
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Released(header.clone());
                Some(Event::Wiped(key, Ok(header)))
            }
            Job::Prepare(pool) => {
                self.shown.extend(pool.map(|pool| (0, pool)));
                Some(Event::Prepared(Ok(())))
            }
            Job::Inscribe(key, _) if self.fails.contains(&format!("write {}", key.name)) => {
                Some(Event::Inscribed(key, Err("I/O error".into())))
            }
            Job::Inscribe(key, header) => {
                let mark = header.copy.clone();
                let how = match &mark {
                    Some(mark) if mark.whole => "whole",
                    Some(_) => "filling",
                    None => "record",
                };
                let pools: Vec<&str> =
                    header.state_pools.iter().map(|pool| pool.trim_start_matches('0')).collect();
                let epoch = mark.map_or(String::new(), |mark| format!(" {}", mark.epoch));
                self.written.push(format!("{how}{epoch} {} {}", key.name, pools.join("+")));
                self.disks.get_mut(&key.name).unwrap().2 = Verdict::Ours(header.clone());
                Some(Event::Inscribed(key, Ok(header)))
            }
            Job::Show(pool, place) => {
                let shown = self.shown.insert(place, pool.clone());
                assert!(shown.is_none(), "{pool} is shown over {shown:?}");
                Some(Event::Shown(pool, Ok(())))
            }
            Job::Hide(place) => {
                self.shown.remove(&place);
                Some(Event::Hidden(place, Ok(())))
            }
        }
    }

    fn pool(&self, key: &DiskKey, header: Header) -> Pool {
        let disk = &self.disks[&key.name].1;
        let (class, root) = (pool::class(disk), "/run/zos/pools".into());
        Pool { header, disk: key.name.clone(), class, block: 512, root }
    }

    pub(super) fn identity(&mut self, text: &str) {
        let durable = self.keeper.settled().unwrap().durable;
        self.event(Event::Identity(node(text), !durable));
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.keeper.faults().into_iter().map(|fault| fault.id).collect()
    }

    fn role(&self, name: &str) -> Role {
        self.keeper.disks().into_iter().find(|disk| disk.name == name).unwrap().role
    }
}

/// The header of a pool that is made by a plan.
fn laid(pool: u64, plan: &Plan) -> Header {
    let sample = sample(pool);
    let own = plan.state.then(|| sample.pool.clone());
    Header {
        owner: plan.owner,
        state: plan.state,
        copy: plan.state.then(|| Mark::first(Generation(pool))),
        state_pools: plan.state_pools.iter().cloned().chain(own).collect(),
        instead_of: plan.instead_of.clone(),
        ..sample
    }
}

pub(super) fn state(pool: u64, owner: Option<&str>) -> Verdict {
    Verdict::Ours(Box::new(Header { owner: owner.map(node), ..sample(pool) }))
}

#[test]
fn the_first_boot_takes_an_empty_disk_and_the_second_finds_it() {
    let mut first = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", Verdict::Empty)]);
    first.until(4);
    assert!(first.keeper.settled().is_none() && first.written.is_empty());
    first.until(6);
    let settled = first.keeper.settled().unwrap();
    assert!(settled.durable && settled.identity_refusal.is_none());
    first.identity(X);
    assert_eq!(first.written, ["adopt nvme0n1 state", "own nvme0n1 y"]);
    assert!(first.faults().is_empty(), "{:?}", first.faults());
    assert!(first.keeper.is_steady());

    let kept = first.disks["nvme0n1"].2.clone();
    let mut second = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", kept)]);
    second.until(0);
    let settled = second.keeper.settled().unwrap();
    assert!(settled.durable && settled.identity_refusal.is_some());
    second.identity(X);
    assert_eq!((second.written.len(), second.opened), (0, vec!["nvme0n1".to_owned()]));
}

#[test]
fn the_better_disk_takes_the_state_and_the_others_follow() {
    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(6);
    assert_eq!(machine.written, ["adopt nvme0n1 state"]);
    machine.identity(X);
    assert_eq!(
        machine.written,
        ["adopt nvme0n1 state", "own nvme0n1 y", "adopt sda", "filling 1 sda 65"]
    );
    // A late one too, and a foreign one never.
    machine.disks.insert("sdb".into(), (20, disk("sdb", 8), Verdict::Empty));
    machine.disks.insert("sdc".into(), (20, disk("sdc", 8), Verdict::Foreign("xfs".into())));
    machine.until(21);
    assert_eq!(machine.written[4..], ["adopt sdb"]);
    assert_eq!(machine.faults(), ["storage.foreign-disk:sdc"]);
    assert_eq!(machine.role("sdc"), Role::Foreign);
}

#[test]
fn a_solid_state_disk_that_is_still_looked_through_is_waited_for() {
    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.slow.push("nvme0n1".into());
    machine.until(30);
    assert!(machine.written.is_empty() && machine.keeper.settled().is_none());
    let key = machine.keeper.entries["nvme0n1"].key.clone();
    machine.event(Event::Judged(key, Verdict::Empty));
    assert_eq!(machine.written, ["adopt nvme0n1 state"]);
}

#[test]
fn the_key_that_comes_3_s_late_is_the_nodes_key() {
    let disks = [(0, "nvme0n1", Verdict::Empty), (3, "sda", state(1, Some(X)))];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(3);
    assert!(machine.keeper.settled().unwrap().identity_refusal.is_some());
    machine.identity(X);
    // then the empty one is just another pool of the same node
    assert_eq!(
        (machine.opened, machine.written),
        (
            vec!["sda".to_owned()],
            vec!["adopt nvme0n1".to_owned(), "filling 0 nvme0n1 1".to_owned()]
        )
    );
}

#[test]
fn the_key_that_comes_20_s_late_is_a_shown_conflict_and_is_left_alone() {
    let disks = [(0, "nvme0n1", Verdict::Empty), (20, "sda", state(1, Some(X)))];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(6);
    machine.identity(Y);
    machine.until(30);
    assert_eq!(machine.written, ["adopt nvme0n1 state", "own nvme0n1 f"]);
    assert!(machine.opened.is_empty());
    assert_eq!(machine.faults(), ["storage.identity-conflict:sda"]);
    let detail = &machine.keeper.faults()[0].detail;
    assert!(
        detail.contains(X) && detail.contains(Y) && detail.contains("zos.identity="),
        "{detail}"
    );
    assert_eq!(machine.role("sda"), Role::OtherNode);

    // The next boot sees both and chooses neither; the farmer does.
    let verdict = |name: &str| machine.disks[name].2.clone();
    let both = [(0, "nvme0n1", verdict("nvme0n1")), (0, "sda", verdict("sda"))];
    let mut next = Machine::new(Wanted::Unsaid, &both);
    next.until(6);
    assert!(!next.keeper.settled().unwrap().durable);
    next.identity("yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy");
    assert!(next.faults().contains(&"storage.state-in-memory".to_owned()));
    let mut chosen = Machine::new(Wanted::Node(node(X)), &both);
    chosen.until(0);
    chosen.identity(X);
    assert_eq!(chosen.opened, ["sda"]);
    assert_eq!(chosen.faults(), ["storage.identity-conflict:nvme0n1"]);
    assert!(next.written.is_empty() && chosen.written.is_empty());
}

#[test]
fn without_a_disk_the_state_is_memory_and_a_late_one_waits_for_the_next_boot() {
    let mut machine = Machine::new(Wanted::Unsaid, &[(30, "nvme0n1", Verdict::Empty)]);
    machine.until(6);
    assert!(!machine.keeper.settled().unwrap().durable);
    machine.identity(X);
    assert_eq!(machine.faults(), ["storage.no-disk"]);
    machine.until(31);
    assert!(machine.written.is_empty());
    assert_eq!(machine.faults(), ["storage.empty-disk-waits:nvme0n1", "storage.no-disk"]);
}

#[test]
fn adoption_can_be_forbidden_and_can_fail() {
    let mut machine = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", Verdict::Empty)]);
    machine.keeper.settings.adopt = false;
    machine.until(6);
    assert_eq!((machine.written.len(), machine.faults()), (0, vec!["storage.no-disk".to_owned()]));
    assert_eq!(machine.role("nvme0n1"), Role::Empty);

    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.fails.push("nvme0n1".into());
    machine.until(6);
    assert_eq!(machine.written, ["adopt sda state"]);
    assert_eq!(machine.faults(), ["storage.adopt-failed:nvme0n1"]);

    let mut machine = Machine::new(Wanted::Unsaid, &[(0, "sda", state(1, Some(X)))]);
    machine.fails.push("sda".into());
    machine.until(1);
    let settled = machine.keeper.settled().unwrap();
    assert!(!settled.durable && settled.identity_refusal.is_some());
    assert_eq!(machine.faults(), ["storage.mount-failed:sda", "storage.state-in-memory"]);
}

#[test]
fn an_unreadable_disk_is_tried_again_and_heals() {
    let broken = Verdict::Unreadable("I/O error".into());
    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", broken)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(6);
    let settled = machine.keeper.settled().unwrap();
    assert!(!settled.durable && settled.identity_refusal.is_some());
    assert_eq!(machine.role("sda"), Role::Failing);
    machine.disks.get_mut("sda").unwrap().2 = Verdict::Foreign("ext2/3/4".into());
    machine.until(61);
    assert_eq!(machine.role("sda"), Role::Foreign);
    assert!(machine.written.is_empty());
}

#[test]
fn a_restarted_storaged_goes_on_where_it_was() {
    let mut first = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", Verdict::Empty)]);
    first.until(6);
    first.identity(X);
    let kept = first.disks["nvme0n1"].2.clone();
    let disks = [(0, "nvme0n1", kept), (0, "sda", Verdict::Empty)];
    let mut second = Machine::new(Wanted::Unsaid, &disks);
    second.next_pool = 200;
    let memory = first.keeper.memory();
    let text = serde_json::to_string(&memory).unwrap();
    second.keeper = Keeper::new(
        second.keeper.settings,
        None,
        ["/state".into(), "/mirror".into()],
        serde_json::from_str(&text).unwrap(),
    );
    assert_eq!(second.keeper.settled(), first.keeper.settled());
    assert!(!second.keeper.is_steady());
    second.until(0);
    assert_eq!(
        (second.opened.clone(), second.written.clone()),
        (vec!["nvme0n1".to_owned()], vec!["adopt sda".to_owned(), "filling 1 sda 65".to_owned()])
    );
    assert!(second.keeper.is_steady());
    // What it knew it knows, and of the copy that came meanwhile.
    let (before, mut after) = (memory.unwrap(), second.keeper.memory().unwrap());
    assert_eq!(after.copies.len(), 2);
    after.copies.truncate(1);
    assert_eq!(after, before);
}

#[test]
fn a_disk_that_goes_and_comes_again_is_judged_again() {
    let mut machine = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", state(1, Some(X)))]);
    machine.disks.insert("sda".into(), (0, disk("sda", 8), data(2)));
    machine.until(1);
    machine.identity(X);
    assert_eq!(machine.opened, ["nvme0n1", "sda"]);
    let list: Vec<block::Disk> = machine.disks.values().map(|(_, disk, _)| disk.clone()).collect();
    machine.event(Event::Disks(list[..1].to_vec(), vec!["sda".into()]));
    assert_eq!(machine.faults(), ["storage.disk-gone:sda"]);
    // News of the one that went don't touch the one that came.
    let old = DiskKey { name: "sda".into(), coming: 1 };
    machine.event(Event::Judged(old, Verdict::Empty));
    machine.event(Event::Disks(list, Vec::new()));
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
    assert_eq!((machine.opened.len(), machine.written.len()), (3, 2));
}

impl Machine {
    fn key(&self, name: &str) -> DiskKey {
        self.keeper.entries[name].key.clone()
    }

    fn reason(&self, name: &str) -> String {
        self.keeper.disks().into_iter().find(|disk| disk.name == name).unwrap().reason
    }

    /// A node with its state on one disk, and what is on another.
    fn with(name: &str, verdict: Verdict) -> Self {
        let disks = [(0, "nvme0n1", state(1, Some(X))), (2, name, verdict)];
        let mut machine = Self::new(Wanted::Unsaid, &disks);
        machine.until(1);
        machine.identity(X);
        machine.until(2);
        machine
    }
}

#[test]
fn only_the_farmers_word_takes_what_is_not_empty() {
    let begun = Header { stage: Stage::Adopting, over: Some("was".into()), ..sample(7) };
    let mine = Header { owner: Some(node(X)), ..begun.clone() };
    let its = Header { owner: Some(node(Y)), ..begun.clone() };
    let check = |verdict: Verdict, unasked: &[&str], may: Result<bool, &str>| {
        let mut machine = Machine::with("sda", verdict.clone());
        assert_eq!(machine.written, unasked, "{verdict:?}");
        let key = machine.key("sda");
        match (machine.keeper.may_take(&key), may) {
            (Ok(plan), Ok(state)) => {
                assert_eq!((plan.state, plan.owner), (state, Some(node(X))), "{verdict:?}");
                machine.event(Event::Take(key, "h".into()));
                // As any pool of the node it becomes a copy of the state then.
                let written = ["take sda by h", "filling 0 sda 1"];
                assert_eq!(machine.written, written, "{verdict:?}");
                assert_eq!(machine.role("sda"), Role::Ours);
            }
            (Err(why), Err(words)) => {
                assert!(why.contains(words), "{why}");
                machine.event(Event::Take(key, "h".into()));
                assert_eq!(machine.written, unasked, "{verdict:?}");
            }
            (may, _) => panic!("{verdict:?}: {may:?}"),
        }
    };
    check(Verdict::Foreign("xfs".into()), &[], Ok(false));
    check(Verdict::Trace("a pool of a newer version (7) of ZOS".into()), &[], Ok(false));
    check(state(9, Some(Y)), &[], Ok(false));
    check(Verdict::Released(Box::new(sample(7))), &[], Ok(false));
    check(data(5), &["filling 0 sda 1"], Err("`zos disk release sda`"));
    let adopted = ["adopt sda", "filling 0 sda 1"];
    check(Verdict::Empty, &adopted, Err("`zos disk release sda`"));
    // Given and cut short: finished unasked, by the node that it was given to.
    check(Verdict::Unfinished(Box::new(mine)), &adopted, Err("`zos disk release sda`"));
    check(Verdict::Unfinished(Box::new(its)), &[], Ok(false));
}

/// One of two disks with the same pool is a copy; which one, the farmer says.
#[test]
fn a_copy_of_a_pool_may_be_taken_and_the_original_then_opens() {
    let mut machine = Machine::with("sda", data(2));
    assert_eq!(machine.opened, ["nvme0n1", "sda"]);
    assert_eq!(machine.written, ["filling 0 sda 1"]);
    machine.disks.insert("sdb".into(), (3, disk("sdb", 8), data(2)));
    machine.until(3);
    assert!(machine.faults().contains(&"storage.duplicate-pool:sdb".to_owned()));
    assert!(machine.keeper.may_take(&machine.key("sda")).is_err());
    machine.event(Event::Take(machine.key("sdb"), "h".into()));
    assert_eq!(machine.written[1..], ["take sdb by h"]);
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
}

#[test]
fn what_cannot_be_a_pool_is_not_taken_and_what_failed_is_tried_again() {
    let refused = |change: &dyn Fn(&mut block::Disk), words: &str| {
        let disks = [(0, "nvme0n1", state(1, Some(X))), (0, "sda", Verdict::Foreign("xfs".into()))];
        let mut machine = Machine::new(Wanted::Unsaid, &disks);
        machine.keeper.boot_partition = Some("5c5b".into());
        change(&mut machine.disks.get_mut("sda").unwrap().1);
        machine.until(1);
        machine.identity(X);
        let why = machine.keeper.may_take(&machine.key("sda")).unwrap_err();
        assert!(why.contains(words), "{why}");
    };
    refused(&|disk| disk.size = 1 << 29, "smaller than");
    refused(&|disk| disk.read_only = true, "refuses writes");
    refused(&|disk| disk.holders.push("md0".into()), "in use by md0");
    refused(&|disk| disk.logical_block = 1024, "blocks of 1024 bytes");
    refused(&|disk| (disk.removable, disk.read_only) = (true, true), "booted from");

    let mut machine = Machine::with("sda", Verdict::Foreign("xfs".into()));
    let key = machine.key("sda");
    machine.fails.push("sda".into());
    machine.event(Event::Take(key.clone(), "old".into()));
    assert_eq!((machine.role("sda"), machine.written.len()), (Role::Foreign, 0));
    machine.event(Event::Taken(key.clone(), Err(NotTaken::Failed("I/O error".into()))));
    assert_eq!(machine.faults(), ["storage.adopt-failed:sda"]);
    machine.fails.clear();
    machine.event(Event::Take(key, "new".into()));
    assert_eq!((machine.role("sda"), machine.faults().len()), (Role::Ours, 0));
}

/// The usual first disk of a farmer: it was something else's before, and the node lives in memory.
#[test]
fn a_node_without_a_disk_is_given_one_and_keeps_itself_there_from_the_next_boot_on() {
    let disks =
        [(0, "sda", Verdict::Foreign("NTFS".into())), (0, "sdb", Verdict::Foreign("NTFS".into()))];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(6);
    machine.identity(X);
    machine.event(Event::Take(machine.key("sda"), "h".into()));
    machine.event(Event::Take(machine.key("sdb"), "h".into()));
    assert_eq!(machine.written, ["take sda by h state", "take sdb by h"]);
    assert!(machine.reason("sda").contains("boot the node again"), "{}", machine.reason("sda"));
    let verdict = |name: &str| machine.disks[name].2.clone();
    let both = [(0, "sda", verdict("sda")), (0, "sdb", verdict("sdb"))];
    let mut next = Machine::new(Wanted::Unsaid, &both);
    next.until(6);
    let settled = next.keeper.settled().unwrap();
    assert!(settled.durable && settled.identity_refusal.is_none());
    next.identity(Y);
    assert_eq!(next.written, ["own sda f", "own sdb f", "filling 1 sdb 65"]);
    assert_eq!(next.faults(), [""; 0]);
}

#[test]
fn a_pool_leaves_when_nothing_is_left_on_it() {
    let mut machine = Machine::with("sda", data(2));
    machine.left = vec!["web/data stays".into(), "web/data stays".into()];
    let key = machine.key("sda");
    machine.event(Event::Release(key.clone()));
    // It was to become a copy of the state, which is given up.
    assert_eq!(machine.written, ["filling 0 sda 1", "leave sda", "record sda 1"]);
    assert_eq!(machine.role("sda"), Role::Leaving);
    assert!(machine.reason("sda").contains("web/data stays"));
    // Said twice is nothing new, and nothing is forced.
    assert!(machine.keeper.may_release(&key).unwrap_err().contains("already"));
    machine.until(59);
    assert_eq!(machine.written.len(), 3);
    machine.until(180);
    assert_eq!(machine.written[3..], ["wipe sda"]);
    assert_eq!((machine.role("sda"), machine.faults().len()), (Role::Empty, 0));

    // Neither this node nor another takes it unasked, whenever it boots.
    let kept = machine.disks["sda"].2.clone();
    let mut next = Machine::with("sda", kept.clone());
    next.until(10);
    assert_eq!(next.written, [""; 0]);
    next.event(Event::Take(next.key("sda"), "h".into()));
    assert_eq!(next.written, ["take sda by h", "filling 0 sda 1"]);
    let mut alone = Machine::new(Wanted::Unsaid, &[(0, "sda", kept)]);
    alone.until(10);
    assert!(!alone.keeper.settled().unwrap().durable && alone.written.is_empty());
}

#[test]
fn a_release_goes_on_after_a_boot_and_after_an_error() {
    let Verdict::Ours(header) = data(2) else { unreachable!() };
    let leaving = Verdict::Ours(Box::new(Header { stage: Stage::Leaving, ..*header.clone() }));
    assert_eq!(Machine::with("sda", leaving).written, ["wipe sda"]);
    let wiping = Header { stage: Stage::Wiping, ..*header };
    assert_eq!(
        Machine::with("sda", Verdict::Wiping(Box::new(wiping.clone()))).written,
        ["wipe sda"]
    );
    // Of another node: not ours to go on with.
    let other = Header { owner: Some(node(Y)), ..wiping };
    let machine = Machine::with("sda", Verdict::Wiping(Box::new(other)));
    assert_eq!((machine.written.len(), machine.role("sda")), (0, Role::Leaving));

    let mut machine = Machine::with("sda", data(2));
    machine.fails.push("sda".into());
    machine.event(Event::Release(machine.key("sda")));
    assert_eq!(machine.faults(), ["storage.release-failed:sda"]);
    machine.fails.clear();
    machine.until(70);
    assert_eq!(machine.written[1..], ["leave sda", "record sda 1", "wipe sda"]);
    assert_eq!(machine.faults(), [""; 0]);
}

#[test]
fn the_disk_with_the_state_is_kept() {
    let machine = Machine::with("sda", data(2));
    let why = machine.keeper.may_release(&machine.key("nvme0n1")).unwrap_err();
    assert!(why.contains("the node's state lies on nvme0n1"), "{why}");
    let machine = Machine::with("sda", Verdict::Foreign("xfs".into()));
    let why = machine.keeper.may_release(&machine.key("sda")).unwrap_err();
    assert!(why.contains("no pool that is in use"), "{why}");
}

fn data(pool: u64) -> Verdict {
    let header = Header { owner: Some(node(X)), state: false, ..sample(pool) };
    Verdict::Ours(Box::new(Header { state_pools: sample(1).state_pools, ..header }))
}

#[test]
fn an_unfinished_pool_is_made_again_and_a_small_disk_never() {
    let begun = Verdict::Unfinished(Box::new(Header { stage: Stage::Adopting, ..sample(1) }));
    let disks = [(0, "nvme0n1", begun), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.disks.get_mut("sda").unwrap().1.size = 1 << 29;
    machine.until(6);
    machine.identity(X);
    assert_eq!(machine.written, ["adopt nvme0n1 state", "own nvme0n1 y"]);
    assert_eq!(machine.role("sda"), Role::Empty);
}

#[test]
fn the_boot_medium_is_nobodys_pool() {
    let mut machine = Machine::new(Wanted::Unsaid, &[(0, "sda", Verdict::Empty)]);
    machine.keeper.boot_partition = Some("5c5b".into());
    let partition = block::Partition {
        name: "sda1".into(),
        number: 1,
        device: (8, 1),
        start: 0,
        size: 1,
        uuid: Some("5c5b".into()),
        label: None,
        holders: Vec::new(),
    };
    machine.disks.get_mut("sda").unwrap().1.partitions.push(partition);
    machine.until(6);
    assert_eq!(machine.role("sda"), Role::BootMedium);
    assert!(machine.written.is_empty() && machine.keeper.settled().is_some());
}

#[test]
fn the_farmers_words_are_followed_or_shown() {
    let node = node(X);
    let check = |pairs: &[(&str, &str)], adopt: bool, wanted: Wanted, refused: &[&str]| {
        let said = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        let (settings, faults) = zos_daemon::Reader::config::<Settings>(&said.collect());
        assert_eq!((settings.adopt, settings.wanted), (adopt, wanted), "{pairs:?}");
        let ids: Vec<_> = faults.iter().map(|fault| fault.id.as_str()).collect();
        assert_eq!(ids, refused, "{pairs:?}");
    };
    check(&[], true, Wanted::Unsaid, &[]);
    check(&[("disk.adopt", "empty"), ("identity", "new")], true, Wanted::New, &[]);
    check(&[("disk.adopt", "none")], false, Wanted::Unsaid, &[]);
    check(&[("identity", &node.to_string())], true, Wanted::Node(node), &[]);
    check(&[("disk.adopt", "all")], false, Wanted::Unsaid, &["settings.refused:disk.adopt"]);
    check(&[("identity", "me")], true, Wanted::Unsaid, &["settings.refused:identity"]);
}

#[test]
fn what_lies_on_a_disk_is_told_once_the_node_has_its_state_and_again_when_it_changed() {
    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", Verdict::Foreign("xfs".into()))];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(4);
    assert!(machine.marked.is_empty() && machine.keeper.settled().is_none());
    machine.until(6);
    machine.identity(X);
    machine.until(30);
    let told = |name: &str| {
        let disk = machine.keeper.disks().into_iter().find(|disk| disk.name == name).unwrap();
        disk.signatures
    };
    assert_eq!((told("nvme0n1"), told("sda")), (vec!["pool of ZOS".into()], vec!["xfs".into()]));
    assert_eq!(machine.marked.len(), 2, "{:?}", machine.marked);
}

#[test]
fn a_name_that_is_used_again_is_another_disk_even_when_the_news_of_it_were_lost() {
    let disks = [(0, "nvme0n1", state(1, Some(X))), (0, "sda", Verdict::Foreign("xfs".into()))];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(1);
    machine.identity(X);
    assert_eq!(machine.role("sda"), Role::Foreign);
    // Another disk in the same slot, told by no `remove`.
    let other = block::Disk { id: "another".into(), ..disk("sda", 8) };
    machine.disks.insert("sda".into(), (0, other, Verdict::Empty));
    machine.until(2);
    assert_eq!(machine.role("sda"), Role::Ours);
    assert_eq!(machine.written, ["adopt sda", "filling 0 sda 1"]);
    // The state's disk is pulled and put back under another name: its pool is opened there.
    let (at, _, verdict) = machine.disks.remove("nvme0n1").unwrap();
    machine.until(3);
    assert_eq!(machine.faults(), ["storage.disk-gone:nvme0n1"]);
    let back = block::Disk { id: "nvme0n1".into(), ..disk("nvme1n1", 8) };
    machine.disks.insert("nvme1n1".into(), (at, back, verdict));
    machine.until(4);
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
    assert_eq!(machine.opened, ["nvme0n1", "nvme1n1"]);
    // A medium that leaves its reader is gone, though the reader stays.
    machine.disks.get_mut("sda").unwrap().1.size = 0;
    machine.until(5);
    assert!(machine.keeper.disks().iter().all(|disk| disk.name != "sda"));
}

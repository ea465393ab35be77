//! Every interleaving of commit, crash, loss, return and swap over the real rules, breadth first.
//!
//! ```text
//!  world: disks (in or out, header, a part for each store) + the node (off, booting, running, torn)
//!  step:  one durable write, or one event ─▶ next world, unless seen ─▶ checks
//! ```
//! What decides here is what decides on a node: [`lead`], [`Set`], and the chassis' `lead` and `judge`. What is
//! written by hand is the order in which each asks and does. `Bug` plants a mistake in that order or in a rule; each
//! must be found, or the search is no proof of anything.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use zos_api::local::User;
use zos_daemon::store::lead::{self as stores, Found, Plan, Written};

use super::set::{Copy, KEEPERS, Loss, Set, Write};
use super::{Generation, Here, Lead, Mark, lead};

const POOLS: [&str; 3] = ["p", "q", "r"];
const USERS: [User; 2] = [User::Net, User::Provision];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// A write is acknowledged before the loss of a copy is noted.
    AckBeforeNote,
    /// A copy that goes on alone keeps its generation.
    SameGeneration,
    /// The newcomer is whole before the leading one names it.
    WholeFirst,
    /// The newcomer is not marked as one that is being filled.
    FillUnmarked,
    /// The higher epoch leads, whatever the past says.
    ByEpoch,
    /// A boot without a copy that is named goes on as if it were there.
    NoRenewal,
    /// A copy of another history is written over.
    TakesAll,
    /// A daemon says that it has joined before it has copied.
    JoinEarly,
    /// Only the first copy is written before the answer.
    OneCopy,
    /// What the farmer sets aside is not marked so.
    AsideUnmarked,
}

/// Which disks hold the state at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// The first one; another may become a copy.
    One,
    /// Two.
    Pair,
    /// Two, each of which went on alone.
    Torn,
}

/// Limits of a world.
#[derive(Clone, Copy, Debug)]
struct Size {
    disks: usize,
    start: Start,
    stores: usize,
    writes: u8,
    generations: u64,
    comings: u8,
    states: usize,
}

/// A store's content: its number, and the set of writes in it.
type Content = (u8, u16);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Disk {
    here: bool,
    coming: u8,
    /// None: a pool without the state.
    header: Option<(Mark, Vec<String>)>,
    stores: [Option<Content>; 2],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Held {
    disk: usize,
    coming: u8,
    current: bool,
    failed: bool,
    joined: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Doing {
    Nothing,
    /// A write: its bit, how many copies were tried, which have it.
    Writing {
        bit: u16,
        had: Vec<bool>,
    },
    /// It waits until these are noted as lost.
    Losing {
        bit: u16,
        lost: Vec<usize>,
    },
}

/// A daemon with its store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Daemon {
    open: bool,
    sequence: u8,
    held: Vec<Held>,
    doing: Doing,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Node {
    Off,
    Torn(Vec<Generation>),
    /// These headers are to be written first: of those that are set aside, and of the leading one at last.
    Renewing(Vec<Write>),
    Running {
        set: Box<Set>,
        daemons: Vec<Daemon>,
        writing: Option<Write>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    disks: Vec<Disk>,
    node: Node,
    generations: u64,
    /// Writes begun so far, over both stores.
    begun: u8,
    /// Acknowledged writes, each with its generation.
    acked: u16,
    made_in: Vec<Generation>,
    /// Generations that the farmer set aside, and what he passed over otherwise.
    aside: Vec<Generation>,
    passed: u16,
    /// For each write, those that were there when it was made.
    seen: Vec<u16>,
    /// Acknowledged writes that were passed over or written over without the farmer's word.
    destroyed: u16,
}

fn pool_of(disk: usize) -> String {
    POOLS[disk].to_owned()
}

fn disk_of(pool: &str) -> usize {
    POOLS.iter().position(|known| *known == pool).unwrap()
}

struct Model {
    size: Size,
    bug: Option<Bug>,
}

impl Model {
    fn start(&self) -> World {
        let one = Mark::first(Generation(1));
        let names = |all: &[usize]| all.iter().copied().map(pool_of).collect::<Vec<_>>();
        let header = |n: usize| match (self.size.start, n) {
            (Start::One, 0) => Some((one.clone(), names(&[0]))),
            (Start::Pair, 0 | 1) => Some((one.clone(), names(&[0, 1]))),
            (Start::Torn, 0 | 1) => Some((one.next(&[], Generation(2 + n as u64)), names(&[n]))),
            _ => None,
        };
        let disk =
            |n: usize| Disk { here: true, coming: 0, header: header(n), stores: [None, None] };
        World {
            disks: (0..self.size.disks).map(disk).collect(),
            node: Node::Off,
            generations: if self.size.start == Start::Torn { 3 } else { 1 },
            begun: 0,
            acked: 0,
            made_in: Vec::new(),
            aside: Vec::new(),
            passed: 0,
            seen: Vec::new(),
            destroyed: 0,
        }
    }

    fn draw(world: &mut World) -> Generation {
        world.generations += 1;
        Generation(world.generations)
    }

    /// The rule of a boot over the disks that are here, or those of them that count.
    fn lead(
        &self,
        world: &mut World,
        word: Option<Generation>,
        counts: impl Fn(usize, &Disk) -> bool,
    ) -> Lead {
        let fresh = Generation(world.generations + 1);
        let here: Vec<(String, Mark, Vec<String>)> = world
            .disks
            .iter()
            .enumerate()
            .filter(|(n, disk)| disk.here && counts(*n, disk))
            .filter_map(|(n, disk)| {
                let (mark, members) = disk.header.clone()?;
                Some((pool_of(n), mark, members))
            })
            .collect();
        let mut here: Vec<Here<'_>> =
            here.iter().map(|(pool, mark, members)| Here { pool, mark, members }).collect();
        if self.bug == Some(Bug::ByEpoch) {
            let most = here.iter().filter(|c| c.mark.whole).map(|c| c.mark.epoch).max();
            here.retain(|copy| copy.mark.whole && Some(copy.mark.epoch) == most);
            let first = here.first().map(|copy| copy.mark.generation);
            here.retain(|copy| Some(copy.mark.generation) == first);
        }
        let decided = lead(&here, word, fresh);
        match decided {
            Lead::Copies { pools, renewed: Some(_), aside } if self.bug == Some(Bug::NoRenewal) => {
                Lead::Copies { pools, renewed: None, aside }
            }
            Lead::Copies { pools, renewed: Some(mut mark), mut aside } => {
                world.generations += 1;
                if self.bug == Some(Bug::SameGeneration) {
                    let old = &world.disks[disk_of(&pools[0])].header.as_ref().unwrap().0;
                    mark = Mark { whole: true, ..old.clone() };
                }
                if self.bug == Some(Bug::AsideUnmarked) {
                    aside.clear();
                }
                Lead::Copies { pools, renewed: Some(mark), aside }
            }
            other => other,
        }
    }

    fn run(&self, world: &mut World, mark: Mark, pools: &[String]) {
        let copy = |pool: &String| Copy {
            pool: pool.clone(),
            coming: Generation(u64::from(world.disks[disk_of(pool)].coming)),
        };
        let set = Set::new(mark, pools.iter().map(copy).collect());
        let daemon = Daemon { open: false, sequence: 0, held: vec![], doing: Doing::Nothing };
        let daemons = vec![daemon; self.size.stores];
        world.node = Node::Running { set: Box::new(set), daemons, writing: None };
    }

    fn boot(&self, world: &World, word: Option<Generation>) -> World {
        let mut next = world.clone();
        let decided = self.lead(&mut next, word, |_, _| true);
        if let (Some(word), Lead::Copies { pools, .. }) = (word, &decided) {
            // Every other history that is here, the farmer set aside, and knew of it.
            let chosen = &next.disks[disk_of(&pools[0])].header.as_ref().unwrap().0.clone();
            let marks = world.disks.iter().filter(|disk| disk.here);
            let marks = marks.filter_map(|disk| Some(&disk.header.as_ref()?.0));
            let others = marks.map(|mark| mark.generation);
            next.aside.extend(others.filter(|g| *g != word && !chosen.past.contains(g)));
        }
        if let Lead::Copies { pools, .. } = &decided {
            let all: Vec<usize> = (0..next.disks.len()).collect();
            let over = Self::passed_over(&next, pools, &all);
            match word {
                // It is the farmer's to know what another disk has.
                Some(_) => next.passed |= next.acked & !Self::held(&next, pools),
                None => next.destroyed |= over,
            }
        }
        match decided {
            Lead::None => {}
            Lead::Torn(histories) => {
                next.node = Node::Torn(histories.into_iter().map(|(g, _)| g).collect());
            }
            Lead::Copies { pools, renewed: Some(mark), aside } => {
                let last = Write { pool: pools[0].clone(), mark, members: pools };
                let aside = aside.into_iter().map(|pool| {
                    let (mark, members) = next.disks[disk_of(&pool)].header.clone().unwrap();
                    Write { pool, mark: mark.filling(), members }
                });
                next.node = Node::Renewing(aside.chain([last]).collect());
            }
            Lead::Copies { pools, renewed: None, .. } => {
                let mark = next.disks[disk_of(&pools[0])].header.as_ref().unwrap().0.clone();
                self.run(&mut next, mark, &pools);
            }
        }
        next
    }

    /// What lies on these disks.
    fn held(world: &World, pools: &[String]) -> u16 {
        let disks = pools.iter().flat_map(|pool| world.disks[disk_of(pool)].stores);
        disks.flatten().fold(0, |all, (_, bits)| all | bits)
    }

    /// Acknowledged writes on those of these disks that are here and whole, and on none of those that lead.
    fn passed_over(world: &World, pools: &[String], over: &[usize]) -> u16 {
        let whole = |disk: &Disk| disk.header.as_ref().is_some_and(|(mark, _)| mark.whole);
        let over = over.iter().filter(|n| !pools.contains(&pool_of(**n)));
        let over = over.filter(|n| world.disks[**n].here && whole(&world.disks[**n]));
        let there = over.fold(0, |all, n| all | Self::held(world, &[pool_of(*n)]));
        let missing = there & world.acked & !world.passed & !Self::held(world, pools);
        let made_in = world.made_in.iter().enumerate();
        let aside = made_in.filter(|(_, generation)| world.aside.contains(generation));
        aside.fold(missing, |missing, (bit, _)| missing & !(1 << bit))
    }

    /// Every world that may come next.
    fn steps(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        if world.generations >= self.size.generations {
            return next;
        }
        for n in 0..world.disks.len() {
            let mut other = world.clone();
            let disk = &mut other.disks[n];
            if disk.here {
                disk.here = false;
                next.push(other);
            } else if disk.coming < self.size.comings {
                disk.here = true;
                disk.coming += 1;
                next.push(other);
            }
        }
        match &world.node {
            Node::Off => next.push(self.boot(world, None)),
            Node::Torn(histories) => {
                next.push(World { node: Node::Off, ..world.clone() });
                next.extend(histories.iter().map(|word| self.boot(world, Some(*word))));
            }
            Node::Renewing(writes) => {
                next.push(World { node: Node::Off, ..world.clone() });
                let Write { pool, mark, members } = &writes[0];
                if world.disks[disk_of(pool)].here {
                    let mut other = world.clone();
                    other.disks[disk_of(pool)].header = Some((mark.clone(), members.clone()));
                    if writes.len() == 1 {
                        self.run(&mut other, mark.clone(), members);
                    } else {
                        other.node = Node::Renewing(writes[1..].to_vec());
                    }
                    next.push(other);
                }
            }
            Node::Running { set, daemons, writing } => {
                next.push(World { node: Node::Off, ..world.clone() });
                self.storaged(world, set, daemons, writing.as_ref(), &mut next);
                for n in 0..daemons.len() {
                    self.daemon(world, n, &mut next);
                }
            }
        }
        next
    }

    fn storaged(
        &self,
        world: &World,
        set: &Set,
        daemons: &[Daemon],
        writing: Option<&Write>,
        next: &mut Vec<World>,
    ) {
        let with = |world: &World, set: Set, writing: Option<Write>| World {
            node: Node::Running { set: Box::new(set), daemons: daemons.to_vec(), writing },
            ..world.clone()
        };
        let serves = |disk: usize, coming: Generation| {
            let disk = &world.disks[disk];
            disk.here && Generation(u64::from(disk.coming)) == coming
        };
        // It sees that a disk went.
        for copy in set.members().iter().chain(set.filling()) {
            if !serves(disk_of(&copy.pool), copy.coming) {
                let mut set = set.clone();
                set.lose(&copy.pool);
                next.push(with(world, set, writing.cloned()));
            }
        }
        // It is started again: as a boot with the copies that it remembers, while the daemons go on.
        if writing.is_none() {
            let mut other = world.clone();
            let known = |n: usize, disk: &Disk| {
                set.coming(POOLS[n]) == Some(Generation(u64::from(disk.coming)))
            };
            if let Lead::Copies { pools, renewed, .. } = self.lead(&mut other, None, known) {
                let first = disk_of(&pools[0]);
                if let Some(mark) = &renewed {
                    other.disks[first].header = Some((mark.clone(), vec![pools[0].clone()]));
                }
                let mark = other.disks[first].header.as_ref().unwrap().0.clone();
                let copy = |pool: &String| Copy {
                    pool: pool.clone(),
                    coming: Generation(u64::from(world.disks[disk_of(pool)].coming)),
                };
                let copies: Vec<Copy> = pools.iter().map(copy).collect();
                next.push(with(&other, Set::new(mark, copies), None));
            }
        }
        match writing {
            // A header is written, or can't be.
            Some(write) => {
                let disk = disk_of(&write.pool);
                let coming = set.coming(&write.pool);
                let mut other = world.clone();
                let done = other.disks[disk].here && coming.is_none_or(|c| serves(disk, c));
                if done {
                    let mut mark = write.mark.clone();
                    if self.bug == Some(Bug::FillUnmarked) {
                        mark.whole = true;
                    }
                    other.disks[disk].header = Some((mark, write.members.clone()));
                }
                let mut set = set.clone();
                set.written(done);
                // Those who have no store here are no matter.
                if let Some(copy) = set.filling().cloned() {
                    let stores = &USERS[..self.size.stores];
                    for keeper in KEEPERS.iter().filter(|keeper| !stores.contains(keeper)) {
                        set.joined(&copy.pool, copy.coming, *keeper);
                    }
                }
                next.push(with(&other, set, None));
            }
            None => {
                let mut other = world.clone();
                let fresh = Self::draw(&mut other);
                let mut changed = set.clone();
                if let Some(mut write) = changed.next(fresh) {
                    if write.mark.generation != fresh {
                        other.generations -= 1;
                    } else if self.bug == Some(Bug::SameGeneration) {
                        write.mark = set.mark().clone();
                    }
                    if self.bug == Some(Bug::WholeFirst)
                        && write.members.len() == 2
                        && set.members().iter().any(|copy| copy.pool == write.pool)
                    {
                        write.pool = set.filling().unwrap().pool.clone();
                    } else if self.bug == Some(Bug::WholeFirst) && write.members.len() == 2 {
                        write.pool = set.members()[0].pool.clone();
                    }
                    next.push(with(&other, changed, Some(write)));
                } else if changed != *set {
                    other.generations -= 1;
                    next.push(with(&other, changed, None));
                }
                // Another disk becomes a copy.
                for (n, disk) in world.disks.iter().enumerate().filter(|(_, disk)| disk.here) {
                    let coming = Generation(u64::from(disk.coming));
                    let mut set = set.clone();
                    let takes = set.takes(disk.header.as_ref().map(|(mark, _)| mark));
                    if !takes && self.bug != Some(Bug::TakesAll) {
                        continue;
                    }
                    if let Some(write) = set.fill(Copy { pool: pool_of(n), coming }) {
                        let mut other = world.clone();
                        let members = set.members().iter().map(|copy| copy.pool.clone());
                        let members: Vec<String> = members.collect();
                        other.destroyed |= Self::passed_over(world, &members, &[n]);
                        next.push(with(&other, set, Some(write)));
                    }
                }
            }
        }
    }

    /// The steps of a daemon.
    fn daemon(&self, world: &World, n: usize, next: &mut Vec<World>) {
        let Node::Running { daemons, set, .. } = &world.node else { unreachable!() };
        let daemon = &daemons[n];
        let change = |f: &mut dyn FnMut(&mut World, &mut Set, &mut Daemon)| {
            let mut other = world.clone();
            let Node::Running { set, daemons, .. } = &world.node else { unreachable!() };
            let (mut set, mut daemons) = (set.clone(), daemons.clone());
            f(&mut other, &mut set, &mut daemons[n]);
            if let Node::Running { set: s, daemons: d, .. } = &mut other.node {
                (*s, *d) = (set, daemons);
            }
            other
        };
        if !daemon.open {
            next.extend(self.open(world, n));
            return;
        }
        // It ends, and starts anew.
        next.push(change(&mut |_, _, daemon| {
            *daemon = Daemon { open: false, sequence: 0, held: vec![], doing: Doing::Nothing };
        }));
        match &daemon.doing {
            Doing::Nothing => {
                // Two stores write beside each other.
                let under_way = daemons.iter().fold(0, |all, daemon| match &daemon.doing {
                    Doing::Nothing => all,
                    Doing::Writing { bit, .. } | Doing::Losing { bit, .. } => all | bit,
                });
                if world.begun < self.size.writes && daemons.iter().all(|daemon| daemon.open) {
                    next.push(change(&mut |world, _, daemon| {
                        let bit = 1 << world.begun;
                        world.begun += 1;
                        let seen = Self::served(world) | under_way;
                        world.seen.push(seen);
                        world.made_in.push(Generation(0));
                        daemon.doing = Doing::Writing { bit, had: vec![] };
                    }));
                }
                if let Some(followed) = self.follow(world, set, daemon) {
                    next.push(change(&mut |world, _, daemon| {
                        (world.disks, *daemon) = followed.clone();
                    }));
                }
                for held in
                    daemon.held.iter().filter(|held| !held.current && !held.joined && !held.failed)
                {
                    next.push(change(&mut |_, set, daemon| {
                        let coming = Generation(u64::from(held.coming));
                        set.joined(POOLS[held.disk], coming, USERS[n]);
                        daemon.held.iter_mut().filter(|h| *h == held).for_each(|h| h.joined = true);
                    }));
                }
            }
            Doing::Writing { bit, had } if had.len() < daemon.held.len() => {
                next.push(change(&mut |world, _, daemon| {
                    let held = &daemon.held[had.len()];
                    // One that is being filled gets what a current one has.
                    let any = daemon.held.iter().zip(had).any(|(held, had)| held.current && *had);
                    let mut done = Self::works(world, held) && (held.current || any);
                    if self.bug == Some(Bug::OneCopy) && !had.is_empty() {
                        done = true;
                    } else if done {
                        let content = &mut world.disks[held.disk].stores[n];
                        let bits = content.map_or(0, |(_, bits)| bits);
                        *content = Some((daemon.sequence + 1, bits | bit));
                    }
                    let mut had = had.clone();
                    had.push(done);
                    daemon.doing = Doing::Writing { bit: *bit, had };
                }));
            }
            Doing::Writing { bit, had } => next.push(change(&mut |world, set, daemon| {
                let places: Vec<(bool, bool)> =
                    daemon.held.iter().zip(had).map(|(held, had)| (held.current, *had)).collect();
                daemon.doing = Doing::Nothing;
                if let Written::Durable(lost) = stores::judge(&places) {
                    daemon.sequence += 1;
                    lost.iter().for_each(|lost| daemon.held[*lost].failed = true);
                    if self.bug == Some(Bug::AckBeforeNote) {
                        Self::ack(world, set, *bit);
                    }
                    daemon.doing = Doing::Losing { bit: *bit, lost };
                }
            })),
            Doing::Losing { bit, lost } => next.push(change(&mut |world, set, daemon| {
                let Some(last) = lost.last() else {
                    Self::ack(world, set, *bit);
                    daemon.doing = Doing::Nothing;
                    return;
                };
                let held = daemon.held[*last].clone();
                // Another coming of that pool is none of its business.
                let same = set.coming(POOLS[held.disk]) == Some(Generation(held.coming.into()));
                let noted = if same { set.lose(POOLS[held.disk]) } else { Loss::Noted };
                match noted {
                    Loss::Noted => {
                        daemon.held.remove(*last);
                        let lost = lost[..lost.len() - 1].to_vec();
                        daemon.doing = Doing::Losing { bit: *bit, lost };
                    }
                    Loss::Pending => {}
                    Loss::Last => daemon.doing = Doing::Nothing,
                }
            })),
        }
    }

    fn ack(world: &mut World, set: &Set, bit: u16) {
        // A store that was opened with a copy missing has a loss to note, and nothing to acknowledge.
        if bit & !world.acked != 0 {
            world.acked |= bit;
            world.made_in[bit.trailing_zeros() as usize] = set.mark().generation;
        }
    }

    /// A store takes in where its copies lie now; it does it as a whole, under its lock.
    fn follow(&self, world: &World, set: &Set, daemon: &Daemon) -> Option<(Vec<Disk>, Daemon)> {
        let n = {
            let Node::Running { daemons, .. } = &world.node else { unreachable!() };
            daemons.iter().position(|other| std::ptr::eq(other, daemon)).unwrap()
        };
        let view = Self::view(set);
        let told = |held: &Held| {
            view.iter().any(|(disk, coming, _)| (*disk, *coming) == (held.disk, held.coming))
        };
        let (mut disks, mut after) = (world.disks.clone(), daemon.clone());
        if after.held.iter().any(|held| !held.failed && told(held)) {
            after.held.retain(told);
        }
        for (disk, coming, current) in view {
            let known = after.held.iter_mut().find(|h| (h.disk, h.coming) == (disk, coming));
            if let Some(held) = known {
                held.current = current;
                continue;
            }
            let lead = after.held.iter().find(|held| {
                !held.failed && disks[held.disk].here && disks[held.disk].coming == held.coming
            });
            let Some(content) = lead.map(|lead| disks[lead.disk].stores[n]) else { continue };
            let fits = disks[disk].here && disks[disk].coming == coming;
            if fits && self.bug != Some(Bug::JoinEarly) {
                disks[disk].stores[n] = content;
            }
            after.held.push(Held { disk, coming, current, failed: !fits, joined: false });
        }
        (after != *daemon || disks != world.disks).then_some((disks, after))
    }

    /// What storaged tells: disk, coming, whether it is current.
    fn view(set: &Set) -> Vec<(usize, u8, bool)> {
        let tell = |copy: &Copy, current| {
            (disk_of(&copy.pool), u8::try_from(copy.coming.0).unwrap(), current)
        };
        let members = set.members().iter().map(|copy| tell(copy, true));
        members.chain(set.filling().map(|copy| tell(copy, false))).collect()
    }

    /// A daemon opens its store.
    fn open(&self, world: &World, n: usize) -> Option<World> {
        let mut other = world.clone();
        let Node::Running { set, daemons, .. } = &mut other.node else { unreachable!() };
        let view = Self::view(set);
        let here =
            |disk: usize, coming: u8| world.disks[disk].here && world.disks[disk].coming == coming;
        let current: Vec<_> = view.iter().filter(|(.., current)| *current).copied().collect();
        let found: Vec<Found> = current
            .iter()
            .map(|(disk, coming, _)| match world.disks[*disk].stores[n] {
                _ if !here(*disk, *coming) => Found::Unreadable,
                None => Found::Missing,
                Some((sequence, _)) => Found::Whole { schema: 1, sequence: sequence.into() },
            })
            .collect();
        let (lead, renew) = match stores::lead(&found, 1) {
            Plan::Create => (None, (0..current.len()).collect()),
            Plan::Lead { lead, renew } => (Some(lead), renew),
            Plan::Newer(_) | Plan::Unreadable => return None,
        };
        let content = lead.map_or((0, 0), |lead| world.disks[current[lead].0].stores[n].unwrap());
        let daemon = &mut daemons[n];
        (daemon.open, daemon.sequence) = (true, content.0);
        for (index, (disk, coming, current)) in view.into_iter().enumerate() {
            let works = here(disk, coming);
            if works && (!current || renew.contains(&index) || lead.is_none()) {
                other.disks[disk].stores[n] = Some(content);
            }
            daemon.held.push(Held { disk, coming, current, failed: !works, joined: false });
        }
        // The leading one is read from.
        if let Some(lead) = lead {
            let lead = current[lead].0;
            daemon.held.sort_by_key(|held| held.disk != lead);
        }
        let lost: Vec<usize> = (0..daemon.held.len()).filter(|i| daemon.held[*i].failed).collect();
        if !lost.is_empty() {
            daemon.doing = Doing::Losing { bit: 0, lost };
        }
        Some(other)
    }

    fn works(world: &World, held: &Held) -> bool {
        let disk = &world.disks[held.disk];
        disk.here && disk.coming == held.coming && !held.failed
    }

    /// All that the stores of a running node hold.
    fn served(world: &World) -> u16 {
        let Node::Running { daemons, .. } = &world.node else { return 0 };
        let mut all = 0;
        for (n, daemon) in daemons.iter().enumerate() {
            let lead = daemon.held.iter().find(|held| Self::works(world, held));
            let content = lead.and_then(|lead| world.disks[lead.disk].stores[n]);
            all |= content.map_or(0, |(_, bits)| bits);
        }
        all
    }

    /// What must hold in every world.
    fn check(&self, world: &World) -> Result<(), String> {
        if world.destroyed != 0 {
            return Err(format!("acknowledged writes {:b} are passed over", world.destroyed));
        }
        let Node::Running { set, daemons, .. } = &world.node else { return Ok(()) };
        if !daemons.iter().all(|daemon| daemon.open) {
            return Ok(());
        }
        // No two histories in one: each write was made in sight of all that stand before it.
        let served = Self::served(world);
        for later in 0..world.seen.len() {
            let before = served & ((1 << later) - 1);
            if served & (1 << later) != 0 && before & !world.seen[later] != 0 {
                return Err(format!("write {later} was made without {before:b}: merged"));
            }
        }
        // What was acknowledged in this history is in it, but what the farmer passed over.
        let is_read = |daemon: &Daemon| daemon.held.iter().any(|held| Self::works(world, held));
        let ours = |g: &Generation| *g == set.mark().generation || set.mark().past.contains(g);
        let made = world.made_in.iter().enumerate().filter(|(_, made)| ours(made));
        let made = made.fold(0, |all, (bit, _)| all | 1 << bit) & world.acked & !world.passed;
        if daemons.iter().all(is_read) && made & !served != 0 {
            return Err(format!("of the acknowledged writes {:b} are not served", made & !served));
        }
        // Copies that count and are held are equal.
        let counts = |copy: &&Copy| {
            let disk = &world.disks[disk_of(&copy.pool)];
            disk.here && Generation(disk.coming.into()) == copy.coming
        };
        let members: Vec<usize> =
            set.members().iter().filter(counts).map(|copy| disk_of(&copy.pool)).collect();
        for (n, daemon) in daemons.iter().enumerate() {
            let holds = |member: &usize| {
                let held = daemon.held.iter().find(|held| held.disk == *member);
                held.is_some_and(|held| !held.failed && held.coming == world.disks[*member].coming)
            };
            // At rest, with nothing to be taken in, the copies are equal.
            let rests = daemon.doing == Doing::Nothing && members.iter().all(holds);
            let first = members.first().map(|first| world.disks[*first].stores[n]);
            if rests && members.iter().any(|m| Some(world.disks[*m].stores[n]) != first) {
                return Err(format!("the copies of store {n} differ at rest"));
            }
        }
        Ok(())
    }

    /// Goes through all worlds, nearest first; the number of worlds, and what is wrong in one, with the way there.
    fn explore(&self) -> (usize, Result<(), (String, Vec<World>)>) {
        let start = self.start();
        // Each known world with the one that it came from.
        let mut known = HashMap::from([(digest(&start), 0)]);
        let mut waiting = VecDeque::from([start]);
        while let Some(world) = waiting.pop_front() {
            for next in self.steps(&world) {
                let Entry::Vacant(new) = known.entry(digest(&next)) else { continue };
                new.insert(digest(&world));
                if let Err(wrong) = self.check(&next) {
                    return (known.len(), Err((wrong, self.way(&known, &next))));
                }
                if known.len() >= self.size.states {
                    return (known.len(), Ok(()));
                }
                waiting.push_back(next);
            }
        }
        (known.len(), Ok(()))
    }

    /// How a world came about.
    fn way(&self, known: &HashMap<u64, u64>, end: &World) -> Vec<World> {
        let mut marks = vec![digest(end)];
        while let Some(before) = known.get(&marks[marks.len() - 1]).filter(|before| **before != 0) {
            marks.push(*before);
        }
        let mut way = vec![self.start()];
        for mark in marks.iter().rev().skip(1) {
            let steps = self.steps(&way[way.len() - 1]);
            way.extend(steps.into_iter().find(|world| digest(world) == *mark));
        }
        way
    }
}

/// A world is known by its hash: of some millions no two share one.
fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

const ONE: Size = Size {
    disks: 2,
    start: Start::One,
    stores: 1,
    writes: 2,
    generations: 4,
    comings: 1,
    states: 50_000,
};
const PAIR: Size = Size { start: Start::Pair, ..ONE };
const TORN: Size = Size { start: Start::Torn, generations: 5, ..ONE };

/// `ZOS_MODEL_WORLDS=3000000` goes to the end of most of these.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_merged() {
    let sizes = [
        ONE,
        PAIR,
        TORN,
        Size { stores: 2, comings: 0, ..ONE },
        Size { stores: 2, comings: 0, ..PAIR },
        Size { disks: 3, writes: 1, comings: 0, ..ONE },
        Size { disks: 3, writes: 1, ..PAIR },
        Size { disks: 3, writes: 1, ..TORN },
    ];
    let states = std::env::var("ZOS_MODEL_WORLDS").ok().and_then(|text| text.parse().ok());
    for size in sizes {
        let size = Size { states: states.unwrap_or(size.states), ..size };
        let (worlds, found) = Model { size, bug: None }.explore();
        println!("{size:?}: {worlds} worlds");
        if let Err((wrong, way)) = found {
            let way: Vec<String> = way.iter().map(|world| format!("{world:?}")).collect();
            panic!("{wrong}\n{}", way.join("\n"));
        }
    }
}

#[test]
fn each_planted_bug_is_found() {
    let bugs = [
        (Bug::AckBeforeNote, PAIR),
        (Bug::SameGeneration, PAIR),
        (Bug::WholeFirst, ONE),
        (Bug::FillUnmarked, ONE),
        (Bug::ByEpoch, TORN),
        (Bug::NoRenewal, PAIR),
        (Bug::TakesAll, TORN),
        (Bug::JoinEarly, ONE),
        (Bug::OneCopy, PAIR),
        (Bug::AsideUnmarked, TORN),
    ];
    let mut missed = Vec::new();
    for (bug, size) in bugs {
        let size = Size { states: 200_000, ..size };
        let (worlds, found) = Model { size, bug: Some(bug) }.explore();
        match found {
            Ok(()) => missed.push(bug),
            Err((wrong, _)) => println!("{bug:?}: {wrong}, after {worlds} worlds"),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

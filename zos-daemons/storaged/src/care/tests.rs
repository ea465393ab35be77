//! Care, played through: disks and pools whose answers the test gives, at times of its own.

use std::collections::BTreeSet;

use proptest::prelude::*;
use zos_host::block::{Bus, Disk, Kind};
use zos_types::disk::{PoolState, Verdict};
use zos_types::unit::{GIB, MIB};

use super::look::{Errors, PoolLook, Requests};
use super::space::Space;
use super::*;

const POOL: u64 = 20 * GIB;

fn disk(name: &str, bus: Bus) -> Disk {
    Disk {
        name: name.to_owned(),
        kind: Kind::Disk,
        bus,
        device: (8, 0),
        size: POOL,
        logical_block: 512,
        physical_block: 4096,
        rotational: bus != Bus::Nvme,
        removable: false,
        read_only: false,
        model: Some("Acme".into()),
        serial: Some(format!("serial-{name}")),
        id: name.to_owned(),
        id_is_slot: false,
        holders: Vec::new(),
        partitions: Vec::new(),
    }
}

fn seen(name: &str, bus: Bus, pool: Option<&str>) -> Seen {
    let key = DiskKey { name: name.to_owned(), coming: 1 };
    let pool = pool.map(|id| Held { id: id.to_owned(), root: "/pools".into() });
    Seen { key, disk: disk(name, bus), pool }
}

/// Disks whose counters the test sets; everything asked of them is done at once.
struct World {
    care: Care,
    up: Duration,
    clock: Timestamp,
    here: Vec<Seen>,
    health: BTreeMap<String, Result<Health, String>>,
    looks: BTreeMap<String, Look>,
    records: BTreeMap<String, Record>,
    /// What a scrub finds in each piece: repaired, unrepaired; none: it fails.
    finds: Option<(u64, u64)>,
    images: u64,
    /// Whether each question counts as a command that timed out.
    refuses: bool,
    /// Motors that were stopped, with the requests then.
    resting: BTreeMap<String, Option<Requests>>,
    done: Vec<(Duration, Action)>,
}

fn good() -> Health {
    Health { verdict: Verdict::Good, ..smart::unknown() }
}

impl World {
    fn new(here: Vec<Seen>) -> Self {
        let standby = Some(Duration::from_secs(20 * 60));
        let space = Space { size: POOL, unallocated: POOL, ..Space::default() };
        let pool = PoolLook { errors: Errors::default(), space, device: 1, size: POOL };
        let look = |seen: &Seen| Look {
            requests: Some(Requests::default()),
            pool: seen.pool.as_ref().map(|_| pool),
            ..Look::default()
        };
        Self {
            care: Care::new(Settings { standby }),
            up: Duration::ZERO,
            clock: Timestamp::from_second(1_800_000_000).unwrap(),
            health: here.iter().map(|seen| (seen.key.name.clone(), Ok(good()))).collect(),
            looks: here.iter().map(|seen| (seen.key.name.clone(), look(seen))).collect(),
            records: BTreeMap::new(),
            finds: Some((0, 0)),
            images: 0,
            here,
            refuses: false,
            resting: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn look(&mut self, name: &str) -> &mut Look {
        self.looks.get_mut(name).unwrap()
    }

    fn begin(&mut self) -> Duration {
        self.event(Event::Disks(self.here.clone()))
    }

    fn event(&mut self, event: Event) -> Duration {
        let (mut events, mut wake) = (VecDeque::from([event]), Duration::MAX);
        while let Some(event) = events.pop_front() {
            let now = Now { up: self.up, clock: self.clock };
            let (actions, next) = self.care.handle(now, event);
            wake = next;
            for action in actions {
                self.done.push((self.up, action.clone()));
                events.extend(self.work(action));
            }
        }
        wake
    }

    fn work(&mut self, action: Action) -> Option<Event> {
        Some(match action {
            Action::Ask(key)
                if self.resting.get(&key.name) == Some(&self.looks[&key.name].requests) =>
            {
                Event::Told(key, Ok(Health { standby: true, ..smart::unknown() }))
            }
            Action::Ask(key) => {
                self.look(&key.name).timeouts += u64::from(self.refuses);
                Event::Told(key.clone(), self.health[&key.name].clone())
            }
            Action::Look(key) => Event::Looked(key.clone(), self.looks[&key.name]),
            Action::Rest(key) => {
                self.resting.insert(key.name.clone(), self.looks[&key.name].requests);
                Event::Rested(key, Ok(()))
            }
            Action::Read(held) => {
                let record = self.records.get(&held.id).cloned().unwrap_or_default();
                Event::Recorded(held, Ok(record))
            }
            Action::Write(held, record) => {
                self.records.insert(held.id.clone(), record);
                Event::Written(held)
            }
            Action::Scrub(held, _, from, to) => {
                self.pass(Duration::from_secs(1));
                assert!(from < to && to <= POOL, "{from} to {to}");
                let found = |(repaired, unrepaired)| Scrubbed {
                    last: to,
                    read: to - from,
                    repaired,
                    unrepaired,
                };
                Event::Scrubbed(held, self.finds.map(found).ok_or("I/O error".to_owned()))
            }
            Action::Verify(held) => {
                self.pass(Duration::from_secs(60));
                Event::Verified(held)
            }
            Action::Collect(held, wanted) => {
                let freed = wanted.min(self.images);
                self.images -= freed;
                Event::Stepped(held, freed)
            }
            Action::Balance(held, _) => Event::Stepped(held, 0),
            Action::Drain(held) => {
                Event::Moved(held, Moved { moved: 1, left: vec!["web/data: no room".into()] })
            }
        })
    }

    /// Lives on for a time; each wake-up is followed.
    fn live(&mut self, time: Duration) {
        let end = self.up + time;
        let mut wake = self.event(Event::Tick);
        while wake < end {
            assert!(wake > self.up, "time goes on");
            self.pass(wake - self.up);
            wake = self.event(Event::Tick);
        }
        self.pass(end - self.up);
        self.event(Event::Tick);
    }

    fn pass(&mut self, time: Duration) {
        self.up += time;
        self.clock = self.clock.checked_add(time).unwrap();
    }

    fn faults(&self) -> Vec<String> {
        self.care.faults().into_iter().map(|fault| fault.id).collect()
    }

    fn condition(&self, pool: &str) -> PoolState {
        self.care.told().pools[pool].state
    }

    fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.done.iter().filter(|(_, action)| is(action)).count()
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn hours(count: u64) -> Duration {
    minutes(60 * count)
}

fn days(count: u64) -> Duration {
    hours(24 * count)
}

#[test]
fn disks_are_asked_rarely_and_a_doubtful_one_sooner() {
    let mut world = World::new(vec![seen("nvme0n1", Bus::Nvme, None), seen("sda", Bus::Ata, None)]);
    world.begin();
    world.live(days(1));
    let asked = world.count(|action| matches!(action, Action::Ask(_)));
    assert_eq!(asked, 2 * 48);
    let failing = Health {
        verdict: Verdict::Failing,
        reasons: vec!["it says that it fails".into()],
        ..good()
    };
    world.health.insert("nvme0n1".into(), Ok(failing));
    // A motor that rests is not woken for a question.
    world.live(hours(1));
    assert_eq!(world.faults(), ["care.disk-failing:nvme0n1"]);
    let told = world.care.told();
    assert_eq!(told.disks["nvme0n1"].verdict, Verdict::Failing);
    assert_eq!(told.disks["sda"].verdict, Verdict::Good);
    assert!(told.disks["sda"].standby);
}

#[test]
fn a_failing_disks_pool_is_at_risk_and_drained_and_all_of_it_is_known_after_a_boot() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    world.begin();
    world.live(hours(1));
    assert_eq!((world.condition("p"), world.faults().len()), (PoolState::Ready, 0));
    world.look("sda").pool.as_mut().unwrap().errors.write = 1;
    world.live(minutes(2));
    assert_eq!(world.faults(), ["care.disk-warns:sda"]);
    assert_eq!(world.condition("p"), PoolState::Ready);
    world.look("sda").pool.as_mut().unwrap().errors.write = 2;
    world.live(minutes(35));
    assert_eq!(world.condition("p"), PoolState::AtRisk);
    let fault = world.care.faults().remove(0);
    assert_eq!(fault.id, "care.disk-failing:sda");
    for words in
        ["Acme, serial-sda", "1 writes failed", "web/data: no room", "takes no new volumes"]
    {
        assert!(fault.detail.contains(words), "{words}: {}", fault.detail);
    }
    let drained = world.count(|action| matches!(action, Action::Drain(_)));
    assert!((3..=5).contains(&drained), "{drained}: tried again each 10 minutes");

    // The next boot: the same counts are nothing new, and the disk still fails, for the same reason.
    let mut next = World::new(world.here.clone());
    next.looks = world.looks.clone();
    next.records = world.records.clone();
    next.begin();
    next.live(minutes(1));
    assert_eq!(next.condition("p"), PoolState::AtRisk);
    assert_eq!(next.care.told().pools["p"].reasons, world.care.told().pools["p"].reasons);
    // A week without an error, and it is well again.
    next.live(days(7) + minutes(2));
    assert_eq!((next.condition("p"), next.faults().len()), (PoolState::Ready, 0));
    assert!(next.records["p"].failing.is_empty());
}

#[test]
fn what_was_counted_before_we_cared_is_not_held_against_a_disk() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    world.look("sda").pool.as_mut().unwrap().errors =
        Errors { write: 500, read: 9, ..Errors::default() };
    world.look("sda").timeouts = 77;
    world.begin();
    world.live(hours(2));
    assert!(world.faults().is_empty(), "{:?}", world.faults());
}

/// libata counts a command that the disk refuses as one that timed out, and smartctl tries some.
#[test]
fn what_our_own_questions_cost_is_not_held_against_a_disk() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    world.refuses = true;
    world.begin();
    for _ in 0..100 {
        world.look("sda").requests.as_mut().unwrap().done += 1;
        world.live(minutes(15));
    }
    assert!(world.look("sda").timeouts >= 40 && world.faults().is_empty(), "{:?}", world.faults());
    world.refuses = false;
    world.live(minutes(5));
    for _ in 0..4 {
        world.look("sda").timeouts += 1;
        world.look("sda").requests.as_mut().unwrap().done += 1;
        world.live(minutes(5));
    }
    assert_eq!(world.faults(), ["care.disk-failing:sda"]);
}

#[test]
fn a_disk_that_is_pulled_takes_its_history_along() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    world.begin();
    world.live(minutes(2));
    world.look("sda").offline = true;
    world.live(minutes(2));
    assert_eq!(world.faults(), ["care.disk-failing:sda"]);
    world.event(Event::Disks(Vec::new()));
    assert!(world.faults().is_empty() && world.care.told() == Told::default());
    // Another one by the same name; an answer of the first comes late.
    let mut other = seen("sda", Bus::Ata, None);
    other.key.coming = 2;
    world.look("sda").offline = false;
    world.event(Event::Disks(vec![other]));
    let late = DiskKey { name: "sda".into(), coming: 1 };
    world.event(Event::Told(late.clone(), Err("no answer".into())));
    world.event(Event::Looked(late, Look { offline: true, ..Look::default() }));
    world.live(minutes(2));
    assert!(world.faults().is_empty(), "{:?}", world.faults());
}

#[test]
fn scrubs_run_one_at_a_time_each_thirty_days_and_their_results_are_shown() {
    let pools = ["a", "b", "c"];
    let disks = pools.iter().map(|pool| seen(&format!("sd{pool}"), Bus::Ata, Some(pool)));
    let mut world = World::new(disks.collect());
    world.begin();
    world.live(days(30));
    for pool in pools {
        let scrub =
            world.care.told().pools[pool].scrub.clone().expect("a first one within 30 days");
        assert_eq!((scrub.read.0, scrub.unrepaired), (POOL, 0));
        assert!(scrub.ended.is_some());
    }
    let pieces = |world: &World| world.count(|action| matches!(action, Action::Scrub(..)));
    assert_eq!(pieces(&world), 3 * 20);
    assert_eq!(world.count(|action| matches!(action, Action::Verify(_))), 3);
    world.live(days(30));
    assert_eq!(pieces(&world), 6 * 20);
    let begins: BTreeSet<Duration> = world
        .done
        .iter()
        .filter(|(_, action)| matches!(action, Action::Scrub(_, _, 0, _)))
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(begins.len(), 6, "each at a time of its own: {begins:?}");

    world.finds = Some((1, 1));
    world.event(Event::Scrub("b".into()));
    world.live(hours(1));
    let scrub = world.care.told().pools["b"].scrub.clone().unwrap();
    assert_eq!((scrub.repaired, scrub.unrepaired), (20, 20));
    assert_eq!(world.faults(), ["care.scrub:b"]);
    assert!(world.care.faults()[0].detail.contains("sdb (Acme, serial-sdb)"));
    world.finds = Some((0, 0));
    world.event(Event::Scrub("b".into()));
    world.event(Event::Scrub("b".into()));
    world.event(Event::Scrub("not here".into()));
    world.live(hours(1));
    assert!(world.faults().is_empty(), "healed by a whole one without an error");
}

#[test]
fn a_scrub_goes_on_after_a_boot_and_after_an_error() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    world.begin();
    world.live(minutes(2));
    // Three pieces, then the power goes.
    world.event(Event::Scrub("p".into()));
    while world.count(|action| matches!(action, Action::Scrub(..))) < 3 {
        world.pass(Duration::from_millis(100));
        world.event(Event::Tick);
    }
    let kept = world.records["p"].scrub.clone().unwrap();
    assert_eq!((kept.position, kept.ended), (3 * GIB, None));
    let mut next = World::new(world.here.clone());
    next.records = world.records.clone();
    next.finds = None;
    next.begin();
    next.live(minutes(30));
    assert_eq!(next.count(|action| matches!(action, Action::Scrub(..))), 1, "an error: later");
    next.finds = Some((0, 0));
    next.live(hours(1));
    let scrub = next.care.told().pools["p"].scrub.clone().unwrap();
    assert_eq!((scrub.began, scrub.read.0), (kept.began, POOL));
    assert!(scrub.ended.is_some());
    // With a clock that can't be right nothing falls due by itself.
    let mut dark = World::new(world.here.clone());
    dark.clock = Timestamp::UNIX_EPOCH;
    dark.begin();
    dark.live(days(60));
    assert_eq!(dark.count(|action| matches!(action, Action::Scrub(..))), 0);
    assert_eq!(dark.records.get("p").and_then(|record| record.since), None);
}

#[test]
fn a_full_pool_gives_its_images_first_and_is_closed_last() {
    let mut world = World::new(vec![seen("sda", Bus::Ata, Some("p"))]);
    let full = |free| Space {
        size: POOL,
        unallocated: 0,
        data: POOL / 2,
        data_used: POOL / 4,
        metadata: GIB,
        metadata_used: GIB - free,
        kept: 0,
    };
    world.images = 500 * MIB;
    world.look("sda").pool.as_mut().unwrap().space = full(MIB);
    world.begin();
    // What the images gave was not of use: they were data.
    world.live(minutes(20));
    let steps: Vec<&Action> = world
        .done
        .iter()
        .map(|(_, action)| action)
        .filter(|action| matches!(action, Action::Collect(..) | Action::Balance(..)))
        .collect();
    let first = steps.iter().position(|step| matches!(step, Action::Balance(..))).unwrap();
    assert!(
        steps[..first].iter().all(|step| matches!(step, Action::Collect(..))) && world.images == 0
    );
    assert_eq!(world.condition("p"), PoolState::Full);
    assert_eq!(world.faults(), ["care.full:p"]);
    world.look("sda").pool.as_mut().unwrap().space = full(GIB);
    world.live(minutes(2));
    assert_eq!((world.condition("p"), world.faults().len()), (PoolState::Ready, 0));
}

#[test]
fn motors_rest_and_nothing_of_ours_counts_as_use() {
    let here = vec![
        seen("sda", Bus::Ata, Some("p")),
        seen("sdb", Bus::Usb, None),
        seen("sdc", Bus::Scsi, None),
        seen("vda", Bus::Virtio, None),
        seen("nvme0n1", Bus::Nvme, None),
    ];
    let mut world = World::new(here);
    // As long as somebody uses the disk it runs.
    world.begin();
    for _ in 0..12 {
        world.look("sda").requests.as_mut().unwrap().done += 1;
        world.live(minutes(10));
    }
    let rested = |world: &World| -> Vec<String> {
        let rests = world.done.iter().filter_map(|(_, action)| match action {
            Action::Rest(key) => Some(key.name.clone()),
            _ => None,
        });
        rests.collect()
    };
    assert_eq!(rested(&world), ["sdb"]);
    world.live(hours(5));
    assert_eq!(rested(&world), ["sdb", "sda"], "once, and no other disk");
    assert!(world.care.told().disks["sda"].standby);
    world.look("sda").requests.as_mut().unwrap().done += 1;
    world.live(minutes(2));
    assert!(!world.care.told().disks["sda"].standby);
}

#[test]
fn the_farmers_words() {
    let check = |said: Option<&str>, standby: Option<u64>, refused: usize| {
        let said = said.map(|text| ("disk.standby".to_owned(), text.to_owned()));
        let (settings, faults) =
            zos_daemon::Reader::config::<Settings>(&said.into_iter().collect());
        assert_eq!(settings.standby, standby.map(minutes));
        assert_eq!(faults.len(), refused);
    };
    check(None, Some(20), 0);
    check(Some("5"), Some(5), 0);
    check(Some("45min"), Some(45), 0);
    check(Some("never"), None, 0);
    check(Some("0"), Some(20), 1);
    check(Some("soon"), Some(20), 1);
}

proptest! {
    /// Whatever comes, in whatever order: at most one piece of one scrub is under way, and nobody panics.
    #[test]
    fn any_order_of_events(steps in prop::collection::vec((0..8u8, 0..3usize, 0..4000u64), 1..200)) {
        let disks = ["a", "b", "c"].map(|pool| seen(&format!("sd{pool}"), Bus::Ata, Some(pool)));
        let mut care = Care::new(Settings { standby: Some(minutes(20)) });
        let (mut up, mut here, mut pieces) = (Duration::ZERO, BTreeSet::new(), Vec::<(Held, bool)>::new());
        let clock = Timestamp::from_second(1_800_000_000).unwrap();
        let space = Space { size: POOL, unallocated: POOL, ..Space::default() };
        for (what, which, seconds) in steps {
            up += Duration::from_secs(seconds);
            let seen = &disks[which];
            let held = seen.pool.clone().unwrap();
            let event = match what {
                0 => {
                    if !here.remove(&which) {
                        here.insert(which);
                    }
                    let now = here.iter().map(|which| disks[*which].clone());
                    let now: Vec<Seen> = now.collect();
                    // The piece of a pool that went ends, and nobody hears of it.
                    pieces.retain(|(piece, _)| now.iter().any(|seen| seen.pool.as_ref() == Some(piece)));
                    Event::Disks(now)
                }
                1 => Event::Recorded(held, Ok(Record::default())),
                2 => {
                    let errors = Errors { read: seconds / 1000, ..Errors::default() };
                    let pool = Some(PoolLook { errors, space, device: 1, size: POOL });
                    Event::Looked(seen.key.clone(), Look { pool, ..Look::default() })
                }
                3 => Event::Scrub(held.id),
                4 => match pieces.pop() {
                    Some((held, true)) => Event::Scrubbed(held, Ok(Scrubbed::default())),
                    Some((held, false)) => Event::Verified(held),
                    None => Event::Tick,
                },
                5 => Event::Told(seen.key.clone(), Ok(good())),
                6 => Event::Moved(held, Moved::default()),
                _ => Event::Written(held),
            };
            let (actions, wake) = care.handle(Now { up, clock }, event);
            prop_assert!(wake > up);
            for action in actions {
                match action {
                    Action::Scrub(held, ..) => pieces.push((held, true)),
                    Action::Verify(held) => pieces.push((held, false)),
                    _ => {}
                }
            }
            prop_assert!(pieces.len() <= 1, "{:?}", pieces);
            let _ = (care.told(), care.faults());
        }
    }
}

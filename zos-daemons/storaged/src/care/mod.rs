//! Care: how disks do, what is done before they fail, and room before it runs out. It does nothing itself.
//!
//! ```text
//!  disks, pools ─┐                 ┌─ ask, look, rest      how is it? what did the kernel count? let it sleep
//!  answers ──────┼─▶ Care::handle ─┼─ scrub                one piece of one pool of the node at a time
//!  time ─────────┘      │          ├─ collect, balance     room for the file system itself
//!                       │          └─ drain                a failing disk's volumes to others
//!                       └─▶ Told: health of each disk, condition of each pool; faults
//! ```
//! Rules: `failing`, `scrub`, `space`, `rest`, each alone and pure. What a boot must not forget lies on the pool
//! it is about (`record`). Hands: `port`; `life` brings all of it to life.

pub mod failing;
pub mod hands;
pub mod images;
pub mod life;
pub mod look;
pub mod port;
pub mod record;
pub mod rest;
pub mod scrub;
pub mod settings;
pub mod smart;
pub mod space;
mod tell;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use zos_host::block;
use zos_host::btrfs::Scrubbed;
use zos_types::disk::Health;

use self::failing::{Evidence, History};
use self::look::Look;
use self::record::Record;
use self::rest::{Idle, Next};
use self::scrub::Progress;
use self::settings::Settings;
use self::space::{Pressure, Step};
pub use self::tell::{Condition, Told};
use crate::keeper::DiskKey;

/// Between two looks at what the kernel counts.
const LOOK: Duration = Duration::from_secs(60);
/// A disk that came is asked after this time: a boot has other things to do.
const FIRST: Duration = Duration::from_secs(20);
/// Between two questions to a disk.
const ASK: Duration = Duration::from_secs(30 * 60);
/// The same to one that said once that it fails.
const DOUBT: Duration = Duration::from_secs(60);
/// Between two attempts to move what found no room.
const DRAIN: Duration = Duration::from_secs(600);

/// A disk that is here, and the open pool on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Which coming of it.
    pub key: DiskKey,
    /// The disk.
    pub disk: block::Disk,
    /// The open pool on it.
    pub pool: Option<Held>,
}

/// An open pool.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// Where it is mounted.
    pub root: PathBuf,
}

/// What became of a pool's volumes that were to be moved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// How many were moved.
    pub moved: usize,
    /// Those that stay, each with why, in words.
    pub left: Vec<String>,
}

/// News.
#[derive(Clone, Debug)]
pub enum Event {
    /// The disks that are here now.
    Disks(Vec<Seen>),
    /// A disk's answer.
    Told(DiskKey, Result<Health, String>),
    /// What the kernel counted.
    Looked(DiskKey, Look),
    /// A motor was stopped, or not.
    Rested(DiskKey, Result<(), String>),
    /// What was kept of a pool.
    Recorded(Held, Result<Record, String>),
    /// A piece of a pool was looked through.
    Scrubbed(Held, Result<Scrubbed, String>),
    /// Both copies of the pool's volumes were compared.
    Verified(Held),
    /// What is kept of a pool was written.
    Written(Held),
    /// Room was made, this many bytes by deleting.
    Stepped(Held, u64),
    /// A pool's volumes were moved, as far as they could be.
    Moved(Held, Moved),
    /// The farmer wants a pool scrubbed.
    Scrub(String),
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask a disk how it is.
    Ask(DiskKey),
    /// See what the kernel counted of it.
    Look(DiskKey),
    /// Stop its motor.
    Rest(DiskKey),
    /// Read what is kept of a pool.
    Read(Held),
    /// Keep it.
    Write(Held, Record),
    /// Look through a piece of a pool: the disk's number in it, first byte, end.
    Scrub(Held, u64, u64, u64),
    /// Compare both copies of those of a pool's volumes that have two, the end of its scrub.
    Verify(Held),
    /// Delete images, at least this many bytes.
    Collect(Held, u64),
    /// Give back chunks that are filled less than this percentage.
    Balance(Held, u8),
    /// Move a pool's volumes to others.
    Drain(Held),
}

/// The time: since the start, and by the clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the start.
    pub up: Duration,
    /// By the clock, which may be wrong.
    pub clock: Timestamp,
}

/// A disk in care.
#[derive(Debug)]
struct Patient {
    disk: block::Disk,
    history: History,
    idle: Idle,
    asking: bool,
    /// It was spoken to since the last look: an ATA command that a disk refuses counts as one that timed out.
    spoken: bool,
    ask_at: Duration,
    looking: bool,
    look_at: Duration,
    look: Option<Look>,
}

/// A pool in care.
#[derive(Debug)]
struct Ward {
    held: Held,
    key: DiskKey,
    /// None: not read yet.
    record: Option<Record>,
    /// The record as it was last written.
    written: Option<Record>,
    /// It is being written: one after the other.
    writing: bool,
    pressure: Pressure,
    /// After an error of the kernel's no scrub before this time.
    scrub_from: Duration,
    drain: Drain,
}

/// How far the moving of a failing disk's volumes is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Drain {
    #[default]
    Idle,
    Moving,
    /// What stays, and when it is tried again.
    Waiting(Vec<String>, Duration),
}

/// The scrub that runs. There is one on a node at most.
#[derive(Debug)]
struct Running {
    held: Held,
    /// Since when in this run of the node.
    since: Duration,
    piece: Option<Duration>,
    next: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Care {
    settings: Settings,
    patients: BTreeMap<DiskKey, Patient>,
    wards: BTreeMap<String, Ward>,
    running: Option<Running>,
    /// Pools that the farmer wants scrubbed.
    asked: VecDeque<String>,
}

impl Care {
    /// Care of no disks yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            patients: BTreeMap::new(),
            wards: BTreeMap::new(),
            running: None,
            asked: VecDeque::new(),
        }
    }

    /// Takes in what happened; says what to do now, and when to be asked again at the latest.
    pub fn handle(&mut self, now: Now, event: Event) -> (Vec<Action>, Duration) {
        let mut actions = Vec::new();
        self.take(now, event, &mut actions);
        self.ask(now, &mut actions);
        self.care_for_pools(now, &mut actions);
        self.scrub(now, &mut actions);
        self.keep(&mut actions);
        (actions, self.wake(now))
    }

    fn take(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Disks(seen) => self.take_disks(now, seen, actions),
            Event::Told(key, answer) => {
                let Some(patient) = self.patients.get_mut(&key) else { return };
                patient.asking = false;
                let evidence = match answer {
                    Ok(health) => Evidence::Says(health),
                    Err(why) => Evidence::Silent(why),
                };
                patient.history.take(now.up, evidence);
                let pause = if patient.history.is_doubtful() { DOUBT } else { ASK };
                patient.ask_at = now.up + pause;
            }
            Event::Looked(key, look) => self.take_look(now, &key, look, actions),
            Event::Rested(key, done) => {
                let Some(patient) = self.patients.get_mut(&key) else { return };
                match done {
                    Ok(()) => patient.history.rests(),
                    Err(why) => {
                        tracing::debug!("{} does not rest: {why}", key.name);
                        patient.idle.refused(now.up);
                    }
                }
            }
            Event::Recorded(held, record) => self.take_record(now, &held, record),
            Event::Scrubbed(held, found) => self.take_scrubbed(now, &held, found),
            Event::Verified(held) => self.take_verified(now, &held),
            Event::Written(held) => {
                if let Some(ward) = ward(&mut self.wards, &held) {
                    ward.writing = false;
                }
            }
            Event::Stepped(held, deleted) => {
                if let Some(ward) = ward(&mut self.wards, &held) {
                    ward.pressure.done(deleted);
                    // What it brought is seen by the next look.
                    if let Some(patient) = self.patients.get_mut(&ward.key) {
                        patient.look_at = now.up;
                    }
                }
            }
            Event::Moved(held, moved) => {
                if let Some(ward) = ward(&mut self.wards, &held) {
                    ward.drain = Drain::Waiting(moved.left, now.up + DRAIN);
                }
            }
            Event::Scrub(pool) => {
                let runs = self.running.as_ref().is_some_and(|running| running.held.id == pool);
                if !runs && !self.asked.contains(&pool) {
                    self.asked.push_back(pool);
                }
            }
            Event::Tick => {}
        }
    }

    fn take_disks(&mut self, now: Now, seen: Vec<Seen>, actions: &mut Vec<Action>) {
        self.patients.retain(|key, _| seen.iter().any(|seen| &seen.key == key));
        let held = |ward: &Ward| {
            let same = |seen: &Seen| seen.key == ward.key && seen.pool.as_ref() == Some(&ward.held);
            seen.iter().any(same)
        };
        self.wards.retain(|_, ward| held(ward));
        let here = |id: &String| self.wards.contains_key(id);
        if self.running.as_ref().is_some_and(|running| !here(&running.held.id)) {
            self.running = None;
        }
        for Seen { key, disk, pool } in seen {
            if let Some(held) = pool
                && !self.wards.contains_key(&held.id)
            {
                actions.push(Action::Read(held.clone()));
                let ward = Ward {
                    held: held.clone(),
                    key: key.clone(),
                    record: None,
                    written: None,
                    writing: false,
                    pressure: Pressure::default(),
                    scrub_from: Duration::ZERO,
                    drain: Drain::Idle,
                };
                self.wards.insert(held.id, ward);
            }
            self.patients.entry(key).or_insert_with(|| Patient {
                disk,
                history: History::default(),
                idle: Idle::default(),
                asking: false,
                spoken: false,
                ask_at: now.up + FIRST,
                looking: false,
                look_at: now.up,
                look: None,
            });
        }
    }

    fn take_look(&mut self, now: Now, key: &DiskKey, look: Look, actions: &mut Vec<Action>) {
        let Some(patient) = self.patients.get_mut(key) else { return };
        (patient.looking, patient.look_at) = (false, now.up + LOOK);
        let before = patient.look.replace(look);
        let timeouts = before.map_or(0, |before| look.timeouts.saturating_sub(before.timeouts));
        if !std::mem::replace(&mut patient.spoken, patient.asking) {
            patient.history.take(now.up, Evidence::Timeouts(timeouts));
        }
        patient.history.take(now.up, Evidence::Offline(look.offline));
        if let Some(requests) = look.requests
            && rest::has_motor(&patient.disk)
        {
            match patient.idle.look(now.up, requests, self.settings.standby) {
                Next::Nothing => {}
                Next::Rest => {
                    patient.spoken = true;
                    actions.push(Action::Rest(key.clone()));
                }
                Next::Woke => patient.history.woke(),
            }
        }
        let Some(pool) = look.pool else { return };
        let Some(ward) = self.wards.values_mut().find(|ward| &ward.key == key) else { return };
        if let Some(record) = &mut ward.record {
            // What was counted before we cared says nothing about today.
            let before = record.errors.replace(pool.errors).unwrap_or(pool.errors);
            patient.history.take(now.up, Evidence::Errors(pool.errors.since(before)));
        }
        match ward.pressure.look(now.up, &pool.space) {
            Some(Step::Collect(bytes)) => actions.push(Action::Collect(ward.held.clone(), bytes)),
            Some(Step::Balance(filled)) => actions.push(Action::Balance(ward.held.clone(), filled)),
            None => {}
        }
    }

    fn take_record(&mut self, now: Now, held: &Held, record: Result<Record, String>) {
        let Some(ward) = ward(&mut self.wards, held) else { return };
        let record = record.unwrap_or_else(|why| {
            tracing::error!("read what is kept of pool {}: {why}", held.id);
            Record::default()
        });
        if !record.failing.is_empty()
            && let Some(patient) = self.patients.get_mut(&ward.key)
        {
            patient.history = History::failing_since_before(now.up, record.failing.clone());
        }
        ward.written = Some(record.clone());
        ward.record = Some(record);
    }

    /// Asks and looks at what is due.
    fn ask(&mut self, now: Now, actions: &mut Vec<Action>) {
        for (key, patient) in &mut self.patients {
            if !patient.asking && now.up >= patient.ask_at {
                (patient.asking, patient.spoken) = (true, true);
                actions.push(Action::Ask(key.clone()));
            }
            if !patient.looking && now.up >= patient.look_at {
                patient.looking = true;
                actions.push(Action::Look(key.clone()));
            }
            patient.history.judge(now.up);
        }
    }

    /// Moves away what lies on failing disks.
    fn care_for_pools(&mut self, now: Now, actions: &mut Vec<Action>) {
        for ward in self.wards.values_mut() {
            let history = self.patients.get(&ward.key).map(|patient| &patient.history);
            let failing = history.filter(|history| history.is_failing());
            if let Some(record) = &mut ward.record {
                if record.since.is_none() && scrub::is_plausible(now.clock) {
                    record.since = Some(now.clock);
                }
                let reasons = failing.and_then(History::health).map(|health| health.reasons);
                record.failing = reasons.unwrap_or_default();
            }
            let due = match &ward.drain {
                Drain::Idle => true,
                Drain::Moving => false,
                Drain::Waiting(_, at) => now.up >= *at,
            };
            match (failing.is_some(), due) {
                (true, true) => {
                    ward.drain = Drain::Moving;
                    actions.push(Action::Drain(ward.held.clone()));
                }
                (false, _) if ward.drain != Drain::Moving => ward.drain = Drain::Idle,
                _ => {}
            }
        }
    }

    fn scrub(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.running.is_none() {
            self.begin_scrub(now);
        }
        let Some(running) = &mut self.running else { return };
        if running.piece.is_some() || now.up < running.next {
            return;
        }
        let Some(ward) = ward(&mut self.wards, &running.held) else { return };
        let look = self.patients.get(&ward.key).and_then(|patient| patient.look?.pool);
        let progress = ward.record.as_ref().and_then(|record| record.scrub.as_ref());
        let (Some(look), Some(progress)) = (look, progress) else { return };
        let from = progress.position;
        running.piece = Some(now.up);
        if from >= look.size {
            actions.push(Action::Verify(running.held.clone()));
            return;
        }
        let to = from.saturating_add(scrub::PIECE).min(look.size);
        actions.push(Action::Scrub(running.held.clone(), look.device, from, to));
    }

    /// The farmer's wish comes first, then what is due for the longest.
    fn begin_scrub(&mut self, now: Now) {
        let may = |ward: &Ward| {
            let looked = self
                .patients
                .get(&ward.key)
                .is_some_and(|patient| patient.look.is_some_and(|look| look.pool.is_some()));
            looked && ward.record.is_some()
        };
        // A pool that is not here any more is not waited for.
        self.asked.retain(|pool| self.wards.contains_key(pool));
        let wished = self.asked.iter().position(|pool| self.wards.get(pool).is_some_and(may));
        let wished = wished.and_then(|at| self.asked.remove(at));
        let pool = wished.clone().or_else(|| {
            let ready =
                self.wards.iter().filter(|(_, ward)| may(ward) && now.up >= ward.scrub_from);
            let due = ready.filter_map(|(id, ward)| {
                let record = ward.record.as_ref()?;
                let due = scrub::due(id, record.since?, record.scrub.as_ref());
                (scrub::is_plausible(now.clock) && now.clock >= due).then_some((due, id.clone()))
            });
            due.min().map(|(_, id)| id)
        });
        let Some(ward) = pool.and_then(|pool| self.wards.get_mut(&pool)) else { return };
        let Some(record) = &mut ward.record else { return };
        let goes_on = record.scrub.as_ref().is_some_and(|scrub| scrub.ended.is_none());
        if !goes_on {
            record.scrub = Some(Progress::begin(now.clock));
        }
        let what = if goes_on { "goes on" } else { "begins" };
        tracing::info!("the scrub of pool {} {what}", ward.held.id);
        let since = if goes_on { Duration::ZERO } else { now.up };
        self.running = Some(Running { held: ward.held.clone(), since, piece: None, next: now.up });
    }

    fn take_scrubbed(&mut self, now: Now, held: &Held, found: Result<Scrubbed, String>) {
        let Some(running) = self.running.as_mut().filter(|running| &running.held == held) else {
            return;
        };
        let Some(began) = running.piece.take() else { return };
        let Some(ward) = ward(&mut self.wards, held) else { return };
        let patient = self.patients.get_mut(&ward.key);
        let progress = ward.record.as_mut().and_then(|record| record.scrub.as_mut());
        let (Some(patient), Some(progress)) = (patient, progress) else {
            self.running = None;
            return;
        };
        match found {
            Ok(found) => {
                let to = progress.position.saturating_add(scrub::PIECE);
                progress.position = found.last.max(to);
                progress.read = progress.read.saturating_add(found.read);
                progress.repaired = progress.repaired.saturating_add(found.repaired);
                progress.unrepaired = progress.unrepaired.saturating_add(found.unrepaired);
                // As long a pause as the piece took: half of the disk's time is everybody else's.
                running.next = now.up + now.up.saturating_sub(began);
                // What it found is evidence by the kernel's own count.
                patient.look_at = now.up;
            }
            Err(why) => {
                tracing::warn!("scrub pool {}: {why}; it goes on later", held.id);
                ward.scrub_from = now.up + scrub::RETRY;
                self.running = None;
            }
        }
    }

    /// The scrub of a pool is at its end.
    fn take_verified(&mut self, now: Now, held: &Held) {
        let runs = |running: &Running| &running.held == held && running.piece.is_some();
        let Some(running) = self.running.take_if(|running| runs(running)) else { return };
        let Some(ward) = ward(&mut self.wards, held) else { return };
        let progress = ward.record.as_mut().and_then(|record| record.scrub.as_mut());
        let Some(progress) = progress else { return };
        progress.ended = Some(now.clock);
        let Progress { repaired, unrepaired, .. } = *progress;
        tracing::info!(
            "the scrub of pool {} ended: {repaired} errors repaired, {unrepaired} not",
            held.id
        );
        if repaired == 0
            && unrepaired == 0
            && let Some(patient) = self.patients.get_mut(&ward.key)
        {
            patient.history.scrubbed_well(now.up, running.since);
        }
    }

    /// Writes what changed of what is kept.
    fn keep(&mut self, actions: &mut Vec<Action>) {
        for ward in self.wards.values_mut() {
            if let Some(record) = &ward.record
                && ward.written.as_ref() != Some(record)
                && !ward.writing
            {
                ward.writing = true;
                ward.written = Some(record.clone());
                actions.push(Action::Write(ward.held.clone(), record.clone()));
            }
        }
    }

    fn wake(&self, now: Now) -> Duration {
        let patients = self.patients.values();
        let asks = patients.clone().filter(|patient| !patient.asking).map(|patient| patient.ask_at);
        let looks = patients.filter(|patient| !patient.looking).map(|patient| patient.look_at);
        let running = self.running.iter().filter(|running| running.piece.is_none());
        let scrubs = running.map(|running| running.next);
        let soonest = asks.chain(looks).chain(scrubs).min().unwrap_or(now.up + LOOK);
        soonest.clamp(now.up + Duration::from_millis(100), now.up + LOOK)
    }
}

/// A pool in care, if it is still the same.
fn ward<'a>(wards: &'a mut BTreeMap<String, Ward>, held: &Held) -> Option<&'a mut Ward> {
    wards.get_mut(&held.id).filter(|ward| &ward.held == held)
}

#[cfg(test)]
mod tests;

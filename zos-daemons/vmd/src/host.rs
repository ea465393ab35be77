//! All VMs: one task owns them, and hears of everything as a message.
//!
//! ```text
//!  calls ───────────┐
//!  PID 1's units ───┼─▶ Host ── events ──▶ Machine ── actions ──▶ effects, each a task of its own
//!  effects' ends ───┤     │                                              │
//!  alarms ──────────┘     └─ notes, written before the actions           └─▶ a message again
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use zos_api::local::Change;
use zos_api::local::init::{
    Acknowledge, StopTransient, Unit, UnitKind, UnitState, Units, WatchUnits,
};
use zos_api::local::vm::VmStatus;
use zos_daemon::{Bus, CallError, FaultBoard, Owner};
use zos_host::clock::boottime_millis;
use zos_types::Fault;
use zos_types::deployment::Vm;

use crate::effects::{self, Places, unit};
use crate::machine::{Action, Event, GRACE, Machine, Millis, Phase, Seen, Wish};
use crate::meter::Live;
use crate::notes::{Key, Note, Notes, free_slot};
use crate::shares;

/// What the host is told.
#[derive(Debug)]
pub enum Message {
    /// A VM is to be so.
    Ensure(Key, Vm, oneshot::Sender<Result<Change, CallError>>),
    /// A VM is to be gone; answered when it is.
    Remove(Key, oneshot::Sender<()>),
    /// Which VMs there are.
    List(oneshot::Sender<Vec<VmStatus>>),
    /// Where a VM's console lies; the watch ends with the VM.
    Log(Key, oneshot::Sender<Option<(PathBuf, watch::Receiver<()>)>>),
    /// All are to go down; answered when they are.
    Drain(oneshot::Sender<()>),
    /// PID 1's units as they are.
    Units(Vec<Unit>),
    /// An effect came to its end; a start that succeeded has an address, or none.
    Effect(Key, Event, Option<Option<IpAddr>>),
}

/// How many VMs are in which state.
pub type Counts = BTreeMap<&'static str, usize>;

struct Entry {
    slot: u32,
    address: Option<IpAddr>,
    machine: Machine,
    /// Dropped with the entry: that is what its receivers wait for.
    life: watch::Sender<()>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Entry {
    /// What PID 1 calls the servers of the shares that the VM was started with.
    fn servers(&self, key: &Key) -> Vec<String> {
        let started = self.machine.before.as_ref().unwrap_or(&self.machine.vm);
        started.shares.iter().map(|share| shares::unit(key, share)).collect()
    }
}

/// All VMs.
pub struct Host {
    vms: BTreeMap<Key, Entry>,
    notes: Notes,
    places: Places,
    bus: Bus,
    faults: FaultBoard,
    tell: mpsc::Sender<Message>,
    /// Who waits for all VMs to be down; some: no VM is started any more.
    drain: Option<Vec<oneshot::Sender<()>>>,
    counts: Owner<Counts>,
    live: Owner<Vec<Live>>,
}

impl Host {
    /// Takes up what an earlier life noted.
    pub fn new(
        notes: Notes,
        places: Places,
        bus: Bus,
        faults: FaultBoard,
        tell: mpsc::Sender<Message>,
    ) -> Self {
        faults.replace(effects::NO_KVM, effects::open_kvm(&places.kvm).err());
        let found = notes.load().unwrap_or_else(|error| {
            let detail = format!("the notes on running VMs can't be read, so they are stopped and started again: {error}");
            faults.raise(Fault::new("vm.notes", detail));
            Vec::new()
        });
        let vms = found
            .into_iter()
            .map(|Note { twin, name, slot, address, machine }| {
                let life = watch::Sender::new(());
                ((twin, name), Entry { slot, address, machine, life, waiting: Vec::new() })
            })
            .collect();
        Self {
            vms,
            notes,
            places,
            bus,
            faults,
            tell,
            drain: None,
            counts: Owner::new(Counts::new()),
            live: Owner::new(Vec::new()),
        }
    }

    /// Publishes how many VMs are in which state, and which run.
    #[must_use]
    pub fn counted(mut self, counts: Owner<Counts>, live: Owner<Vec<Live>>) -> Self {
        (self.counts, self.live) = (counts, live);
        self
    }

    fn count(&self) {
        let mut counts = Counts::new();
        for entry in self.vms.values() {
            let state = entry.machine.state(|_| Timestamp::UNIX_EPOCH);
            *counts.entry(state.word()).or_default() += 1;
        }
        self.counts.set(counts);
        let running = self.vms.iter().filter(|(_, e)| e.machine.phase() == &Phase::Running);
        let live = running.map(|((twin, name), entry)| Live {
            slot: entry.slot,
            group: format!("{twin}/{}", name.dotted()),
            sockets: self.notes.sockets(entry.slot),
            vm: entry.machine.before.as_ref().unwrap_or(&entry.machine.vm).clone(),
        });
        self.live.set(live.collect());
    }

    /// Lives until nobody can tell it anything.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            self.count();
            let now = boottime_millis();
            let alarm = self.vms.values().filter_map(|entry| entry.machine.alarm()).min();
            let pause = alarm.map_or(Duration::from_secs(3600), |at| {
                Duration::from_millis(at.saturating_sub(now))
            });
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(boottime_millis(), message),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {
                    let now = boottime_millis();
                    let due = |entry: &Entry| entry.machine.alarm().is_some_and(|at| at <= now);
                    let due: Vec<Key> =
                        self.vms.iter().filter(|(_, e)| due(e)).map(|(k, _)| k.clone()).collect();
                    for key in due {
                        self.handle(now, &key, Event::Tick);
                    }
                }
            }
        }
    }

    fn take(&mut self, now: Millis, message: Message) {
        match message {
            Message::Ensure(key, vm, reply) => {
                let _ = reply.send(self.ensure(now, &key, vm));
            }
            Message::Remove(key, reply) => match self.vms.get_mut(&key) {
                None => {
                    let _ = reply.send(());
                }
                Some(entry) => {
                    entry.waiting.push(reply);
                    self.handle(now, &key, Event::Remove);
                }
            },
            Message::List(reply) => {
                let _ = reply.send(self.list(now));
            }
            Message::Log(key, reply) => {
                let log = |entry: &Entry| (self.notes.ring(entry.slot), entry.life.subscribe());
                let _ = reply.send(self.vms.get(&key).map(log));
            }
            Message::Drain(reply) => {
                self.drain.get_or_insert_default().push(reply);
                for key in self.keys() {
                    self.handle(now, &key, Event::Drain);
                }
                self.tell_drained();
            }
            Message::Units(units) => self.seen(now, &units),
            Message::Effect(key, event, address) => {
                if let (Some(entry), Some(address)) = (self.vms.get_mut(&key), address) {
                    entry.address = address;
                }
                self.handle(now, &key, event);
            }
        }
    }

    fn ensure(&mut self, now: Millis, key: &Key, vm: Vm) -> Result<Change, CallError> {
        if let Some(entry) = self.vms.get_mut(key) {
            // Who waited for it to be gone learns that it is wanted again.
            entry.waiting.clear();
            let same = entry.machine.vm == vm && entry.machine.wish == Wish::Run;
            self.handle(now, key, Event::Ensure(vm));
            return Ok(if same { Change::Unchanged } else { Change::Updated });
        }
        if self.drain.is_some() {
            return Err(CallError::busy("the node goes down"));
        }
        let slot = free_slot(self.vms.values().map(|entry| entry.slot))
            .ok_or_else(|| CallError::busy("no slot is free for another VM"))?;
        self.notes.forget(slot);
        let (life, waiting) = (watch::Sender::new(()), Vec::new());
        let entry = Entry { slot, address: None, machine: Machine::new(now, vm), life, waiting };
        self.vms.insert(key.clone(), entry);
        self.handle(now, key, Event::Tick);
        Ok(Change::Created)
    }

    fn list(&self, now: Millis) -> Vec<VmStatus> {
        let wall = Timestamp::now();
        let date = |at: Millis| {
            let ahead = at.cast_signed().saturating_sub(now.cast_signed());
            wall.saturating_add(jiff::SignedDuration::from_millis(ahead)).unwrap_or(wall)
        };
        self.vms
            .iter()
            .map(|((twin, name), entry)| VmStatus {
                twin: *twin,
                name: name.clone(),
                vm: entry.machine.vm.clone(),
                state: entry.machine.state(date),
                since: date(entry.machine.since),
                restarts: entry.machine.restarts,
                address: entry.address,
                trouble: entry.machine.fault().cloned(),
            })
            .collect()
    }

    fn seen(&mut self, now: Millis, units: &[Unit]) {
        let units: BTreeMap<&str, &Unit> = units
            .iter()
            .filter(|unit| unit.kind == UnitKind::Transient)
            .filter(|unit| unit.name.starts_with("vm/") || shares::is_server(&unit.name))
            .map(|unit| (unit.name.as_str(), unit))
            .collect();
        let keys = self.keys();
        for key in &keys {
            let seen = units.get(unit(key).as_str()).map_or(Seen::Absent, |unit| look(unit));
            self.handle(now, key, Event::Seen(seen));
            let serves = |unit: &String| {
                units.get(unit.as_str()).is_some_and(|unit| look(unit) == Seen::Alive)
            };
            let lost = |entry: &Entry| !entry.servers(key).iter().all(serves);
            if self.vms.get(key).is_some_and(lost) {
                self.handle(now, key, Event::ServerGone);
            }
        }
        // A VM that nobody here knows would run for ever, and nobody could tell whose it is.
        let servers = self.vms.iter().flat_map(|(key, entry)| entry.servers(key));
        let known: Vec<String> = keys.iter().map(unit).chain(servers).collect();
        for (name, unit) in units.iter().filter(|(name, _)| !known.iter().any(|k| k == *name)) {
            let (bus, name) = (self.bus.clone(), (*name).to_owned());
            match look(unit) {
                Seen::Ended { .. } => {
                    tokio::spawn(async move { bus.call(Acknowledge { unit: name }).await });
                }
                _ => {
                    tracing::warn!("{name} runs and is not known here: it is stopped");
                    let stop = StopTransient { unit: name, grace_ms: GRACE };
                    tokio::spawn(async move { bus.call(stop).await });
                }
            }
        }
    }

    /// Lets a VM take an event, notes what came of it, and sets out to do what follows.
    fn handle(&mut self, now: Millis, key: &Key, event: Event) {
        let Some(entry) = self.vms.get_mut(key) else { return };
        let before = (entry.machine.clone(), entry.address);
        let was = std::mem::discriminant(entry.machine.phase());
        if let Event::Started { result, .. } = &event {
            match result {
                Ok(()) => self.faults.clear(effects::NO_KVM),
                Err(fault) if fault.id == effects::NO_KVM => self.faults.raise(fault.clone()),
                Err(_) => {}
            }
        }
        let actions = entry.machine.handle(now, event);
        if std::mem::discriminant(entry.machine.phase()) != was {
            tracing::info!("{} of {}: {}", key.1, key.0.short(), entry.machine.phase());
        }
        if entry.machine.phase() == &Phase::Gone {
            if let Some(entry) = self.vms.remove(key) {
                self.notes.forget(entry.slot);
                if !self.vms.keys().any(|(twin, _)| *twin == key.0) {
                    self.notes.forget_twin(&key.0);
                }
                self.save();
                answer(entry.waiting);
            }
        } else if before != (entry.machine.clone(), entry.address) || !actions.is_empty() {
            self.save();
        }
        for action in actions {
            self.act(key, action);
        }
        self.tell_drained();
    }

    fn act(&self, key: &Key, action: Action) {
        let Some(entry) = self.vms.get(key) else { return };
        let (bus, tell, key) = (self.bus.clone(), self.tell.clone(), key.clone());
        let vm = entry.machine.vm.clone();
        match action {
            Action::Start { attempt } => {
                let (slot, notes) = (entry.slot, self.notes.clone());
                let places = self.places.clone();
                tokio::spawn(async move {
                    let result = effects::start(&bus, &places, &notes, &key, slot, &vm).await;
                    let address = result.as_ref().ok().copied();
                    let event = Event::Started { attempt, result: result.map(drop) };
                    let _ = tell.send(Message::Effect(key, event, address)).await;
                });
            }
            Action::Stop { grace } => {
                let stop = StopTransient { unit: unit(&key), grace_ms: grace };
                tokio::spawn(async move {
                    match bus.call(stop).await {
                        Ok(_) => {}
                        Err(CallError::NotFound { .. }) => {
                            let event = Event::Seen(Seen::Absent);
                            let _ = tell.send(Message::Effect(key, event, None)).await;
                        }
                        Err(error) => tracing::warn!("stop {}: {error}", key.1),
                    }
                });
            }
            Action::Acknowledge => {
                tokio::spawn(async move { bus.call(Acknowledge { unit: unit(&key) }).await });
            }
            Action::Release => {
                let before = entry.machine.before.clone();
                let gone = entry.machine.wish == Wish::Gone;
                tokio::spawn(async move {
                    let result = effects::release(&bus, &key, &vm, before.as_ref(), gone).await;
                    let result = result.map_err(|error| error.to_string());
                    if let Err(error) = &result {
                        tracing::warn!("give back what {} held: {error}", key.1);
                    }
                    let _ = tell.send(Message::Effect(key, Event::Released(result), None)).await;
                });
            }
        }
    }

    fn save(&self) {
        let notes = self.vms.iter().map(|((twin, name), entry)| Note {
            twin: *twin,
            name: name.clone(),
            slot: entry.slot,
            address: entry.address,
            machine: entry.machine.clone(),
        });
        match self.notes.save(notes.collect()) {
            Ok(()) => self.faults.clear("vm.notes"),
            Err(error) => {
                let detail = format!(
                    "running VMs can't be noted; a restart of vmd would stop them: {error}"
                );
                self.faults.raise(Fault::new("vm.notes", detail));
            }
        }
    }

    fn tell_drained(&mut self) {
        if let Some(waiting) = &mut self.drain
            && self.vms.values().all(|entry| entry.machine.is_down())
        {
            answer(std::mem::take(waiting));
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.vms.keys().cloned().collect()
    }
}

fn answer(waiting: Vec<oneshot::Sender<()>>) {
    for reply in waiting {
        // One that no longer waits is no matter.
        let _ = reply.send(());
    }
}

/// What a unit shows of a VM.
fn look(unit: &Unit) -> Seen {
    match unit.state {
        UnitState::Exited | UnitState::Failed => {
            Seen::Ended { exit: unit.exit, at: unit.since_ms.max(1) }
        }
        _ => Seen::Alive,
    }
}

/// Tells the host of PID 1's units, for as long as it listens.
pub async fn watch_units(bus: Bus, tell: mpsc::Sender<Message>) {
    let take = |Units { units }: Units| {
        let tell = tell.clone();
        async move { tell.send(Message::Units(units)).await.is_ok() }
    };
    bus.follow(|| WatchUnits {}, take).await;
}

//! The brain: the book, what the others told, and what is being done, behind one lock; and the loop
//! that brings what is there to what is wanted.
//!
//! ```text
//!  Put ─▶ parse ─▶ version ─▶ kept ─▶ room ─▶ write, fsync ─▶ answer
//!                                                │ wakes
//!          ┌─────────────────────────────────────▼─────┐
//!          │ observe ─▶ plan ─▶ begin what is due ─▶ …  │ again at each end of a step, after a
//!          └────────────────────────────────────────────┘ second while something is to do, after ten else
//! ```

mod judge;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};
use zos_api::local::capacity::Measure;
use zos_api::local::provision::{Deleted, Deployments, Evidence, Put, PutReply, UsageReply};
use zos_api::local::storage::{ListPools, ListSnapshots, ListVolumes, Snapshot, Volume};
use zos_api::local::vm::List as ListVms;
use zos_api::local::{CallError, Change};
use zos_daemon::store::StoreError;
use zos_daemon::{Backoff, Bus, FaultBoard, Outcome, Pace, Reconciler, Wake};
use zos_types::capacity::Resources;
use zos_types::disk::Pool;
use zos_types::status::DeploymentStatus;
use zos_types::volume::{Footprint, VolumeState};
use zos_types::{Bytes, Capacity, Deployment, Fault, Name, Workload, cloud};

use self::judge::judge;
use crate::attempts::{Attempts, Millis};
use crate::book::{Book, Owner, Verdict};
use crate::needs::There;
use crate::plan::{Desired, Key, Step, plan};
use crate::space::Need;
use crate::status::{History, Now, Seen, View};
use crate::steps;

/// Between two rounds: while all is as it is wanted, while something is to be done, after failures.
pub const PACE: Pace = Pace {
    every: Duration::from_secs(10),
    soon: Duration::from_secs(1),
    backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) },
};
/// How long others may take to tell what they have.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many of the last things that took room are remembered, for those who looked around before.
const RECENT: usize = 4096;

/// What storaged told: volumes and snapshots.
type Told = (Vec<Volume>, Vec<Snapshot>);

/// The brain.
#[derive(Debug)]
pub struct Brain {
    state: Mutex<State>,
    wake: Wake,
    bus: Bus,
    faults: FaultBoard,
    start: Instant,
}

#[derive(Debug)]
struct State {
    book: Book,
    seen: Seen,
    attempts: Attempts,
    history: History,
    /// Snapshots that are being taken, with the room that is promised to them.
    taking: BTreeMap<(Key, Name), Need>,
    /// Snapshots that are being destroyed: nothing is made from them any more.
    dropping: BTreeSet<(Key, Name)>,
    /// Counts ends of steps: what was asked before one and answered after it is out of date.
    ends: u64,
    /// The last of them that took room, by their count.
    recent: VecDeque<(u64, Need)>,
}

/// What twins hold of the disks, as far as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// Volumes.
    pub volumes: usize,
    /// Snapshots of them.
    pub snapshots: usize,
    /// What is set aside for both.
    pub reserved: Resources,
}

impl State {
    fn status(&mut self, now: Now, owner: &Owner, deployment: &Deployment) -> DeploymentStatus {
        let desired = self.book.desired();
        let (restores, seen) = (self.book.restores(), &self.seen);
        let view = View { restores, desired: &desired, seen, attempts: &self.attempts, now };
        view.deployment(&mut self.history, owner, deployment)
    }

    /// Looks at every workload, so that the times of its changes are known.
    fn look(&mut self, now: Now, desired: &Desired) {
        let Self { book, seen, attempts, history, .. } = self;
        let view = View { restores: book.restores(), desired, seen, attempts, now };
        for (owner, deployment) in book.current() {
            view.deployment(history, owner, deployment);
        }
        let leaving = |key: &Key| {
            let vms = seen.vms.iter().flatten();
            desired.removals.contains(key)
                || vms.map(|v| (v.twin, v.name.clone())).any(|k| k == *key)
        };
        history.retain(|key| {
            desired.vms.contains_key(key) || desired.volumes.contains_key(key) || leaving(key)
        });
    }

    /// Volumes that nobody wants and nobody took away.
    fn orphans(&self, desired: &Desired) -> Vec<&Volume> {
        let known = |key: &Key| desired.volumes.contains_key(key) || desired.removals.contains(key);
        let volumes = self.seen.volumes.iter().flatten();
        volumes.filter(|(key, _)| !known(key)).map(|(_, volume)| volume).collect()
    }

    /// What snapshots take, each as much as its volume did: what is set aside, and what is billed.
    fn snapshots(&self, which: impl Fn(&Key) -> bool) -> (Resources, Resources) {
        let of = self.seen.snapshots.iter().filter(|(key, _)| which(key));
        let of = of.flat_map(|(key, snapshots)| {
            let integrity = self.seen.volume(key).map(|v| v.integrity).unwrap_or_default();
            snapshots.iter().map(move |snapshot| (snapshot, integrity))
        });
        let each = of.map(|(snapshot, integrity)| {
            let charged = Footprint::of(snapshot.size, integrity).total();
            let billed = integrity.billed(snapshot.size);
            (snapshot.class.holds(charged), snapshot.class.holds(billed))
        });
        each.fold(Default::default(), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    /// Remembers that a volume was made or has grown: that room is taken.
    fn took(&mut self, volume: &Volume) {
        let each = |size| Footprint::of(size, volume.integrity).each;
        let before = self.seen.volume(&(volume.twin, volume.name.clone()));
        let before = before.map_or(Bytes(0), |before| each(before.size));
        let takes = Footprint::of(volume.size, volume.integrity);
        let takes = Footprint { each: takes.each - before, ..takes };
        self.took_need(Need { class: volume.class, takes, on: volume.pools.clone() });
    }

    /// Remembers that room was taken, at the end that is the last one.
    fn took_need(&mut self, need: Need) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((self.ends, need));
    }

    /// What twins hold of the disks.
    fn held(&self) -> Held {
        let volumes: Vec<&Volume> = self.seen.volumes.iter().flat_map(BTreeMap::values).collect();
        Held {
            volumes: volumes.len(),
            snapshots: self.seen.snapshots.values().map(Vec::len).sum(),
            reserved: charge(&volumes) + self.snapshots(|_| true).0,
        }
    }

    /// Volumes that storaged can't use, as a fault.
    fn broken(&self) -> Option<Fault> {
        let volumes = self.seen.volumes.iter().flat_map(BTreeMap::values);
        let broken = volumes.filter(|volume| volume.condition.state == VolumeState::Broken);
        let broken: Vec<String> = broken
            .map(|v| format!("{} of {}: {}", v.name, v.twin.short(), v.condition.reason))
            .collect();
        (!broken.is_empty()).then(|| {
            let detail = format!("volumes that can't be used: {}", broken.join("; "));
            Fault::new("provision.broken-volumes", detail)
        })
    }
}

impl Brain {
    /// A brain over an open book.
    pub fn new(book: Book, bus: Bus, faults: FaultBoard) -> Self {
        let state = State {
            book,
            seen: Seen::default(),
            attempts: Attempts::default(),
            history: History::default(),
            taking: BTreeMap::new(),
            dropping: BTreeSet::new(),
            ends: 0,
            recent: VecDeque::new(),
        };
        let (state, wake) = (Mutex::new(state), Wake::default());
        Self { state, wake, bus, faults, start: Instant::now() }
    }

    fn now(&self) -> Now {
        Now { wall: Timestamp::now(), millis: self.millis() }
    }

    fn millis(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Takes a deployment, or judges it only.
    pub async fn put(&self, request: Put) -> Result<PutReply, CallError> {
        let Put { twin, name, body, evidence, dry_run } = request;
        let body = BASE64_STANDARD
            .decode(body)
            .map_err(|_| CallError::invalid("the body is not base64"))?;
        let deployment = Deployment::from_json(&body).map_err(|errors| CallError::Invalid {
            detail: "the deployment breaks rules".to_owned(),
            errors,
        })?;
        let owner = (twin, name);
        let (mut state, room) = self.look_around(!deployment.workloads.is_empty()).await;
        let change = match state.book.judge(&owner, deployment.version, &body) {
            Verdict::Same => Change::Unchanged,
            Verdict::Create => Change::Created,
            Verdict::Update => Change::Updated,
            Verdict::Conflict(next) => return Err(conflict(&owner, deployment.version, next)),
        };
        if change != Change::Unchanged {
            judge(&state, &owner, &body, &deployment, &room?)?;
            if !dry_run {
                self.take(&mut state, &owner, &body, &deployment, evidence)?;
            }
        }
        let status = state.status(self.now(), &owner, &deployment);
        let keeps = |key: &Key| {
            let workload = deployment.workloads.get(&key.1.workload);
            key.0 == owner.0 && key.1.deployment == owner.1 && workload.is_some()
        };
        let used = deployment.resources() + state.snapshots(keeps).1;
        Ok(PutReply { change, status, used: cloud::used(&used) })
    }

    fn take(
        &self,
        state: &mut State,
        owner: &Owner,
        body: &[u8],
        deployment: &Deployment,
        evidence: Evidence,
    ) -> Result<(), CallError> {
        let written = state.book.put(owner, body, deployment, evidence);
        written.map_err(|error| CallError::failed(&error))?;
        tracing::info!("{} of {}: version {}", owner.1, owner.0.short(), deployment.version);
        self.changed(state, owner);
        Ok(())
    }

    /// Takes a deployment away.
    pub async fn delete(&self, owner: Owner, evidence: Evidence) -> Result<Deleted, CallError> {
        let mut state = self.state.lock().await;
        find(&state.book, &owner)?;
        let next_version =
            state.book.delete(&owner, evidence).map_err(|error| CallError::failed(&error))?;
        tracing::info!("{} of {}: deleted", owner.1, owner.0.short());
        self.changed(&mut state, &owner);
        Ok(Deleted { next_version })
    }

    fn changed(&self, state: &mut State, owner: &Owner) {
        state.attempts.forgive(|(twin, name)| *twin == owner.0 && name.deployment == owner.1);
        self.wake.up();
    }

    /// One deployment as it is.
    pub async fn get(&self, owner: Owner) -> Result<DeploymentStatus, CallError> {
        self.observe().await;
        let mut state = self.state.lock().await;
        let deployment = find(&state.book, &owner)?;
        Ok(state.status(self.now(), &owner, &deployment))
    }

    /// A twin's deployments as they are.
    pub async fn list(&self, twin: zos_types::TwinId) -> Deployments {
        self.observe().await;
        let mut state = self.state.lock().await;
        let own = state.book.current().filter(|((owner, _), _)| *owner == twin);
        let own: Vec<(Owner, Deployment)> = own.map(|(o, d)| (o.clone(), d.clone())).collect();
        let status = |(owner, deployment)| state.status(self.now(), &owner, &deployment);
        Deployments { deployments: own.into_iter().map(status).collect() }
    }

    /// What all twins together are charged.
    pub async fn usage(&self) -> UsageReply {
        let state = self.state.lock().await;
        let workloads = state.book.current().flat_map(|(_, d)| d.workloads.values());
        let vms = workloads.filter(|w| matches!(w, Workload::Vm(_))).count() as u64;
        let orphans = charge(&state.orphans(&state.book.desired()));
        let snapshots = state.snapshots(|_| true).0;
        UsageReply {
            resources: state.book.charged_without(None) + orphans + snapshots,
            deployments: state.book.current().count() as u64,
            vms,
        }
    }

    /// The state, and what the node has. What came to its end between the two is in the room as well, at
    /// worst twice. Whoever takes nothing of the node needs not know it.
    async fn look_around(&self, needed: bool) -> (MutexGuard<'_, State>, Result<Room, CallError>) {
        let ends = self.state.lock().await.ends;
        let asked = if needed { self.room().await } else { Ok((Room::default(), None)) };
        let mut state = self.state.lock().await;
        let room = asked.and_then(|(mut room, told)| {
            if let Some((volumes, snapshots)) = told.filter(|_| state.ends == ends) {
                state.seen.tell(volumes, snapshots);
            }
            if needed && state.seen.volumes.is_none() {
                return Err(CallError::busy("storaged has not told of its volumes yet"));
            }
            let oldest = state.recent.front().map_or(state.ends, |(end, _)| *end);
            if state.recent.len() == RECENT && oldest > ends + 1 {
                return Err(CallError::busy("the node is busy with its disks; try again"));
            }
            let since = state.recent.iter().filter(|(end, _)| *end > ends);
            room.taken = since.map(|(_, need)| need.clone()).collect();
            Ok(room)
        });
        (state, room)
    }

    /// What the node has, with the volumes and snapshots that take of it.
    async fn room(&self) -> Result<(Room, Option<Told>), CallError> {
        let asked = async {
            let (measured, pools, volumes, snapshots) = tokio::try_join!(
                self.bus.call(Measure {}),
                self.bus.call(ListPools {}),
                self.bus.call(ListVolumes {}),
                self.bus.call(ListSnapshots { twin: None }),
            )?;
            let (capacity, pools) = (measured.capacity, pools.pools);
            let room = Room { capacity, pools, taken: Vec::new() };
            Ok((room, Some((volumes.volumes, snapshots.snapshots))))
        };
        let late = || CallError::busy("the node does not yet know what it has; try again shortly");
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())?
    }

    /// Asks the others what there is; what one does not tell stays as it was known.
    async fn observe(&self) {
        let ends = self.state.lock().await.ends;
        let bus = self.bus.within(PATIENCE);
        let storage = async {
            tokio::try_join!(bus.call(ListVolumes {}), bus.call(ListSnapshots { twin: None }))
        };
        let (vms, storage) = tokio::join!(bus.call(ListVms {}), storage);
        let mut state = self.state.lock().await;
        if state.ends != ends {
            return;
        }
        if let Ok(vms) = vms {
            state.seen.vms = Some(vms.vms);
        }
        if let Ok((volumes, snapshots)) = storage {
            let locked: Vec<Key> = state.seen.locked().collect();
            state.seen.tell(volumes.volumes, snapshots.snapshots);
            // Who waited for a key goes on at once.
            if !state.seen.locked().eq(locked) {
                self.wake.up();
            }
        }
    }

    /// Brings what is there to what is wanted, until the way down begins.
    pub async fn reconcile(self: Arc<Self>, keeping: Reconciler) {
        let wake = self.wake.clone();
        let step = || {
            let brain = Arc::clone(&self);
            async move {
                brain.observe().await;
                brain.round().await.map_err(|error| CallError::failed(&error))
            }
        };
        keeping.run(wake, step).await;
    }

    /// How many deployments there are; none while something is being decided.
    pub fn deployments(&self) -> Option<usize> {
        self.state.try_lock().ok().map(|state| state.book.current().count())
    }

    /// What twins hold of the disks; none while something is being decided, or before storaged told.
    pub fn held(&self) -> Option<Held> {
        let state = self.state.try_lock().ok()?;
        state.seen.volumes.as_ref()?;
        Some(state.held())
    }

    /// One round.
    async fn round(self: &Arc<Self>) -> Result<Outcome, StoreError> {
        let mut state = self.state.lock().await;
        let Some(actual) = state.seen.actual() else { return Ok(Outcome::Pending) };
        let desired = state.book.desired();
        let made: Vec<Key> =
            desired.volumes.keys().filter(|key| actual.has(key)).cloned().collect();
        state.book.note_made(&made)?;
        let orphans: Vec<String> =
            state.orphans(&desired).iter().map(|v| format!("{} of {}", v.name, v.twin)).collect();
        let orphans = (!orphans.is_empty()).then(|| {
            let detail = format!(
                "volumes that no deployment has; they are left alone: {}",
                orphans.join(", ")
            );
            Fault::new("provision.orphan-volumes", detail)
        });
        self.faults.replace("provision.orphan-volumes", orphans);
        self.faults.replace("provision.broken-volumes", state.broken());
        state.look(self.now(), &desired);
        let steps = plan(&desired, &actual);
        // A disk that comes late is to be noticed soon.
        let missing = desired.volumes.keys().any(|key| !actual.has(key));
        let pending = missing || !steps.is_empty();
        for step in state.attempts.begin(self.millis(), steps) {
            let brain = Arc::clone(self);
            tokio::spawn(async move {
                let result = steps::perform(&brain.bus, &step).await;
                brain.ended(&step, result).await;
            });
        }
        Ok(if pending { Outcome::Pending } else { Outcome::Settled })
    }

    async fn ended(&self, step: &Step, result: Result<Option<Volume>, CallError>) {
        let mut state = self.state.lock().await;
        state.ends += 1;
        let noted = |e: StoreError| CallError::failed(&e).to_string();
        let result = match result {
            Ok(made) => {
                if let Some(made) = &made {
                    state.took(made);
                }
                state.seen.apply(step, made);
                steps::note(&mut state.book, step).map_err(noted)
            }
            Err(error) => {
                let given_up = steps::give_up(&mut state.book, step, &error).map_err(noted);
                given_up.and_then(|()| Err(error.to_string()))
            }
        };
        match &result {
            Ok(()) => tracing::info!("{}", steps::words(step)),
            Err(error) => tracing::warn!("{}: {error}", steps::words(step)),
        }
        state.attempts.end(self.millis(), step.key(), result);
        drop(state);
        self.wake.up();
    }
}

/// What the node has.
#[derive(Default)]
struct Room {
    capacity: Capacity,
    pools: Vec<Pool>,
    /// What was taken of it while it was asked for.
    taken: Vec<Need>,
}

/// What is set aside for volumes.
fn charge(volumes: &[&Volume]) -> Resources {
    let each = volumes.iter().map(|v| (v.class, Footprint::of(v.size, v.integrity).total()));
    each.map(|(class, size)| class.holds(size)).sum()
}

fn find(book: &Book, owner: &Owner) -> Result<Deployment, CallError> {
    let none = || CallError::not_found(format!("there is no deployment `{}`", owner.1));
    let entry = book.get(owner).ok_or_else(none)?;
    let current = entry.current.as_ref().ok_or_else(|| CallError::Conflict {
        detail: format!("deployment `{}` was deleted", owner.1),
        next_version: Some(entry.highest.saturating_add(1)),
    })?;
    Ok(current.deployment.clone())
}

fn conflict(owner: &Owner, version: u64, next: u64) -> CallError {
    CallError::Conflict {
        detail: format!(
            "version {version} of `{}` can't be taken: the next one is {next}",
            owner.1
        ),
        next_version: Some(next),
    }
}

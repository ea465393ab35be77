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

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use tokio::sync::Mutex;
use zos_api::local::capacity::Measure;
use zos_api::local::provision::{Deleted, Deployments, Evidence, Put, PutReply, UsageReply};
use zos_api::local::storage::{ListPools, ListVolumes, Volume};
use zos_api::local::vm::List as ListVms;
use zos_api::local::{CallError, Change};
use zos_daemon::store::StoreError;
use zos_daemon::{Backoff, Bus, FaultBoard, Outcome, Pace, Reconciler, Wake};
use zos_types::capacity::Resources;
use zos_types::deployment::Class;
use zos_types::status::DeploymentStatus;
use zos_types::{Capacity, Deployment, Fault, Workload, cloud};

use crate::admit::{Ledger, admit};
use crate::attempts::{Attempts, Millis};
use crate::book::{Book, Owner, Verdict};
use crate::plan::{Desired, Key, Step, plan};
use crate::status::{History, Now, Seen, View};
use crate::{kept, steps};

/// Between two rounds: while all is as it is wanted, while something is to be done, after failures.
pub const PACE: Pace = Pace {
    every: Duration::from_secs(10),
    soon: Duration::from_secs(1),
    backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) },
};
/// How long others may take to tell what they have.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Counts ends of steps: what was asked before one and answered after it is out of date.
    ends: u64,
}

impl State {
    fn status(&mut self, now: Now, owner: &Owner, deployment: &Deployment) -> DeploymentStatus {
        let desired = self.book.desired();
        let view = View { desired: &desired, seen: &self.seen, attempts: &self.attempts, now };
        view.deployment(&mut self.history, owner, deployment)
    }

    /// Looks at every workload, so that the times of its changes are known.
    fn look(&mut self, now: Now, desired: &Desired) {
        let Self { book, seen, attempts, history, .. } = self;
        let view = View { desired, seen, attempts, now };
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
        volumes.filter(|v| !known(&(v.twin, v.name.clone()))).collect()
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
            ends: 0,
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
        let room = self.room(&deployment).await;
        let mut state = self.state.lock().await;
        let change = match state.book.judge(&owner, deployment.version, &body) {
            Verdict::Same => Change::Unchanged,
            Verdict::Create => Change::Created,
            Verdict::Update => Change::Updated,
            Verdict::Conflict(next) => return Err(conflict(&owner, deployment.version, next)),
        };
        if change != Change::Unchanged {
            judge(&state, &owner, &body, &deployment, room?)?;
            if !dry_run {
                self.take(&mut state, &owner, &body, &deployment, evidence)?;
            }
        }
        let status = state.status(self.now(), &owner, &deployment);
        Ok(PutReply { change, status, used: cloud::used(&deployment.resources()) })
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
        UsageReply {
            resources: state.book.charged_without(None) + orphans,
            deployments: state.book.current().count() as u64,
            vms,
        }
    }

    /// What the node has, for a deployment that takes something of it.
    async fn room(&self, deployment: &Deployment) -> Result<Room, CallError> {
        if deployment.workloads.is_empty() {
            return Ok(Room::default());
        }
        let asked = async {
            let (measured, pools) =
                tokio::try_join!(self.bus.call(Measure {}), self.bus.call(ListPools {}))?;
            let pools = pools.pools.iter().map(|pool| (pool.class, pool.free)).collect();
            Ok(Room { capacity: measured.capacity, pools })
        };
        let late = || CallError::busy("the node does not yet know what it has; try again shortly");
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())?
    }

    /// Asks the others what there is; what one does not tell stays as it was known.
    async fn observe(&self) {
        let ends = self.state.lock().await.ends;
        let bus = self.bus.within(PATIENCE);
        let (vms, volumes) = tokio::join!(bus.call(ListVms {}), bus.call(ListVolumes {}));
        let mut state = self.state.lock().await;
        if state.ends != ends {
            return;
        }
        if let Ok(vms) = vms {
            state.seen.vms = Some(vms.vms);
        }
        if let Ok(volumes) = volumes {
            state.seen.volumes = Some(volumes.volumes);
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

    /// One round.
    async fn round(self: &Arc<Self>) -> Result<Outcome, StoreError> {
        let mut state = self.state.lock().await;
        let Some(actual) = state.seen.actual() else { return Ok(Outcome::Pending) };
        let desired = state.book.desired();
        let made: Vec<Key> =
            desired.volumes.keys().filter(|key| actual.volumes.contains(key)).cloned().collect();
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
        state.look(self.now(), &desired);
        let steps = plan(&desired, &actual);
        // A disk that comes late is to be noticed soon.
        let missing = desired.volumes.keys().any(|key| !actual.volumes.contains(key));
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
        let result = result.map_err(|error| error.to_string()).and_then(|made| {
            state.seen.apply(step, made);
            steps::note(&mut state.book, step).map_err(|e| CallError::failed(&e).to_string())
        });
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
    pools: Vec<(Class, zos_types::Bytes)>,
}

/// The rules that need more than the deployment itself.
fn judge(
    state: &State,
    owner: &Owner,
    body: &[u8],
    deployment: &Deployment,
    room: Room,
) -> Result<(), CallError> {
    let before = state.book.get(owner).and_then(|entry| entry.current.as_ref());
    if let Some(before) = before {
        let errors = kept::broken(&before.deployment, deployment);
        if !errors.is_empty() {
            let detail = "the deployment changes what must stay".to_owned();
            return Err(CallError::Invalid { detail, errors });
        }
    }
    if let Some(refusal) = state.book.refusal(owner, body) {
        return Err(CallError::Full { detail: refusal.to_owned(), errors: Vec::new() });
    }
    let desired = state.book.desired();
    let made = desired
        .made
        .iter()
        .filter(|(twin, name)| *twin == owner.0 && name.deployment == owner.1 && before.is_some());
    let ledger = Ledger {
        others: state.book.charged_without(Some(owner)) + charge(&state.orphans(&desired)),
        own: before.map(|before| before.deployment.charged()).unwrap_or_default(),
        volumes: made.map(|(_, name)| name.workload.clone()).collect(),
        pools: room.pools,
    };
    admit(&room.capacity, &ledger, deployment).map(drop).map_err(|rejection| CallError::Full {
        detail: "the node has no room for the deployment".to_owned(),
        errors: rejection.0,
    })
}

fn charge(volumes: &[&Volume]) -> Resources {
    let of = |class| {
        let sizes = volumes.iter().filter(|v| v.class == class).map(|v| v.size);
        sizes.sum::<zos_types::Bytes>()
    };
    Resources { sru: of(Class::Ssd), hru: of(Class::Hdd), ..Resources::default() }
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

//! Care brought to life: its time, its hands, and what others hear of it.
//!
//! ```text
//!  Life (keeper) ── Seen ──▶ run ── actions ──▶ Hands, apart ── events ─┐
//!                             ▲ └─▶ Told: calls, metrics, volumes       │
//!                             └───────────────────────────────────────────┘
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use zos_api::local::storage::Volume;
use zos_daemon::{CallError, FaultBoard};
use zos_types::disk::{self, PoolState};

use super::port::Hands;
use super::{Action, Care, Condition, Event, Held, Moved, Now, Seen, Told, record};
use crate::volume::Volumes;
use crate::volume::mover::Progress;

/// To compare the copies of one volume takes no longer: else something holds it.
const VERIFY: Duration = Duration::from_secs(24 * 3600);

/// Moves a pool's volumes to others, and places new ones by how pools do.
pub trait Mover: std::fmt::Debug + Send + Sync + 'static {
    /// Moves what finds room, while it is in use, and says what found none.
    fn move_away(&self, pool: &str) -> Pin<Box<dyn Future<Output = Moved> + Send>>;
    /// Compares both copies of those volumes of a pool that have two and are in use, and mends them.
    fn verify(&self, pool: &str) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// Hears how a pool does: one that isn't ready takes no new volumes.
    fn tell(&self, pool: &str, condition: &Condition);
}

impl Mover for Volumes {
    fn move_away(&self, pool: &str) -> Pin<Box<dyn Future<Output = Moved> + Send>> {
        let (volumes, pool) = (self.clone(), pool.to_owned());
        Box::pin(async move {
            let progress = watch::Sender::new(Progress::default());
            let Progress { moved, stays, .. } = volumes.move_away(&pool, &progress).await;
            Moved { moved, left: stays }
        })
    }

    fn verify(&self, pool: &str) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // A volume lies on two pools, and is read with the first of them.
        let on_pool = |volume: &Volume| volume.pools.first().is_some_and(|first| first == pool);
        let (volumes, mut found) = (self.clone(), self.list());
        found.retain(on_pool);
        Box::pin(async move {
            for Volume { twin, name, .. } in found {
                let short = twin.short();
                let verified = volumes.verify(twin, name.clone());
                match tokio::time::timeout(VERIFY, verified).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!("compare both copies of {name} of {short}: {error}");
                    }
                    Err(_) => {
                        tracing::warn!("compare both copies of {name} of {short}: no end of it");
                    }
                }
            }
        })
    }

    fn tell(&self, pool: &str, condition: &Condition) {
        // What the farmer decided stands.
        let leaves = |found: &disk::Pool| found.id == pool && found.condition == PoolState::Leaving;
        if !self.pools().iter().any(leaves) {
            self.set_condition(pool, condition.state, condition.reasons.clone());
        }
    }
}

/// What others have of care.
#[derive(Clone, Debug)]
pub struct View {
    /// What is known of disks and pools.
    pub told: watch::Receiver<Told>,
    events: mpsc::Sender<Event>,
}

impl View {
    /// Scrubs a pool as soon as no other is being scrubbed.
    pub async fn scrub(&self, pool: &str) -> Result<(), CallError> {
        if !self.told.borrow().pools.contains_key(pool) {
            return Err(CallError::not_found(format!("no pool {pool} of this node is open")));
        }
        let sent = self.events.send(Event::Scrub(pool.to_owned())).await;
        sent.map_err(|_| CallError::busy("storaged is going down"))
    }
}

/// Care with what it works on.
#[derive(Debug)]
pub struct Life {
    care: Care,
    hands: Arc<dyn Hands>,
    mover: Arc<dyn Mover>,
    faults: FaultBoard,
    started: Instant,
    seen: watch::Receiver<Vec<Seen>>,
    known: Vec<Seen>,
    events: mpsc::Receiver<Event>,
    news: mpsc::Sender<Event>,
    told: watch::Sender<Told>,
}

impl Life {
    /// Care of the disks that are seen, from now on.
    pub fn new(
        care: Care,
        hands: Arc<dyn Hands>,
        mover: Arc<dyn Mover>,
        faults: FaultBoard,
        seen: watch::Receiver<Vec<Seen>>,
    ) -> (Self, View) {
        let (news, events) = mpsc::channel(64);
        let (told, told_view) = watch::channel(Told::default());
        let view = View { told: told_view, events: news.clone() };
        let (started, known) = (Instant::now(), Vec::new());
        (Self { care, hands, mover, faults, started, seen, known, events, news, told }, view)
    }

    /// Lives until nobody tells of disks any more.
    pub async fn run(mut self) {
        let mut event = Event::Disks(self.seen.borrow_and_update().clone());
        loop {
            let up = self.started.elapsed();
            if let Event::Disks(seen) = &event {
                self.known.clone_from(seen);
            }
            let (actions, wake) = self.care.handle(Now { up, clock: Timestamp::now() }, event);
            for action in actions {
                self.start(action);
            }
            let told = self.care.told();
            for (pool, condition) in &told.pools {
                let new = |before: Option<&Condition>| {
                    let ready = condition.state == PoolState::Ready;
                    before.map_or(!ready, |before| {
                        (before.state, &before.reasons) != (condition.state, &condition.reasons)
                    })
                };
                if new(self.told.borrow().pools.get(pool)) {
                    self.mover.tell(pool, condition);
                }
            }
            self.told.send_if_modified(|known| {
                let changed = *known != told;
                *known = told;
                changed
            });
            self.faults.replace("care.", self.care.faults());
            let due = self.started + wake;
            event = tokio::select! {
                changed = self.seen.changed() => match changed {
                    Ok(()) => Event::Disks(self.seen.borrow_and_update().clone()),
                    Err(_) => return,
                },
                Some(event) = self.events.recv() => event,
                () = tokio::time::sleep_until(due.into()) => Event::Tick,
            };
        }
    }

    /// Does something apart from the daemon's one thread; its event comes when it is done.
    fn start(&self, action: Action) {
        let (news, hands) = (self.news.clone(), Arc::clone(&self.hands));
        let of =
            |key: &_| self.known.iter().find(|seen| &seen.key == key).map(|seen| seen.disk.clone());
        let work: Box<dyn FnOnce() -> Event + Send> = match action {
            Action::Drain(held) => {
                let moving = self.mover.move_away(&held.id);
                tokio::spawn(async move {
                    let _ = news.send(Event::Moved(held, moving.await)).await;
                });
                return;
            }
            Action::Verify(held) => {
                let verifying = self.mover.verify(&held.id);
                tokio::spawn(async move {
                    verifying.await;
                    let _ = news.send(Event::Verified(held)).await;
                });
                return;
            }
            Action::Ask(key) => {
                let Some(disk) = of(&key) else { return };
                Box::new(move || Event::Told(key, hands.ask(&disk)))
            }
            Action::Look(key) => {
                let Some(disk) = of(&key) else { return };
                Box::new(move || Event::Looked(key, hands.look(&disk)))
            }
            Action::Rest(key) => {
                let Some(disk) = of(&key) else { return };
                Box::new(move || Event::Rested(key, hands.rest(&disk)))
            }
            Action::Read(held) => Box::new(move || {
                let found = record::read(&held.root).map_err(|error| error.to_string());
                Event::Recorded(held, found)
            }),
            Action::Write(held, kept) => Box::new(move || {
                if let Err(error) = record::write(&held.root, &kept) {
                    tracing::error!("keep how pool {} does: {error}", held.id);
                }
                Event::Written(held)
            }),
            Action::Scrub(held, device, from, to) => Box::new(move || {
                let found = hands.scrub(&held.root, device, from, to);
                Event::Scrubbed(held, found)
            }),
            Action::Collect(held, bytes) => Box::new(move || {
                let freed = made_room(&held, "delete images", hands.collect(&held.root, bytes));
                Event::Stepped(held, freed)
            }),
            Action::Balance(held, filled) => Box::new(move || {
                let done = hands.balance(&held.root, filled).map(|()| 0);
                let freed = made_room(&held, "balance", done);
                Event::Stepped(held, freed)
            }),
        };
        tokio::spawn(async move {
            if let Ok(event) = tokio::task::spawn_blocking(work).await {
                let _ = news.send(event).await;
            }
        });
    }
}

fn made_room(held: &Held, what: &str, done: Result<u64, String>) -> u64 {
    done.unwrap_or_else(|why| {
        tracing::warn!("{what} for room in pool {}: {why}", held.id);
        0
    })
}

//! Where a daemon's state lies: one place, or two that hold the same.
//!
//! ```text
//!  storaged ── WatchState ──▶ State ── keep ──▶ Store::follow        a copy comes or goes
//!           ◀── LoseState ──────────────────── Store::write          a copy failed: before it is acknowledged
//!           ◀── JoinState ──────────────────── Store::follow         a new copy has all of it, and gets all that comes
//! ```

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zos_api::local::CallError;
use zos_api::local::storage::{JoinState, LoseState, StateCopies, WatchState};

use super::StoreError;
use crate::{Bus, Shutdown};

/// How long storaged may take to note a loss; nothing is acknowledged before.
const PATIENCE: Duration = Duration::from_secs(20);

/// A place of the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The pool that it lies on; empty in memory.
    pub pool: String,
    /// Names this coming of the pool: when it goes and comes again, it is another.
    pub coming: String,
    /// The daemon's own folder there.
    pub folder: PathBuf,
    /// Whether it holds all that was acknowledged; else it is to be filled.
    pub current: bool,
}

/// Who notes that a copy is lost, and that one has joined: storaged.
pub trait Witness: Debug + Send + Sync {
    /// The copy is lost: durable when it returns. Refused when no other is left.
    fn lose(&self, place: &Place, reason: &str) -> Result<(), CallError>;
    /// This daemon's part of the copy is whole and gets every write from now on.
    fn joined(&self, place: &Place) -> Result<(), CallError>;
}

/// The places of a daemon's state, current ones first.
#[derive(Clone, Debug)]
pub struct Copies {
    /// At least one.
    pub places: Vec<Place>,
    /// Who is told.
    pub witness: Arc<dyn Witness>,
}

/// A single folder has nobody to be told, and can't be lost.
#[derive(Debug)]
struct Alone;

impl Witness for Alone {
    fn lose(&self, place: &Place, reason: &str) -> Result<(), CallError> {
        let detail = format!("{} is the only copy: {reason}", place.folder.display());
        Err(CallError::Failed { detail })
    }

    fn joined(&self, _: &Place) -> Result<(), CallError> {
        Ok(())
    }
}

impl From<&Path> for Copies {
    fn from(folder: &Path) -> Self {
        let (pool, coming, folder) = (String::new(), String::new(), folder.to_owned());
        let places = vec![Place { pool, coming, folder, current: true }];
        Self { places, witness: Arc::new(Alone) }
    }
}

impl From<&PathBuf> for Copies {
    fn from(folder: &PathBuf) -> Self {
        folder.as_path().into()
    }
}

/// storaged, asked from a thread that waits.
#[derive(Debug)]
struct Storaged {
    bus: Bus,
}

impl Storaged {
    /// A call, made while the caller's thread waits: a write is acknowledged by whoever asked for
    /// it, and nothing else of the daemon may go on with what isn't safe yet.
    fn call<M: zos_api::local::Method<Reply = zos_api::local::Done> + Clone + Send + Sync>(
        &self,
        method: &M,
    ) -> Result<(), CallError> {
        let ask = || -> Result<(), CallError> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| CallError::failed(&error))?;
            runtime.block_on(async {
                let bus = self.bus.within(PATIENCE);
                let insisting = async {
                    loop {
                        match bus.call(method.clone()).await {
                            Ok(_) => return Ok(()),
                            // storaged is started again, or still on its way to know.
                            Err(CallError::Busy { .. }) => {
                                tokio::time::sleep(Duration::from_millis(100)).await;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                };
                let late = |_| CallError::busy(format!("{}: storaged does not answer", M::NAME));
                tokio::time::timeout(PATIENCE, insisting).await.map_err(late)?
            })
        };
        // A runtime can't be begun within another one, so it has a thread of its own.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, ask);
            let thread = thread.map_err(|error| CallError::failed(&error))?;
            thread.join().unwrap_or_else(|_| Err(CallError::busy("the call panicked")))
        })
    }
}

impl Witness for Storaged {
    fn lose(&self, place: &Place, reason: &str) -> Result<(), CallError> {
        let (pool, coming) = (place.pool.clone(), place.coming.clone());
        self.call(&LoseState { pool, coming, reason: reason.to_owned() })
    }

    fn joined(&self, place: &Place) -> Result<(), CallError> {
        self.call(&JoinState { pool: place.pool.clone(), coming: place.coming.clone() })
    }
}

/// What keeps something in all places at once.
pub trait Follow: Clone + Send + 'static {
    /// Takes the places as they are now: leaves those that went, fills and joins those that came.
    fn follow(&self, copies: &Copies) -> Result<(), StoreError>;
}

/// The places of a daemon's state, as storaged tells of them.
#[derive(Clone, Debug)]
pub struct State {
    noun: String,
    told: watch::Receiver<Option<StateCopies>>,
    witness: Arc<dyn Witness>,
}

impl State {
    /// Begins to watch, for as long as the daemon lives, and waits until the state has its place.
    pub async fn watch(bus: &Bus, shutdown: &Shutdown, noun: &str) -> Self {
        let (tell, mut told) = watch::channel(None);
        let watching = bus.clone();
        shutdown.spawn(async move {
            let take = |copies| {
                tell.send_replace(Some(copies));
                std::future::ready(true)
            };
            watching.follow(|| WatchState {}, take).await;
        });
        // The sender lives as long as the daemon.
        let _ = told.wait_for(Option::is_some).await;
        Self { noun: noun.to_owned(), told, witness: Arc::new(Storaged { bus: bus.clone() }) }
    }

    /// The places as they are now.
    pub fn copies(&self) -> Copies {
        let told = self.told.borrow();
        let list = told.as_ref().map(|told| told.copies.as_slice()).unwrap_or_default();
        let mut places: Vec<Place> = list
            .iter()
            .map(|copy| Place {
                pool: copy.pool.clone(),
                coming: copy.coming.clone(),
                folder: Path::new(&copy.path).join(&self.noun),
                current: copy.current,
            })
            .collect();
        places.sort_by_key(|place| !place.current);
        Copies { places, witness: Arc::clone(&self.witness) }
    }

    /// Whether the state outlives this boot.
    pub fn is_durable(&self) -> bool {
        self.told.borrow().as_ref().is_some_and(|told| told.durable)
    }

    /// Keeps a store in the places that there are, as they come and go. Does not end.
    pub async fn keep(mut self, kept: impl Follow) {
        loop {
            self.told.borrow_and_update();
            let (copies, kept) = (self.copies(), kept.clone());
            // In a thread of its own: it copies, and waits for disks.
            let done = tokio::task::spawn_blocking(move || kept.follow(&copies)).await;
            let failed = match done {
                Ok(Ok(())) => false,
                Ok(Err(error)) => {
                    tracing::warn!("{}", CallError::failed(&error));
                    true
                }
                Err(error) => {
                    tracing::error!("{error}");
                    true
                }
            };
            let again = tokio::time::sleep(if failed { PATIENCE } else { Duration::MAX });
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    }
}

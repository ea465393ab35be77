//! The keeper's hands: uevents and calls in, jobs done, faults and answers out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tokio::sync::{mpsc, watch};
use zos_api::local::storage::{Settled, StateCopies};
use zos_daemon::FaultBoard;
use zos_host::block::{self, Uevents};
use zos_types::disk::Disk;
use zos_types::{Fault, NodeId};

mod farmer;

pub use self::farmer::{Asks, Wish};
use self::farmer::{Message, Orders};
use crate::Places;
use crate::care::{self, Care, Held, Seen};
use crate::disk::header::Stage;
use crate::keeper::{DiskKey, Event, Job, Keeper, Memory, NotTaken};
use crate::machine::Machine;
use crate::pool::{Pool, PoolError};
use crate::volume::Volumes;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct View {
    /// `Settle`'s answer, once there is one.
    pub settled: watch::Receiver<Option<Settled>>,
    /// Every disk.
    pub disks: watch::Receiver<Vec<Disk>>,
    /// The node's identity, and whether it is lost with the next boot.
    pub node: watch::Receiver<Option<(NodeId, bool)>>,
    /// Whether the pools that are here are open, as far as they can be.
    pub steady: watch::Receiver<bool>,
    /// How disks and pools do.
    pub care: care::life::View,
    /// Where the copies of the state lie, once that is known.
    pub copies: watch::Receiver<Option<StateCopies>>,
    /// Pools and volumes.
    pub volumes: Volumes,
    /// News for the keeper.
    pub news: mpsc::Sender<Event>,
    /// The farmer's questions and orders.
    pub asks: Asks,
}

/// The keeper with what it works on.
pub struct Life {
    keeper: Keeper,
    places: Places,
    machine: Arc<dyn Machine>,
    faults: FaultBoard,
    started: Instant,
    /// How far a machine that waits for no disk is ahead of the clock.
    ahead: Duration,
    /// Whether the disks that are here were told.
    listed: bool,
    /// Jobs under way.
    working: usize,
    events: mpsc::Receiver<Event>,
    news: mpsc::Sender<Event>,
    settled: watch::Sender<Option<Settled>>,
    disks: watch::Sender<Vec<Disk>>,
    node: watch::Sender<Option<(NodeId, bool)>>,
    steady: watch::Sender<bool>,
    seen: watch::Sender<Vec<Seen>>,
    copies: watch::Sender<Option<StateCopies>>,
    volumes: Volumes,
    /// Open pools by id, for the state's place.
    pools: BTreeMap<String, Pool>,
    remembered: Option<Memory>,
    asks: Asks,
    asked: Option<mpsc::Receiver<Message>>,
    orders: Orders,
}

/// Reads what an earlier storaged of this boot left.
pub fn remembered(places: &Places) -> Option<Memory> {
    let text = fs::read(memory_file(places)).ok()?;
    serde_json::from_slice(&text)
        .map_err(|error| tracing::error!("what an earlier storaged left is unreadable: {error}"))
        .ok()
}

fn memory_file(places: &Places) -> PathBuf {
    places.memory.join("boot.json")
}

impl Life {
    /// Brings a keeper to life.
    pub fn new(
        keeper: Keeper,
        care: Care,
        places: Places,
        machine: Arc<dyn Machine>,
        faults: FaultBoard,
    ) -> (Self, View, care::life::Life) {
        let (news, events) = mpsc::channel(64);
        let (settled, settled_view) = watch::channel(keeper.settled().cloned());
        let (disks, disks_view) = watch::channel(Vec::new());
        let (node, node_view) = watch::channel(keeper.node());
        let (steady, steady_view) = watch::channel(false);
        let (copies, copies_view) = watch::channel(keeper.copies());
        let volumes = Volumes::over(machine.devices());
        let (seen, seen_view) = watch::channel(Vec::new());
        let mover = Arc::new(volumes.clone());
        let (care, care_view) =
            care::life::Life::new(care, machine.hands(), mover, faults.clone(), seen_view);
        let (asks, asked) = Asks::new();
        let view = View {
            care: care_view,
            settled: settled_view,
            disks: disks_view,
            node: node_view,
            steady: steady_view,
            copies: copies_view,
            volumes: volumes.clone(),
            news: news.clone(),
            asks: asks.clone(),
        };
        let remembered = keeper.memory();
        let life = Self {
            keeper,
            places,
            machine,
            faults,
            started: Instant::now(),
            ahead: Duration::ZERO,
            listed: false,
            working: 0,
            events,
            news,
            settled,
            disks,
            node,
            steady,
            seen,
            copies,
            volumes,
            pools: BTreeMap::new(),
            remembered,
            asks,
            asked: Some(asked),
            orders: Orders::new(),
        };
        (life, view, care)
    }

    /// Lives until the last of those who send news has gone, which is never.
    pub async fn run(mut self) {
        let mut wake = self.handle(Event::Tick).await;
        let Some(mut asked) = self.asked.take() else { return };
        loop {
            wake = tokio::select! {
                event = self.next(wake) => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                Some(message) = asked.recv() => self.answer(message).await,
            };
        }
    }

    async fn next(&mut self, wake: Option<Duration>) -> Option<Event> {
        let Some(wake) = wake else { return self.events.recv().await };
        let idle = self.listed && self.working == 0 && self.keeper.settled().is_none();
        if idle && !self.machine.waits() {
            self.ahead += wake.saturating_sub(self.now());
            return Some(Event::Tick);
        }
        let due = self.started + wake.saturating_sub(self.ahead);
        tokio::select! {
            event = self.events.recv() => event,
            () = tokio::time::sleep_until(due.into()) => Some(Event::Tick),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed() + self.ahead
    }

    async fn handle(&mut self, event: Event) -> Option<Duration> {
        match &event {
            Event::Opened(_, Ok(pool)) | Event::Taken(_, Ok(pool)) => {
                self.open(pool.as_ref().clone()).await;
            }
            Event::Owned(_, Ok(header)) => self.volumes.set_header(header),
            Event::Drained(key, Ok(())) => {
                let pool = self.keeper.subject(&key.name).and_then(|subject| subject.report.pool);
                pool.and_then(|pool| self.pools.remove(&pool));
            }
            _ => {}
        }
        self.report(&event);
        match &event {
            Event::Disks(..) => self.listed = true,
            Event::Judged(..)
            | Event::Marked(..)
            | Event::Opened(..)
            | Event::Owned(..)
            | Event::Taken(..)
            | Event::Drained(..)
            | Event::Wiped(..)
            | Event::Inscribed(..)
            | Event::Shown(..)
            | Event::Hidden(..)
            | Event::Prepared(_) => {
                self.working = self.working.saturating_sub(1);
            }
            Event::Identity(..)
            | Event::Told(..)
            | Event::Take(..)
            | Event::Release(..)
            | Event::StateLost(..)
            | Event::StateJoined(..)
            | Event::Tick => {}
        }
        if let Event::Inscribed(_, Ok(header)) = &event {
            if let Some(pool) = self.pools.get_mut(&header.pool) {
                pool.header = (**header).clone();
            }
            self.volumes.set_header(header);
        }
        let (jobs, wake) = self.keeper.handle(self.now(), event);
        // Before anything is begun: a storaged that starts again knows each place where something is shown.
        self.remember();
        for job in jobs {
            self.start(job);
        }
        self.drop_gone().await;
        self.disks.send_if_modified(|disks| replace(disks, self.keeper.disks()));
        self.seen.send_if_modified(|seen| replace(seen, self.present()));
        self.node.send_if_modified(|node| replace(node, self.keeper.node()));
        let steady = self.keeper.is_steady() || *self.steady.borrow();
        self.steady.send_if_modified(|known| replace(known, steady));
        // What was remembered first: a storaged that starts again knows each copy that was told.
        self.copies.send_if_modified(|copies| replace(copies, self.keeper.copies()));
        self.settled.send_if_modified(|settled| {
            let known = self.keeper.settled().cloned();
            let news = settled.is_none() && known.is_some();
            *settled = known;
            news
        });
        self.faults.replace("storage.", self.keeper.faults());
        wake
    }

    /// What is here, for care.
    fn present(&self) -> Vec<Seen> {
        let held = |id: &str| {
            let root = self.pools.get(id)?.root.clone();
            Some(Held { id: id.to_owned(), root })
        };
        let present = self.keeper.present();
        present
            .map(|(key, disk, pool)| Seen {
                key: key.clone(),
                disk: disk.clone(),
                pool: pool.and_then(held),
            })
            .collect()
    }

    async fn open(&mut self, pool: Pool) {
        let id = pool.header.pool.clone();
        self.pools.insert(id.clone(), pool.clone());
        let volumes = self.volumes.clone();
        let wrong = match tokio::task::spawn_blocking(move || volumes.add_pool(pool)).await {
            Ok(Ok(wrong)) => wrong,
            Ok(Err(error)) => vec![format!("list the volumes: {error}")],
            Err(error) => vec![format!("list the volumes: {error}")],
        };
        for what in wrong {
            // Not under `storage.`, whose faults are the keeper's and replaced by its own.
            self.faults.raise(Fault::new(format!("volumes.unreadable:{id}"), what));
        }
        self.look_after_volumes();
    }

    async fn drop_gone(&mut self) {
        let gone: Vec<String> =
            self.pools.keys().filter(|id| self.keeper.is_gone(id)).cloned().collect();
        for id in gone {
            self.volumes.drop_pool(&id);
            self.pools.remove(&id);
            self.machine.close(&id);
            self.look_after_volumes();
        }
    }

    /// Volumes with a copy on a pool that came or went are seen to at once.
    fn look_after_volumes(&self) {
        let volumes = self.volumes.clone();
        tokio::spawn(async move { volumes.look_after().await });
    }

    fn remember(&mut self) {
        let memory = self.keeper.memory();
        if memory == self.remembered {
            return;
        }
        let file = memory_file(&self.places);
        let text = serde_json::to_vec(&memory).unwrap_or_default();
        let new = file.with_extension("new");
        let written = fs::create_dir_all(&self.places.memory)
            .and_then(|()| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &file));
        match written {
            Ok(()) => self.remembered = memory,
            Err(error) => tracing::error!("write {}: {error}", file.display()),
        }
    }

    /// Does a job apart from the daemon's one thread; its event comes when it is done.
    fn start(&mut self, job: Job) {
        let (news, machine) = (self.news.clone(), Arc::clone(&self.machine));
        let disk = |key: &DiskKey| self.keeper.disk(key).cloned();
        let work: Box<dyn FnOnce() -> Event + Send> = match job {
            Job::Probe(key) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || Event::Judged(key, machine.judge(&disk, false)))
            }
            Job::Sample(key) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || Event::Judged(key, machine.judge(&disk, true)))
            }
            Job::Mark(key) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || Event::Marked(key, machine.marks(&disk)))
            }
            Job::Adopt(key, plan) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let made = machine.adopt(&disk, &plan);
                    Event::Opened(key, made.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Open(key, header) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let opened = machine.open(&disk, &header);
                    Event::Opened(key, opened.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Own(key, header, owner) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let owned = machine.own(&disk, &header, owner);
                    Event::Owned(key, owned.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Take(key, plan, word) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let made = machine.take(&disk, &plan, &word);
                    let made = made.map(Box::new).map_err(|error| match error {
                        PoolError::Changed(why) => NotTaken::Refused(why),
                        error => NotTaken::Failed(in_words(&error)),
                    });
                    Event::Taken(key, made)
                })
            }
            Job::Leave(key, header) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let marked = machine.set_stage(&disk, &header, Stage::Leaving);
                    Event::Owned(key, marked.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Drain(key, pool) => {
                self.working += 1;
                tokio::spawn(farmer::drain(self.volumes.clone(), key, pool, news));
                return;
            }
            Job::Wipe(key, header) => {
                let Some(disk) = disk(&key) else { return };
                let (news, wiped) = (news.clone(), key.clone());
                Box::new(move || {
                    let last = Cell::new(None);
                    let told = |percent: u8| {
                        if last.replace(Some(percent)) != Some(percent) {
                            let words = format!("{percent} %");
                            let _ = news.blocking_send(Event::Told(key.clone(), words));
                        }
                    };
                    let done = machine.wipe(&disk, &header, &told);
                    Event::Wiped(wiped, done.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Inscribe(key, header) => {
                let Some(disk) = disk(&key) else { return };
                Box::new(move || {
                    let written = machine.inscribe(&disk, &header);
                    Event::Inscribed(key, written.map(Box::new).map_err(|error| in_words(&error)))
                })
            }
            Job::Show(id, place) => {
                let pool = self.pools.get(&id).cloned();
                Box::new(move || {
                    let shown = match pool {
                        Some(pool) => machine.show(&pool, place).map_err(|error| in_words(&error)),
                        None => Err("its pool is not open".to_owned()),
                    };
                    Event::Shown(id, shown)
                })
            }
            Job::Hide(place) => Box::new(move || {
                let hidden = machine.hide(place);
                Event::Hidden(place, hidden.map_err(|error| in_words(&error)))
            }),
            Job::Prepare(id) => {
                let pool = id.and_then(|id| self.pools.get(&id).cloned());
                Box::new(move || {
                    let done = machine.prepare(pool.as_ref());
                    Event::Prepared(done.map_err(|error| in_words(&error)))
                })
            }
        };
        self.working += 1;
        tokio::spawn(async move {
            if let Ok(event) = tokio::task::spawn_blocking(work).await {
                let _ = news.send(event).await;
            }
        });
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn in_words(error: &dyn std::error::Error) -> String {
    zos_daemon::CallError::failed(error).to_string()
}

/// Tells the keeper of disks that come and go, for as long as it lives. Runs in a thread of its own:
/// tokio offers no safe way to wait for a netlink socket.
pub fn watch_disks(places: &Places, news: &mpsc::Sender<Event>) -> anyhow::Result<()> {
    let socket = Uevents::open()?;
    news.blocking_send(Event::Disks(block::list(&places.root)?, Vec::new()))?;
    loop {
        let mut waited = [PollFd::new(&socket, PollFlags::IN)];
        match rustix::event::poll(&mut waited, None) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        let (mut changed, mut gone) = (false, Vec::new());
        while let Some(event) = socket.event()? {
            let is_disk = event.lost() || event.is_block() && event.get("DEVTYPE") == Some("disk");
            changed |= is_disk;
            if is_disk && event.action == "remove" {
                gone.extend(event.get("DEVNAME").map(|name| name.replace('/', "!")));
            }
        }
        if changed {
            news.blocking_send(Event::Disks(block::list(&places.root)?, gone))?;
        }
    }
}

//! The farmer's questions and orders about disks: planned beside the daemon's work, carried out by the keeper.
//!
//! ```text
//!  Ask ─▶ subject ─▶ plan, made in a thread of its own ─┬─ no word: the plan is the answer
//!                                                       ├─ another hash: Conflict, with the plan in words
//!                                                       └─ its hash ─▶ Order ─▶ keeper ─▶ job ─▶ answer
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use zos_api::local::CallError;
use zos_types::disk::DiskPlan;

use super::Life;
use crate::adopt::plan;
use crate::disk::header::Stage;
use crate::keeper::{DiskKey, Event, NotTaken, Subject};
use crate::machine::Machine;
use crate::volume::Volumes;
use crate::volume::mover::Progress;

/// What the farmer would do with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Take it over, with all that is on it.
    Adopt,
    /// Empty and wipe it.
    Release,
}

/// A plan that is asked for, or with its hash one that is to be carried out.
#[derive(Debug)]
pub(super) struct Ask {
    disk: String,
    wish: Wish,
    /// The hash of the plan that the farmer read.
    word: Option<String>,
    answer: Answer,
}

/// The way back to who asked: for the plan, as soon as it is made or once it is carried out.
type Answer = oneshot::Sender<Result<DiskPlan, CallError>>;

/// What reaches the daemon's one thread.
#[derive(Debug)]
pub(super) enum Message {
    Ask(Ask),
    /// A plan that was confirmed.
    Order(Box<Order>),
}

#[derive(Debug)]
pub(super) struct Order {
    key: DiskKey,
    wish: Wish,
    plan: DiskPlan,
    answer: Answer,
}

/// Where questions go.
#[derive(Clone, Debug)]
pub struct Asks(mpsc::Sender<Message>);

impl Asks {
    pub(super) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(8);
        (Self(sender), receiver)
    }

    /// Asks for a plan or, with its hash, for it to be carried out.
    pub async fn ask(
        &self,
        disk: String,
        wish: Wish,
        word: Option<String>,
    ) -> Result<DiskPlan, CallError> {
        let gone = || CallError::busy("storaged is going down");
        let (answer, plan) = oneshot::channel();
        let ask = Message::Ask(Ask { disk, wish, word, answer });
        self.0.send(ask).await.map_err(|_| gone())?;
        plan.await.map_err(|_| gone())?
    }
}

/// Orders that are being carried out.
pub(super) type Orders = BTreeMap<DiskKey, Order>;

impl Life {
    pub(super) async fn answer(&mut self, message: Message) -> Option<std::time::Duration> {
        match message {
            Message::Ask(ask) => {
                self.plan(ask);
                self.handle(Event::Tick).await
            }
            Message::Order(order) => {
                let event = match order.wish {
                    Wish::Adopt => Event::Take(order.key.clone(), order.plan.hash.clone()),
                    Wish::Release => Event::Release(order.key.clone()),
                };
                // What forbids it may have come since it was planned.
                let may = match order.wish {
                    Wish::Adopt => self.keeper.may_take(&order.key).map(drop),
                    Wish::Release => self.keeper.may_release(&order.key).map(drop),
                };
                match may {
                    Ok(()) => {
                        tracing::warn!("the farmer's word on {}: {:?}", order.key.name, order.wish);
                        self.orders.insert(order.key.clone(), *order);
                        self.handle(event).await
                    }
                    Err(why) => {
                        let _ = order.answer.send(Err(conflict(why)));
                        self.handle(Event::Tick).await
                    }
                }
            }
        }
    }

    fn plan(&self, ask: Ask) {
        let Ask { disk, wish, word, answer } = ask;
        let Some(subject) = self.keeper.subject(&disk) else {
            let _ = answer.send(Err(CallError::not_found(format!("there is no disk {disk}"))));
            return;
        };
        let state = match wish {
            Wish::Adopt => self.keeper.may_take(&subject.key).map(|plan| plan.state),
            Wish::Release => self.keeper.may_release(&subject.key).map(|_| false),
        };
        let state = match state {
            Ok(state) => state,
            Err(why) => {
                let _ = answer.send(Err(conflict(why)));
                return;
            }
        };
        let (machine, volumes) = (Arc::clone(&self.machine), self.volumes.clone());
        let asks = self.asks.clone();
        tokio::spawn(async move {
            let key = subject.key.clone();
            let plan = match wish {
                Wish::Adopt => plan_adoption(subject, state, machine).await,
                Wish::Release => Ok(plan_release(subject, &volumes)),
            };
            let confirmed = |plan: &DiskPlan| word.as_ref().is_some_and(|word| *word == plan.hash);
            let refused = match plan {
                Ok(plan) if confirmed(&plan) => {
                    let order = Message::Order(Box::new(Order { key, wish, plan, answer }));
                    let _ = asks.0.send(order).await;
                    return;
                }
                Ok(plan) if word.is_some() => Err(outdated(&plan)),
                plan => plan,
            };
            let _ = answer.send(refused);
        });
    }

    /// Tells who gave an order how it ended.
    pub(super) fn report(&mut self, event: &Event) {
        let (key, result) = match event {
            Event::Taken(key, result) => (key, result.as_ref().map(drop).map_err(not_taken)),
            // Given back: the word is durable, and the rest goes on by itself.
            Event::Owned(key, Ok(header)) if header.stage == Stage::Leaving => (key, Ok(())),
            Event::Owned(key, Err(error)) => (key, Err(failed(error))),
            _ => return,
        };
        if let Some(Order { plan, answer, .. }) = self.orders.remove(key) {
            let _ = answer.send(result.map(|()| plan));
        }
    }
}

fn not_taken(why: &NotTaken) -> CallError {
    match why {
        NotTaken::Refused(why) => conflict(format!("nothing was written: {why}")),
        NotTaken::Failed(error) => failed(error),
    }
}

fn failed(error: &str) -> CallError {
    CallError::Failed { detail: error.to_owned() }
}

fn conflict(detail: String) -> CallError {
    CallError::Conflict { detail, next_version: None }
}

fn outdated(plan: &DiskPlan) -> CallError {
    let DiskPlan { disk, does, loses, hash } = plan;
    let lost = if loses.is_empty() { "nothing".to_owned() } else { loses.join("; ") };
    conflict(format!(
        "{} has changed since that plan. Now: {}. Lost would be: {lost}. This plan's hash is {hash}",
        disk.name,
        does.join("; "),
    ))
}

async fn plan_adoption(
    subject: Subject,
    state: bool,
    machine: Arc<dyn Machine>,
) -> Result<DiskPlan, CallError> {
    let Subject { disk, report, .. } = subject;
    let looked = tokio::task::spawn_blocking(move || machine.look(&disk)).await;
    let looked = looked.map_err(|error| CallError::failed(&error))?;
    let (disk, contents) = looked.map_err(|error| CallError::failed(&error))?;
    plan::adoption(report, &disk, &contents, state).map_err(conflict)
}

fn plan_release(subject: Subject, volumes: &Volumes) -> DiskPlan {
    let Subject { disk, report, pool, .. } = subject;
    let pool = pool.or_else(|| report.pool.clone()).unwrap_or_default();
    plan::release(report, &disk, &pool, &volumes.moves(&pool))
}

/// Empties a pool as far as it can be, and lets go of it when nothing is left.
pub(super) async fn drain(volumes: Volumes, key: DiskKey, pool: String, news: mpsc::Sender<Event>) {
    let (told, mut heard) = watch::channel(Progress::default());
    let words = async {
        while heard.changed().await.is_ok() {
            let Progress { total, moved, .. } = *heard.borrow_and_update();
            let words = format!("{moved} of {total} volumes have moved");
            let _ = news.send(Event::Told(key.clone(), words)).await;
        }
    };
    let move_away = async {
        let progress = volumes.move_away(&pool, &told).await;
        drop(told);
        progress
    };
    let (progress, ()) = tokio::join!(move_away, words);
    let left = volumes.let_go(&pool).map_err(|left| match &progress.stays[..] {
        [] => format!("on it still: {}", left.join(", ")),
        stays => format!("{}. Make room on another disk, or delete what can go", stays.join("; ")),
    });
    let _ = news.send(Event::Drained(key, left)).await;
}

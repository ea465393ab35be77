//! netd: the node's links and addresses, and the network of its VMs.
//!
//! ```text
//!   uplinks                          the node                          VMs
//!   NIC ── DHCP client or ─┐                               ┌─ tap ── VM
//!   NIC    fixed address ──┼── routes ── firewall, NAT ── zvm0
//!          SLAAC (kernel) ─┘                  DHCP, DNS ───┴─ tap ── VM
//! ```
//! Ending or killing this process takes nothing away: addresses (until their leases end), rules, bridge and
//! the taps that VMs hold stay, and the next start finds them.
//! Absent on purpose: time synchronization (later), IPv6 for VMs, anything wireless.
#![forbid(unsafe_code)]

pub mod dhcp;
pub mod firewall;
pub mod kernel;
pub mod links;
pub mod nat;
pub mod nft;
pub mod node;
pub mod settings;
pub mod uplink;
pub mod vm;

use std::pin::pin;

use tokio::sync::{mpsc, oneshot, watch};
use zos_api::local::Done;
use zos_api::local::net::{CloseTaps, Describe, INTERFACE, ListTaps, OpenTap, Taps};
use zos_daemon::metrics::Labels;
use zos_daemon::store::{Copies, Follow, State, StoreError};
use zos_daemon::{Call, CallError, Daemon, Metrics, Router, View};
use zos_host::SysRoot;

use crate::node::{Command, Counts, Node};
use crate::settings::Settings;

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let (commands, inbox) = mpsc::channel(16);
    let (tell, known) = watch::channel(false);
    let faults = daemon.faults.clone();
    let node = Node::new(SysRoot::host(), daemon.config::<Settings>(), faults, inbox, tell)?;
    count(&daemon.metrics, &node.counts());
    let node = daemon.shutdown.spawn(node.run());
    let (bus, shutdown) = (daemon.bus.clone(), daemon.shutdown.clone());
    let kept = Kept { commands: commands.clone() };
    daemon.shutdown.spawn(async move {
        State::watch(&bus, &shutdown, "net").await.keep(kept).await;
    });
    let shutdown = daemon.shutdown.clone();
    let mut serving = pin!(daemon.serve(router(commands, known)));
    tokio::select! {
        served = &mut serving => Ok(served?),
        ended = node => {
            if shutdown.has_begun() {
                return Ok(serving.await?);
            }
            ended?;
            anyhow::bail!("the kernel's network events have ended")
        }
    }
}

/// The node's store, which its task opens.
#[derive(Clone)]
struct Kept {
    commands: mpsc::Sender<Command>,
}

impl Follow for Kept {
    fn follow(&self, copies: &Copies) -> Result<(), StoreError> {
        let (reply, opened) = oneshot::channel();
        let told = self.commands.blocking_send(Command::State(copies.clone(), reply));
        match told.ok().and_then(|()| opened.blocking_recv().ok()).flatten() {
            Some(store) => store.follow(copies),
            // It is tried again by the task, from where the copies lie now.
            None => Ok(()),
        }
    }
}

/// What the node's task counts.
#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
fn count(metrics: &Metrics, counts: &View<Counts>) {
    let gauge = |name, help, of: fn(&Counts) -> usize| {
        let counts = counts.clone();
        metrics.measure(name, help, move || vec![(Labels::new(), of(&counts.now()) as f64)]);
    };
    gauge("uplinks", "Network cards in use", |counts| counts.uplinks);
    gauge("leases", "Uplinks with an IPv4 address", |counts| counts.leases);
    gauge("taps", "Taps of VMs", |counts| counts.taps);
}

/// What is served: each call becomes a command to the node's task.
pub fn router(commands: mpsc::Sender<Command>, known: watch::Receiver<bool>) -> Router {
    let node = Asker { commands, known };
    let (describe, open, list, close) = (node.clone(), node.clone(), node.clone(), node);
    Router::new(&INTERFACE)
        .on(move |_: Call, _: Describe| {
            let node = describe.clone();
            async move { node.ask(Command::Describe).await }
        })
        .on_fds(move |_: Call, tap: OpenTap| {
            let node = open.clone();
            async move {
                node.known().await?;
                let (twin, name, index, queues) = (tap.twin, tap.name, tap.index, tap.queues);
                let zos_types::deployment::NetworkKind::Nat = tap.network;
                node.ask(|reply| Command::Open(twin, name, index, queues, reply)).await?
            }
        })
        .on(move |_: Call, _: ListTaps| {
            let node = list.clone();
            async move {
                node.known().await?;
                Ok(Taps { taps: node.ask(Command::List).await? })
            }
        })
        .on(move |_: Call, vm: CloseTaps| {
            let node = close.clone();
            async move {
                node.known().await?;
                node.ask(|reply| Command::Close(vm.twin, vm.name, reply)).await??;
                Ok(Done {})
            }
        })
}

/// The way to the node's task.
#[derive(Clone)]
struct Asker {
    commands: mpsc::Sender<Command>,
    known: watch::Receiver<bool>,
}

impl Asker {
    /// Waits until the table of taps is there.
    async fn known(&self) -> Result<(), CallError> {
        let mut known = self.known.clone();
        known.wait_for(|known| *known).await.map_err(|_| gone())?;
        Ok(())
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

fn gone() -> CallError {
    CallError::busy("netd is starting again")
}

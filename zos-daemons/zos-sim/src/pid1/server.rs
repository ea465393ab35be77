//! What PID 1 answers: `org.zos.Init` over simulated units.
//!
//! ```text
//!  call ─▶ Core (decides) ─▶ orders ─▶ the node: threads, VMs, the way down
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use zos_api::local::init::{
    self, Acknowledge, Boot, Crashes, Describe, DescribeUnit, Events, INTERFACE, KillUnit,
    ListCrashes, ListUnits, ReadLog, Reload, Reloaded, RestartUnit, SetLastEnd, Shutdown,
    StartTransient, StartUnit, StopTransient, StopUnit, UnitDetail, UnitState, Units, WatchEvents,
    WatchUnits,
};
use zos_api::local::{CallError, Done};
use zos_daemon::{Call, Router, Sink};
use zos_host::clock::boottime_millis;
use zos_types::machine::BootReason;

use super::{Action, Core, Input, Log, SERVICES};
use crate::guest::{Server, Vmm};

/// Templates, with their slots: users are numbered by them.
const TEMPLATES: [(&str, u32); 2] = [("vm", 10_000), ("virtiofsd", 80_000)];
/// Signals by name (signal(7)).
const SIGNALS: [(&str, i32); 10] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("TERM", 15),
    ("STOP", 19),
];

/// What the node is to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// What follows from the units.
    Do(Action),
    /// Let a VM live.
    Vm(String, Box<Vmm>),
    /// Let a share be served.
    Server(String, Server),
    /// Press a VM's button, and end it after the grace, in milliseconds.
    Stop(String, u64),
    /// Take the node down.
    Shutdown(init::Action),
}

/// Makes a VM of what was passed for it.
pub(crate) type MakeVm = dyn Fn(&[String], Vec<OwnedFd>) -> io::Result<Vmm> + Send + Sync;

/// A simulated PID 1. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Pid1(Arc<Inner>);

struct Inner {
    core: Mutex<Core>,
    boot: Mutex<Boot>,
    changed: watch::Sender<u64>,
    orders: mpsc::UnboundedSender<Order>,
    logs: BTreeMap<&'static str, Log>,
    make_vm: Box<MakeVm>,
}

impl Pid1 {
    /// At the begin of a boot: no unit runs yet.
    pub(crate) fn new(
        boot: Boot,
        logs: BTreeMap<&'static str, Log>,
        make_vm: Box<MakeVm>,
    ) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let core = Mutex::new(Core::new(boottime_millis()));
        let (boot, changed) = (Mutex::new(boot), watch::Sender::new(0));
        (Self(Arc::new(Inner { core, boot, changed, orders, logs, make_vm })), inbox)
    }

    /// Starts every service.
    pub(crate) fn start(&self) {
        for name in SERVICES {
            self.tell(Input::Start(name.to_owned()));
        }
    }

    /// What happened, and what follows.
    pub(crate) fn tell(&self, input: Input) {
        if let Err(error) = self.take(input) {
            tracing::warn!("{error}");
        }
    }

    /// The units.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The boot.
    pub(crate) fn boot(&self) -> MutexGuard<'_, Boot> {
        self.0.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the changes of units.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// What a service prints.
    pub(crate) fn log(&self, name: &str) -> Option<Log> {
        self.0.logs.get(name).cloned()
    }

    fn take(&self, input: Input) -> Result<(), CallError> {
        let actions = self.core().handle(boottime_millis(), input)?;
        for action in actions {
            self.order(Order::Do(action));
        }
        self.0.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn order(&self, order: Order) {
        // A node that no longer listens goes down.
        let _ = self.0.orders.send(order);
    }

    fn start_vm(&self, request: &StartTransient, fds: Vec<OwnedFd>) -> Result<(), CallError> {
        let StartTransient { template, name, twin, slot, fds: names, .. } = request;
        let Some((_, slots)) = TEMPLATES.iter().find(|(known, _)| known == template) else {
            return Err(CallError::invalid(format!("there is no template {template}")));
        };
        if slot >= slots || names.len() != fds.len() {
            let (named, passed) = (names.len(), fds.len());
            let detail = format!("slot {slot}, {named} names for {passed} descriptors");
            return Err(CallError::invalid(detail));
        }
        let unit = format!("{template}/{twin}/{name}");
        if template == "virtiofsd" {
            let server = Server::new(names, fds).map_err(|error| CallError::failed(&error))?;
            self.take(Input::Vm(unit.clone()))?;
            self.order(Order::Server(unit, server));
            return Ok(());
        }
        let vmm = (self.0.make_vm)(names, fds).map_err(|error| CallError::failed(&error))?;
        self.take(Input::Vm(unit.clone()))?;
        self.order(Order::Vm(unit, Box::new(vmm)));
        Ok(())
    }

    fn stop_vm(&self, unit: String, grace: u64) -> Result<(), CallError> {
        let state = self.core().unit(&unit)?.state;
        if state != UnitState::Exited {
            self.order(Order::Stop(unit, grace));
        }
        Ok(())
    }

    fn shut_down(&self, action: init::Action) -> Result<(), CallError> {
        if action == init::Action::Kexec {
            let detail = "no kernel is loaded, and a simulated node can't have one".to_owned();
            return Err(CallError::Conflict { detail, next_version: None });
        }
        self.boot().ending = Some(action);
        self.order(Order::Shutdown(action));
        Ok(())
    }

    fn describe_unit(&self, name: &str) -> Result<UnitDetail, CallError> {
        let unit = self.core().unit(name)?.clone();
        let log_bytes = self.log(name).map_or(0, |log| log.bytes());
        Ok(UnitDetail { unit, usage: None, log_bytes })
    }

    /// `org.zos.Init`.
    pub(crate) fn router(&self) -> Router {
        let done = |result: Result<(), CallError>| async move { result.map(|()| Done {}) };
        let me = || self.clone();
        let (boot, units, one, start, stop) = (me(), me(), me(), me(), me());
        let (restart, kill, acknowledge, vm, stop_vm) = (me(), me(), me(), me(), me());
        let (shutdown, ended, watched, events, logs) = (me(), me(), me(), me(), me());
        Router::new(&INTERFACE)
            .on(move |_: Call, _: Describe| {
                let boot = boot.boot().clone();
                async move { Ok(boot) }
            })
            .on(move |_: Call, _: ListUnits| {
                let units = units.core().units();
                async move { Ok(Units { units }) }
            })
            .on(move |_: Call, DescribeUnit { unit }| {
                let detail = one.describe_unit(&unit);
                async move { detail }
            })
            .on(move |_: Call, StartUnit { unit }| done(start.take(Input::Start(unit))))
            .on(move |_: Call, StopUnit { unit }| done(stop.take(Input::Stop(unit))))
            .on(move |_: Call, RestartUnit { unit }| done(restart.take(Input::Restart(unit))))
            .on(move |_: Call, KillUnit { unit, signal }| {
                let number = number(&signal);
                done(number.and_then(|number| kill.take(Input::Kill(unit, number))))
            })
            .on(move |_: Call, Acknowledge { unit }| {
                let forgotten = acknowledge.core().acknowledge(&unit);
                acknowledge.0.changed.send_modify(|count| *count += 1);
                done(forgotten)
            })
            .on(move |call: Call, request: StartTransient| done(vm.start_vm(&request, call.fds)))
            .on(move |_: Call, StopTransient { unit, grace_ms }| {
                done(stop_vm.stop_vm(unit, grace_ms))
            })
            .on(async |_: Call, _: Reload| Ok(Reloaded::default()))
            .on(async |_: Call, _: ListCrashes| Ok(Crashes::default()))
            .on(move |_: Call, Shutdown { action }| done(shutdown.shut_down(action)))
            .on(move |_: Call, SetLastEnd { end }| {
                let mut boot = ended.boot();
                if end.is_none() && boot.boot_reason == BootReason::Cold {
                    boot.boot_reason = BootReason::PowerLoss;
                }
                done(Ok(()))
            })
            .on_stream(move |_: Call, _: WatchUnits, out: Sink<Units>| {
                let pid1 = watched.clone();
                async move {
                    let mut changed = pid1.watch();
                    loop {
                        changed.borrow_and_update();
                        let units = pid1.core().units();
                        out.send(Units { units }).await?;
                        changed.changed().await.map_err(|_| over())?;
                    }
                }
            })
            .on_stream(move |_: Call, WatchEvents { mut after }, out: Sink<Events>| {
                let pid1 = events.clone();
                async move {
                    let mut changed = pid1.watch();
                    let mut first = true;
                    loop {
                        changed.borrow_and_update();
                        let (events, missed) = pid1.core().events(after);
                        after = events.last().map_or(after, |event| event.sequence);
                        if first || !events.is_empty() {
                            out.send(Events { events, missed }).await?;
                        }
                        first = false;
                        changed.changed().await.map_err(|_| over())?;
                    }
                }
            })
            .on_stream(move |_: Call, ReadLog { unit, mut after }, out| {
                let pid1 = logs.clone();
                async move {
                    pid1.core().unit(&unit)?;
                    let none = || CallError::not_found(format!("PID 1 holds no log of {unit}"));
                    let log = pid1.log(&unit).ok_or_else(none)?;
                    let mut grown = log.watch();
                    let mut first = true;
                    loop {
                        grown.borrow_and_update();
                        let entries = log.read(after);
                        after = entries.entries.last().map_or(after, |entry| entry.cursor);
                        if first || !entries.entries.is_empty() {
                            out.send(entries).await?;
                        }
                        first = false;
                        grown.changed().await.map_err(|_| over())?;
                    }
                }
            })
    }
}

impl std::fmt::Debug for Pid1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pid1").field(&self.core().units().len()).finish()
    }
}

fn over() -> CallError {
    CallError::busy("the node goes down")
}

fn number(signal: &str) -> Result<i32, CallError> {
    let name = signal.strip_prefix("SIG").unwrap_or(signal);
    let found = SIGNALS.iter().find(|(known, _)| *known == name);
    let unknown = || CallError::invalid(format!("there is no signal {signal}"));
    found.map(|(_, number)| *number).ok_or_else(unknown)
}

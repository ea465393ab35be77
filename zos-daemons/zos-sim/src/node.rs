//! A simulated node: its PID 1, its daemons and its VMs, over one boot after the other.
//!
//! ```text
//!            ┌─────────────────────── reboot ───────────────────────┐
//!            ▼                                                      │
//!  power ─▶ boot: sockets, PID 1, daemons ─▶ up ─ Shutdown ─▶ drain ┴─▶ off
//!                                             └── told to stop ───────▶ off
//! ```
//! What a boot makes lies in `run`, which the next one empties; what lasts lies in `disks`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zos_api::local::init::{Action as Ending, Boot, Exit, Phase};
use zos_api::local::vm::Drain;
use zos_api::local::{INTERFACES, identity};
use zos_daemon::{Bus, Daemon};
use zos_host::SysRoot;
use zos_host::clock::boottime_millis;
use zos_types::NodeId;
use zos_types::machine::{BootReason, TimeQuality};

use crate::disks::{Disks, Keys, random_id};
use crate::fault::{Fault, Faults};
use crate::guest::{Event, Vmm};
use crate::hardware::Hardware;
use crate::net::{self, Wires};
use crate::part::{self, Part};
use crate::pid1::{Action, Input, Log, Order, Pid1, SERVICES};
use crate::relay;

/// How long guests have on the way down of a node, in milliseconds.
const DRAIN: u64 = 5000;
/// How long guests have when the whole simulation ends.
const HASTE: Duration = Duration::from_secs(1);
/// How long daemons may take to end.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where the kernel tells which boot it is.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// What a node is to be.
#[derive(Debug)]
pub(crate) struct Plan {
    /// From 1.
    pub(crate) number: u16,
    /// Its disks, a folder each.
    pub(crate) disks: PathBuf,
    /// What lasts for a boot.
    pub(crate) run: PathBuf,
    pub(crate) hardware: Hardware,
    pub(crate) faults: Faults,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) keys: Keys,
    pub(crate) latency: Duration,
    /// Where its API is to answer.
    pub(crate) listener: TcpListener,
}

/// What is told of a node.
#[derive(Debug)]
pub(crate) enum News {
    /// It has booted and is this one.
    Up(u16, NodeId),
    /// It is off, in good order or not.
    Off(u16, Result<()>),
}

/// Starts a node in a thread of its own; `stop` takes it down.
pub(crate) fn start(
    plan: Plan,
    stop: watch::Receiver<bool>,
    news: mpsc::UnboundedSender<News>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("node-{}", plan.number);
    thread::Builder::new().name(name).spawn(move || {
        let number = plan.number;
        let result = live(&plan, &stop, &news);
        // Its port is free again.
        drop(plan);
        // Nobody listens when the whole simulation has ended.
        let _ = news.send(News::Off(number, result));
    })
}

/// One boot after the other, each with a runtime of its own: nothing of one is left in the next.
fn live(
    plan: &Plan,
    stop: &watch::Receiver<bool>,
    news: &mpsc::UnboundedSender<News>,
) -> Result<()> {
    let mut reason = BootReason::Cold;
    loop {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ending = runtime.block_on(async {
            let boot = Machine::boot(plan, reason, news.clone())?;
            boot.run(stop.clone()).await
        })?;
        runtime.shutdown_background();
        match ending {
            Some(Ending::Reboot) => reason = BootReason::Reboot,
            _ => return Ok(()),
        }
    }
}

/// What the node hears of its own parts.
enum Told {
    /// A unit's process has ended.
    Ended(String, Exit, String),
    /// VMs are down, or their time is over.
    Drained(Ending),
}

/// A node that is up.
struct Machine<'a> {
    plan: &'a Plan,
    pid1: Pid1,
    orders: mpsc::UnboundedReceiver<Order>,
    wires: Wires,
    disks: Arc<Disks>,
    sockets: BTreeMap<&'static str, UnixListener>,
    api: TcpListener,
    boot: String,
    parts: BTreeMap<String, Part>,
    vms: BTreeMap<String, mpsc::UnboundedSender<Event>>,
    told: mpsc::UnboundedReceiver<Told>,
    tell: mpsc::UnboundedSender<Told>,
}

impl<'a> Machine<'a> {
    fn boot(plan: &'a Plan, reason: BootReason, news: mpsc::UnboundedSender<News>) -> Result<Self> {
        let place = |what: &str| format!("{what} of node {}", plan.number);
        prepare(plan).with_context(|| place("prepare the folder"))?;
        let mut sockets = BTreeMap::new();
        for name in SERVICES {
            if let Some(file) = socket(name) {
                sockets.insert(name, bind(&plan.run.join(file))?);
            }
        }
        let wires = Wires::new(plan.number, !plan.faults.has(Fault::NoNetwork));
        let disks = plan.hardware.disks(&plan.faults);
        let failing = plan.faults.has(Fault::DiskFailing);
        let state = plan.run.join("state");
        let disks = Disks::new(plan.disks.clone(), state, disks, failing, plan.keys.clone());

        let logs: BTreeMap<&'static str, Log> =
            SERVICES.into_iter().map(|name| (name, Log::default())).collect();
        let (leases, fault) = (wires.clone(), plan.faults.of_guests());
        let make_vm = Box::new(move |names: &[String], fds| {
            Vmm::new(names, fds, fault, |mac| leases.lease(mac))
        });
        let (pid1, orders) = Pid1::new(described(plan, reason), logs, make_vm);
        let init = tokio::net::UnixListener::from_std(bind(&plan.run.join("init.sock"))?)?;
        tokio::spawn(pid1.router().simulate(init));
        pid1.start();

        let api = public(plan).with_context(|| place("open the API"))?;
        tokio::spawn(introduce(plan.number, Bus::at(&plan.run), news));
        let (tell, told) = mpsc::unbounded_channel();
        let boot = fs::read_to_string(plan.run.join("machine").join(BOOT_ID))?;
        let (parts, vms) = (BTreeMap::new(), BTreeMap::new());
        let disks = Arc::new(disks);
        Ok(Self { plan, pid1, orders, wires, disks, sockets, api, boot, parts, vms, told, tell })
    }

    /// Until the node is off; what is to come after it.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Option<Ending>> {
        let mut ending = false;
        loop {
            let now = boottime_millis();
            let alarm = self.pid1.core().alarm().map_or(3_600_000, |at| at.saturating_sub(now));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {
                    self.pid1.boot().ending = Some(Ending::Poweroff);
                    self.end(HASTE).await;
                    return Ok(None);
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Shutdown(action) if !ending => {
                        ending = true;
                        self.drain(action);
                    }
                    order => self.obey(order),
                },
                Some(told) = self.told.recv() => match told {
                    Told::Ended(unit, exit, words) => self.ended(unit, exit, words),
                    Told::Drained(action) => {
                        self.end(HASTE).await;
                        return Ok(Some(action));
                    }
                },
                () = sleep(Duration::from_millis(alarm)) => self.pid1.tell(Input::Tick),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Do(Action::Launch(name)) => self.launch(name),
            Order::Do(Action::Stop(name)) => drop(self.parts.get(&name).map(Part::stop)),
            Order::Do(Action::Kill(name)) => drop(self.parts.get(&name).map(Part::kill)),
            // SIGTERM presses the button, as it does with the real VMM.
            Order::Do(Action::Signal(unit, 15)) => self.signal(&unit, Event::Button),
            Order::Do(Action::Signal(unit, signal)) => self.signal(&unit, Event::Kill(signal)),
            Order::Vm(unit, vmm) => {
                let (events, inbox) = mpsc::unbounded_channel();
                self.vms.insert(unit.clone(), events);
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    let exit = vmm.run(inbox).await;
                    let _ = tell.send(Told::Ended(unit, exit, String::new()));
                });
            }
            Order::Server(unit, server) => {
                let (events, inbox) = mpsc::unbounded_channel();
                self.vms.insert(unit.clone(), events);
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    let exit = server.run(inbox).await;
                    let _ = tell.send(Told::Ended(unit, exit, String::new()));
                });
            }
            Order::Stop(unit, 0) => self.signal(&unit, Event::Kill(9)),
            Order::Stop(unit, grace) => {
                self.signal(&unit, Event::Button);
                if let Some(vm) = self.vms.get(&unit).cloned() {
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(grace)).await;
                        let _ = vm.send(Event::Kill(9));
                    });
                }
            }
            Order::Shutdown(_) => {}
        }
    }

    fn signal(&self, unit: &str, event: Event) {
        if let Some(vm) = self.vms.get(unit) {
            // One that has just ended hears no more.
            let _ = vm.send(event);
        }
    }

    fn ended(&mut self, unit: String, exit: Exit, words: String) {
        self.parts.remove(&unit);
        self.vms.remove(&unit);
        self.pid1.tell(Input::Ended(unit, exit, words));
    }

    /// Asks vmd to stop all VMs; what is left of them is pressed when that has ended.
    fn drain(&self, action: Ending) {
        let (bus, tell) = (Bus::at(&self.plan.run), self.tell.clone());
        tokio::spawn(async move {
            let drain = bus.call(Drain { deadline_ms: DRAIN });
            let late = Duration::from_millis(DRAIN) + HASTE;
            if let Ok(Err(error)) = timeout(late, drain).await {
                tracing::warn!("drain the VMs: {error}");
            }
            let _ = tell.send(Told::Drained(action));
        });
    }

    /// Takes all down: VMs first, then daemons.
    async fn end(&mut self, grace: Duration) {
        let vms: Vec<String> = self.vms.keys().cloned().collect();
        vms.iter().for_each(|unit| self.signal(unit, Event::Button));
        self.wait(grace, |machine| machine.vms.is_empty()).await;
        vms.iter().for_each(|unit| self.signal(unit, Event::Kill(9)));
        self.parts.values().for_each(Part::stop);
        self.wait(PATIENCE, |machine| machine.parts.is_empty()).await;
    }

    /// Waits while units end; nothing is started meanwhile.
    async fn wait(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) {
        let late = Instant::now() + patience;
        while !done(self) {
            tokio::select! {
                Some(Told::Ended(unit, exit, words)) = self.told.recv() => {
                    self.ended(unit, exit, words);
                }
                () = sleep_until(late) => return,
            }
        }
    }

    /// Starts a daemon.
    fn launch(&mut self, name: String) {
        let tell = self.tell.clone();
        let unit = name.clone();
        let ended = move |exit, words: String| {
            // A node that is off hears nothing.
            let _ = tell.send(Told::Ended(unit, exit, words));
        };
        let log = self.pid1.log(&name).unwrap_or_default();
        match self.part(&name, &log, ended) {
            Ok(part) => drop(self.parts.insert(name, part)),
            Err(error) => {
                let exit = Exit { code: Some(1), signal: None, oom: false };
                let words = format!("start it: {error}");
                let _ = self.tell.send(Told::Ended(name, exit, words));
            }
        }
    }

    fn part(
        &self,
        name: &str,
        log: &Log,
        ended: impl FnOnce(Exit, String) + Send + 'static,
    ) -> io::Result<Part> {
        let thread = format!("{}-{name}", self.plan.number);
        let Some(name) = SERVICES.into_iter().find(|known| *known == name) else {
            return Err(io::Error::other("there is no such daemon"));
        };
        let socket = self.sockets.get(name).map(UnixListener::try_clone).transpose()?;
        let api = self.api.try_clone()?;
        let settings = self.plan.settings.clone();
        let (run, boot) = (self.plan.run.clone(), self.boot.clone());
        let (wires, disks) = (self.wires.clone(), Arc::clone(&self.disks));
        let life = async move |mut told: watch::Receiver<part::Told>| {
            let socket = socket.map(tokio::net::UnixListener::from_std).transpose()?;
            let settings = settings.into_iter().collect();
            let daemon = Daemon::simulated(name, settings, Bus::at(&run), socket);
            let shutdown = daemon.shutdown.clone();
            tokio::spawn(async move {
                if told.wait_for(|told| *told == part::Told::Stop).await.is_ok() {
                    shutdown.begin();
                }
            });
            match name {
                "storaged" => {
                    let places = storaged::Places {
                        root: SysRoot::at(run.join("machine")),
                        state: run.join("state"),
                        mirror: crate::disks::mirror(&run.join("state")),
                        memory: run.join("storage"),
                        ..storaged::Places::node()
                    };
                    storaged::run_on(daemon, places, disks).await
                }
                // The machine that the simulation runs on may have a TPM; none of its nodes has.
                "identityd" => identityd::run_on(daemon, || Ok(None)).await,
                "netd" => net::run(daemon, wires).await,
                "capacityd" => capacityd::run_on(daemon, SysRoot::at(run.join("machine"))).await,
                "vmd" => {
                    let places = vmd::effects::Places {
                        kvm: run.join("kvm"),
                        guest: run.join("guest"),
                        cgroups: run.join("cgroups"),
                        ..vmd::effects::Places::default()
                    };
                    let config = vmd::Config { runtime: run.join("vm"), boot, places };
                    vmd::run_on(daemon, config).await
                }
                "provisiond" => provisiond::run(daemon).await,
                _ => apid::serve(daemon, tokio::net::TcpListener::from_std(api)?).await,
            }
        };
        Part::start(&thread, log, life, ended)
    }
}

/// What a boot finds in `run`.
fn prepare(plan: &Plan) -> io::Result<()> {
    match fs::remove_dir_all(&plan.run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for folder in ["vm", "guest", "storage"] {
        fs::create_dir_all(plan.run.join(folder))?;
    }
    for disk in plan.hardware.disks(&plan.faults) {
        fs::create_dir_all(plan.disks.join(disk.name))?;
    }
    let machine = plan.run.join("machine");
    plan.hardware.write(&machine)?;
    let boot_id = machine.join(BOOT_ID);
    fs::create_dir_all(boot_id.parent().unwrap_or(&machine))?;
    fs::write(boot_id, random_id()?)?;
    // vmd opens them and hands them on; nobody looks into them.
    for file in ["guest/vmlinuz", "guest/hello.img"] {
        fs::write(plan.run.join(file), "simulated")?;
    }
    if !plan.faults.has(Fault::NoKvm) {
        fs::write(plan.run.join("kvm"), "simulated")?;
    }
    Ok(())
}

fn described(plan: &Plan, reason: BootReason) -> Boot {
    Boot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        image: "simulated".to_owned(),
        boot_reason: reason,
        ending: None,
        watchdog: None,
        time_quality: TimeQuality::Rtc,
        settings: plan.settings.iter().cloned().collect(),
        phases: vec![Phase { name: "boot".to_owned(), millis: boottime_millis() }],
        faults: Vec::new(),
    }
}

/// The file of a daemon's socket; apid has none.
fn socket(daemon: &str) -> Option<&'static str> {
    let noun = daemon.strip_suffix('d')?;
    let files = INTERFACES.iter().filter_map(|interface| interface.socket.rsplit('/').next());
    files.into_iter().find(|file| file.strip_suffix(".sock").is_some_and(|known| known == noun))
}

fn bind(path: &Path) -> Result<UnixListener> {
    let bound = UnixListener::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    // A socket's path has 107 bytes at most (unix(7)).
    bound.with_context(|| format!("listen on {}; TMPDIR says where", path.display()))
}

/// Where apid listens: at the node's port, or behind a relay that takes its time.
fn public(plan: &Plan) -> Result<TcpListener> {
    let listener = plan.listener.try_clone()?;
    if plan.latency.is_zero() {
        return Ok(listener);
    }
    let own = TcpListener::bind(("127.0.0.1", 0))?;
    own.set_nonblocking(true)?;
    let near = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(relay::run(near, own.local_addr()?, plan.latency));
    Ok(own)
}

/// Tells who the node is, once it knows.
async fn introduce(number: u16, bus: Bus, news: mpsc::UnboundedSender<News>) {
    loop {
        match bus.call(identity::Describe {}).await {
            Ok(identity) => {
                let _ = news.send(News::Up(number, identity.node));
                return;
            }
            Err(error) => tracing::debug!("ask identityd: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

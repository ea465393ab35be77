//! The loop around the supervisor's core: descriptors in, events to the core, its actions out.
//!
//! ```text
//!  signalfd  SIGCHLD ─ reap ─┐                    ┌─▶ Spawn    clone3 into a cgroup
//!  timerfd ──────────────────┤   Supervisor       ├─▶ Signal, Kill, Tidy
//!  ready pipes ──────────────┼─▶ handle(now, ..) ─┤
//!  power button, uevents ────┤                    ├─▶ Note     kernel log
//!  org.zos.Init ─────────────┘                    └─▶ Changed  those who watch
//!  output pipes ─▶ journal ─▶ warnings: kernel log
//! ```

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use zos_host::evdev::PowerButton;
use zos_host::kmsg::Level;
use zos_host::poll::{Interest, Poll, Signals, Timer};
use zos_host::power::{self, End};
use zos_host::process::{self, Child, CoreGroup};
use zos_host::varlink::Connection;
use zos_host::{Context, Result, SysRoot, block::Uevents, clock, entropy, evdev};

use crate::boot::Boot;
use crate::control;
use crate::journal::Journal;
use crate::log;
use crate::rescue::Rescue;
use crate::supervise::{Action, Ended, Event, Happened, Millis, Supervisor, UnitId};
use crate::unit::{Service, Template, Units};
use crate::watchdog::Guard;
use output::Output;
pub(crate) use request::{RequestError, Start};
use tidy::Leaving;
pub(crate) use token::Token;

mod care;
mod check;
mod drain;
mod launch;
mod limits;
mod output;
mod reload;
mod request;
mod tidy;
mod token;

/// Descriptors that PID 1 may hold: a few for each unit, one for each connection.
const FILES: u64 = 65_536;

const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// A started process and what PID 1 holds for it.
#[derive(Debug)]
struct Live {
    child: Child,
    /// Its end of the pipe by which it says that it is ready.
    ready: Option<OwnedFd>,
    /// It goes on writing there, so that PID 1 sees that it lives.
    pings: bool,
    /// Memory kills that its cgroup had counted before it.
    oom_kills_before: u64,
}

/// A transient unit's facts, from its start until it is acknowledged.
#[derive(Debug)]
struct Transient {
    template: String,
    twin: String,
    /// `<deployment>.<workload>`, with a part's name behind.
    name: String,
    /// `<deployment>.<workload>`: its cgroup.
    group: String,
    /// It runs beside the workload, in that one's cgroup, and ends with it.
    is_part: bool,
    slot: u32,
    limits: request::Limits,
    arguments: Vec<String>,
    /// Names and descriptors; gone once it runs.
    descriptors: Vec<(String, OwnedFd)>,
}

/// How the run of the node ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What comes now.
    pub(crate) end: End,
    /// Units that would not stop, by name.
    pub(crate) hung: Vec<String>,
    /// The watchdog, armed.
    pub(crate) guard: Option<Guard>,
}

/// Everything that PID 1 holds while the node runs.
pub(crate) struct Node {
    pub(crate) boot: Boot,
    pub(crate) supervisor: Supervisor,
    templates: HashMap<String, Template>,
    services: HashMap<UnitId, Service>,
    sockets: HashMap<UnitId, OwnedFd>,
    transients: HashMap<UnitId, Transient>,
    live: HashMap<UnitId, Live>,
    checks: HashMap<UnitId, Child>,
    drain: Option<Connection>,
    leaving: Leaving,
    pub(crate) journal: Journal,
    outputs: HashMap<u32, Output>,
    next_output: u32,
    buttons: HashMap<u32, PowerButton>,
    next_button: u32,
    cores: Option<CoreGroup>,
    null: File,
    poll: Poll,
    watchdog: Option<Guard>,
    rescue: Rescue,
    finish: Option<Ending>,
    settled: bool,
    /// Counts changes of units, so that who watches them knows whether something is new.
    pub(crate) changes: u64,
}

/// Runs the node until everything is stopped; says what comes then.
pub(crate) fn run(boot: Boot, units: Units) -> Result<Ending> {
    if let Err(error) = process::hold_files(FILES) {
        log::line(Level::Warning, &error.line());
    }
    let poll = Poll::new()?;
    let signals = Signals::take(&[SIGCHLD, SIGTERM, SIGINT, SIGQUIT])?;
    let timer = Timer::new()?;
    let uevents = Uevents::open();
    let mut control = control::Server::open(&poll, Path::new(control::SOCKET))?;
    poll.add(&signals, Token::Signals.number(), Interest::READ)?;
    poll.add(&timer, Token::Timer.number(), Interest::READ)?;
    if let Ok(uevents) = &uevents {
        poll.add(uevents, Token::Uevents.number(), Interest::READ)?;
    }
    if let Err(error) = power::catch_ctrl_alt_del() {
        log::line(Level::Warning, &error.line());
    }

    let mut node = Node::new(boot, units, poll)?;
    node.find_buttons();
    node.begin_care();
    node.boot.end_phase("loop");
    node.event(Event::Begin);
    loop {
        if let Some(ending) = node.finish.take() {
            return Ok(ending);
        }
        if !node.settled && node.supervisor.settled() {
            node.settled = true;
            node.boot.end_phase("services");
        }
        node.care();
        control.tell(&node);
        timer.set(node.next_time())?;
        let mut happened = node.poll.wait()?;
        // Who says in time that it lives isn't called silent by a timer that rings at the same moment.
        happened.sort_by_key(|one| !matches!(Token::of(one.token), Some(Token::Ready(_))));
        for happened in happened {
            match Token::of(happened.token) {
                Some(Token::Signals) => node.signals(&signals),
                Some(Token::Timer) => {
                    timer.clear();
                    node.remove_cgroups();
                    node.event(Event::Time);
                }
                Some(Token::Uevents) => {
                    if let Ok(uevents) = &uevents {
                        node.uevents(uevents);
                    }
                }
                Some(Token::Button(number)) => node.button(number),
                Some(Token::Ready(unit)) => node.told(UnitId(unit)),
                Some(Token::Drain) => node.drain_answers(),
                Some(Token::Output(number)) => node.output(number),
                Some(Token::Listener) => control.accept(&node),
                Some(Token::Connection(number)) => control.serve(number, happened, &mut node),
                None => {}
            }
        }
    }
}

impl Node {
    fn new(boot: Boot, units: Units, poll: Poll) -> Result<Self> {
        let cores = CoreGroup::supported();
        if let Err(error) = &cores {
            log::line(Level::Info, &format!("no core scheduling between twins: {}", error.line()));
        }
        let journal = Journal::new(boot.settings.flag("debug"));
        let mut node = Self {
            boot,
            supervisor: Supervisor::default(),
            templates: units.templates.into_iter().collect(),
            services: HashMap::new(),
            sockets: HashMap::new(),
            transients: HashMap::new(),
            live: HashMap::new(),
            checks: HashMap::new(),
            drain: None,
            leaving: Leaving::default(),
            journal,
            outputs: HashMap::new(),
            next_output: 0,
            buttons: HashMap::new(),
            next_button: 0,
            cores: cores.ok(),
            null: File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .during("open", "/dev/null")?,
            poll,
            watchdog: None,
            rescue: Rescue::new(None),
            finish: None,
            settled: false,
            changes: 0,
        };
        for problem in &units.problems {
            node.boot.fault("unit", &problem.to_string());
        }
        let now = clock::boottime_millis();
        for service in units.services {
            let broken = node.broken(&service.exec[0]);
            if let Some(why) = &broken {
                log::line(Level::Error, &format!("{} is never started: {why}", service.name));
            }
            let id = node.supervisor.add_service(now, &service.name, service.rules.clone(), broken);
            if let Some(path) = &service.socket {
                match launch::bind(path) {
                    Ok(socket) => drop(node.sockets.insert(id, socket)),
                    Err(error) => node.boot.fault("socket", &error.line()),
                }
            }
            node.services.insert(id, service);
        }
        Ok(node)
    }

    /// Why a program of the image must not be executed, if so.
    fn broken(&self, program: &str) -> Option<String> {
        self.boot.corrupt.get(program).map(|what| format!("{program} {what}"))
    }

    /// Gives an event to the core and does what it says, and what follows from that.
    pub(crate) fn event(&mut self, event: Event) {
        let actions = self.supervisor.handle(clock::boottime_millis(), event);
        self.perform(actions);
    }

    pub(crate) fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Spawn(unit) => {
                    let pid = self.launch(unit).map_err(|error| error.line());
                    let event = Event::Launched { unit, pid, jitter: jitter() };
                    actions.extend(self.supervisor.handle(clock::boottime_millis(), event));
                }
                Action::Look(unit) => {
                    if self.answers(unit) {
                        let event = Event::Told { unit };
                        actions.extend(self.supervisor.handle(clock::boottime_millis(), event));
                    }
                }
                Action::Check(unit) => {
                    if let Some(event) = self.check(unit) {
                        actions.extend(self.supervisor.handle(clock::boottime_millis(), event));
                    }
                }
                Action::EndCheck(unit) => self.end_check(unit),
                Action::Signal(unit, signal) => self.signal(unit, signal),
                Action::Kill(unit) => self.kill(unit),
                Action::Tidy(unit) => self.tidy(unit),
                Action::Forget(unit) => self.forget(unit),
                Action::Note(level, text) => log::line(level, &text),
                Action::Changed => self.changes += 1,
                Action::Happened(Happened { name, state, exit, detail, .. }) => {
                    let now = clock::boottime_millis();
                    self.journal.events.push(now, &name, state, exit, &detail);
                }
                Action::Drain { unit, deadline_ms } => {
                    if let Err(error) = self.ask_to_drain(unit, deadline_ms) {
                        let event = Event::Drained { problem: Some(error.line()) };
                        actions.extend(self.supervisor.handle(clock::boottime_millis(), event));
                    }
                }
                Action::Finish { end, hung } => {
                    self.finish = Some(Ending { end, hung, guard: self.watchdog.take() });
                }
            }
        }
    }

    fn signals(&mut self, signals: &Signals) {
        while let Ok(Some(signal)) = signals.signal() {
            let down = |end, why: &str| Event::Down { end, why: why.to_owned() };
            match signal {
                SIGCHLD => self.reap(),
                SIGTERM => self.event(down(End::Poweroff, "SIGTERM")),
                SIGINT => self.event(down(End::Reboot, "ctrl-alt-del")),
                // The way of a panic can be walked on a real node, by a developer only.
                SIGQUIT if self.boot.settings.get("mode") == Some("dev") => {
                    panic!("asked for by SIGQUIT")
                }
                _ => {}
            }
        }
    }

    /// Takes every process that ended: ours are told to the core, orphans just go.
    fn reap(&mut self) {
        while let Some((pid, exit)) = process::reap() {
            let found = self.live.iter().find(|(_, live)| live.child.pid == pid).map(|(id, _)| *id);
            let Some(unit) = found else {
                self.check_ended(pid, exit);
                continue;
            };
            self.drain(unit);
            let Some(live) = self.live.remove(&unit) else { continue };
            let unreached = live.child.failure().map(|(step, why)| format!("{step} failed: {why}"));
            let kills = self.cgroup(unit).map_or(0, |group| group.oom_kills());
            let how = Ended { exit, oom: kills > live.oom_kills_before, why: unreached };
            self.event(Event::Ended { unit, how, jitter: jitter() });
        }
        // What has ended may have been the last of a cgroup.
        self.remove_cgroups();
    }

    /// A unit wrote to its readiness pipe: once, or (with a watchdog) again and again.
    fn told(&mut self, unit: UnitId) {
        let Some(live) = self.live.get_mut(&unit) else { return };
        let Some(pipe) = &live.ready else { return };
        let Some(said) = process::read_some(pipe) else { return };
        if said.is_empty() || !live.pings {
            let _ = self.poll.remove(pipe);
            live.ready = None;
        }
        if said.contains(&b'\n') {
            self.event(Event::Told { unit });
        }
    }

    fn uevents(&mut self, uevents: &Uevents) {
        let mut inputs = false;
        while let Ok(Some(event)) = uevents.event() {
            inputs |= event.lost() || event.get("SUBSYSTEM") == Some("input");
        }
        if inputs {
            self.find_buttons();
        }
    }

    fn find_buttons(&mut self) {
        for name in evdev::power_buttons(&SysRoot::host()).unwrap_or_default() {
            if self.buttons.values().any(|button| button.name == name) {
                continue;
            }
            // The node may appear a moment after the news of it; then more news comes.
            let Ok(button) = PowerButton::open(&name) else { continue };
            let number = self.next_button;
            if self.poll.add(&button, Token::Button(number).number(), Interest::READ).is_ok() {
                self.next_button += 1;
                self.buttons.insert(number, button);
            }
        }
    }

    fn button(&mut self, number: u32) {
        match self.buttons.get_mut(&number).map(PowerButton::pressed) {
            Some(Ok(true)) => {
                self.event(Event::Down { end: End::Poweroff, why: "power button".to_owned() });
            }
            Some(Err(_)) => drop(self.buttons.remove(&number)),
            Some(Ok(false)) | None => {}
        }
    }

    /// When the timer is to ring.
    fn next_time(&self) -> Option<Millis> {
        let due = [self.supervisor.next_time(), self.leaving.due(), self.care_due()];
        due.into_iter().flatten().min()
    }

    pub(crate) fn poll(&self) -> &Poll {
        &self.poll
    }
}

fn jitter() -> u16 {
    u16::try_from(entropy::number() % 1000).unwrap_or(0)
}

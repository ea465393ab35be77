//! The VMM: at most one VM, and what may be done with it when.
//!
//! ```text
//!  nothing ── create ──▶ Created ── boot ──▶ Running ◀── pause, resume ──▶ Paused
//!     ▲                   ▲  │ delete           │ shutdown, delete, reboot     │
//!     └───────────────────┼──┘                  │                              │
//!                         └── shutdown ─────────┴──────────────────────────────┘
//!
//!  the guest powers off: the process ends     resets: the VM is made anew, or the process ends with 3
//! ```
//!
//! Everything happens in one thread, one thing after another, so that no two requests can meet
//! half-way. Who makes machines is a [`Maker`]; what is made is a [`Guest`].

use crate::api::translate::{self, device_name};
use crate::api::{Answer, Info, Node, Ping, Refusal, Reply, Request, Resize, State, VmConfig};
use crate::lifecycle::{Ending, Lifecycle};
use std::collections::BTreeMap;
use std::error::Error;
use zos_vmm_spec::Spec;

/// Makes machines of specs.
pub trait Maker {
    /// What it makes.
    type Guest: Guest;

    /// Makes one and sets it going.
    ///
    /// # Errors
    /// What can't be had.
    fn make(&mut self, spec: &Spec) -> Result<Self::Guest, Box<dyn Error>>;

    /// Takes one apart that has ended so.
    fn retire(&mut self, guest: Self::Guest, ending: &Ending);
}

/// A machine that was set going.
pub trait Guest {
    /// Brings it to rest.
    ///
    /// # Errors
    /// It goes on.
    fn pause(&mut self) -> Result<(), Box<dyn Error>>;
    /// It goes on.
    fn resume(&mut self);
    /// Presses its power button.
    fn press_power_button(&mut self);
    /// Asks it to give back so many bytes; none when it has no balloon.
    ///
    /// # Errors
    /// Too many.
    fn inflate(&mut self, bytes: u64) -> Option<Result<(), Box<dyn Error>>>;
    /// What it has given back.
    fn given_back(&self) -> u64;
    /// What went through its devices, by their ids, and out of its vCPUs, as `vcpus`.
    fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>>;
    /// The PCI slots of its devices, by their ids.
    fn slots(&self) -> BTreeMap<String, u16>;
    /// How it ended, once it did.
    fn lifecycle(&self) -> &Lifecycle;
}

/// What a reboot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// The machine is made anew here: for developers, and clients of Cloud Hypervisor.
    InPlace,
    /// The process ends, and who started it starts it anew: the jail opens nothing twice.
    EndsProcess,
}

/// The VMM.
#[derive(Debug)]
pub struct Vmm<M: Maker> {
    maker: M,
    reboot: Reboot,
    /// Known from the start: in its filter the thread can't ask for its process id.
    ping: Ping,
    spec: Option<Spec>,
    machine: Option<Machine<M::Guest>>,
}

#[derive(Debug)]
struct Machine<G> {
    guest: G,
    paused: bool,
}

/// What follows for the process.
pub type Next = Option<Ending>;

impl<M: Maker> Vmm<M> {
    /// One without a VM.
    pub fn new(maker: M, reboot: Reboot) -> Self {
        Self { maker, reboot, ping: ping(), spec: None, machine: None }
    }

    /// Makes a VM of a valid spec and boots it.
    ///
    /// # Errors
    /// What can't be had.
    pub fn start(&mut self, spec: Spec) -> Result<(), Box<dyn Error>> {
        let guest = self.maker.make(&spec)?;
        self.spec = Some(spec);
        self.machine = Some(Machine { guest, paused: false });
        Ok(())
    }

    /// The running VM's life: its event wakes who waits for the end.
    pub fn lifecycle(&self) -> Option<&Lifecycle> {
        self.machine.as_ref().map(|machine| machine.guest.lifecycle())
    }

    /// SIGTERM, and the like: the power button is pressed, also of one that stands still. Without a
    /// VM the process ends.
    pub fn terminate(&mut self) -> Next {
        let Some(Machine { guest, paused }) = &mut self.machine else {
            return Some(Ending::PowerOff);
        };
        if std::mem::take(paused) {
            guest.resume();
        }
        guest.press_power_button();
        None
    }

    /// Looks whether the guest has ended, and does what follows.
    pub fn look(&mut self) -> Next {
        let ending = self.lifecycle()?.ending()?.clone();
        self.retire(&ending);
        match ending {
            Ending::Reboot if self.reboot == Reboot::InPlace => self.again().err(),
            ending => Some(ending),
        }
    }

    /// Ends what runs.
    pub fn retire(&mut self, ending: &Ending) {
        if let Some(Machine { guest, .. }) = self.machine.take() {
            self.maker.retire(guest, ending);
        }
    }

    /// Does what a client wants.
    pub fn handle(&mut self, request: Request) -> (Reply, Next) {
        let reply = match request {
            Request::Ping => Ok(Answer::Ping(self.ping.clone())),
            Request::Info => self.info(),
            Request::Counters => self.counters(),
            Request::Create(config) => self.create(&config),
            Request::Boot => self.boot(),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::PowerButton => self.power_button(),
            Request::Resize(wish) => self.resize(wish),
            Request::End => return self.end(&Ending::PowerOff),
            Request::Shutdown | Request::Reboot if self.machine.is_none() => Err(not_running()),
            Request::Shutdown => return self.shutdown(),
            Request::Delete => {
                let (reply, next) = self.shutdown();
                self.spec = None;
                return (reply, next);
            }
            Request::Reboot => return self.reboot(),
        };
        (reply, None)
    }

    fn create(&mut self, config: &VmConfig) -> Reply {
        if self.spec.is_some() {
            let refusal = Refusal::new(500, "vm.create: there is a VM already");
            return Err(match self.reboot {
                Reboot::InPlace => refusal.because("delete it first: vm.delete"),
                Reboot::EndsProcess => {
                    refusal.because("in the jail no path is opened: a VM comes with the start")
                }
            });
        }
        let spec = translate::spec(config).map_err(|wrong| Refusal {
            status: 400,
            words: ["vm.create: this configuration can't be had".to_owned()]
                .into_iter()
                .chain(wrong)
                .collect(),
        })?;
        self.spec = Some(spec);
        Ok(Answer::Done)
    }

    fn boot(&mut self) -> Reply {
        match &mut self.machine {
            // As Cloud Hypervisor does it.
            Some(Machine { paused: true, .. }) => self.resume(),
            Some(_) => Err(Refusal::new(500, "vm.boot: the VM is running already")),
            None => {
                let spec = self.spec.as_ref().ok_or_else(not_created)?;
                let guest = self.maker.make(spec).map_err(|error| chain("vm.boot", &*error))?;
                self.machine = Some(Machine { guest, paused: false });
                Ok(Answer::Done)
            }
        }
    }

    fn pause(&mut self) -> Reply {
        let Machine { guest, paused } = self.machine.as_mut().ok_or_else(not_running)?;
        if *paused {
            return Err(Refusal::new(500, "vm.pause: the VM is paused already"));
        }
        guest.pause().map_err(|error| chain("vm.pause", &*error))?;
        *paused = true;
        Ok(Answer::Done)
    }

    fn resume(&mut self) -> Reply {
        let Machine { guest, paused } = self.machine.as_mut().ok_or_else(not_running)?;
        if !std::mem::take(paused) {
            return Err(Refusal::new(500, "vm.resume: the VM isn't paused"));
        }
        guest.resume();
        Ok(Answer::Done)
    }

    fn power_button(&mut self) -> Reply {
        let Machine { guest, .. } = self.machine.as_mut().ok_or_else(not_running)?;
        guest.press_power_button();
        Ok(Answer::Done)
    }

    fn resize(&mut self, wish: Resize) -> Reply {
        let Machine { guest, .. } = self.machine.as_mut().ok_or_else(not_running)?;
        let bytes = wish.desired_balloon.unwrap_or_default();
        match guest.inflate(bytes) {
            Some(inflated) => inflated.map_err(|error| chain("vm.resize", &*error))?,
            None => {
                let refusal = Refusal::new(500, "vm.resize: the VM has no balloon");
                return Err(refusal.because("give it one at the start: balloon"));
            }
        }
        Ok(Answer::Done)
    }

    fn shutdown(&mut self) -> (Reply, Next) {
        match self.reboot {
            Reboot::InPlace => {
                self.retire(&Ending::PowerOff);
                (Ok(Answer::Done), None)
            }
            // The process is there for its VM.
            Reboot::EndsProcess => self.end(&Ending::PowerOff),
        }
    }

    fn reboot(&mut self) -> (Reply, Next) {
        match self.reboot {
            Reboot::InPlace => {
                self.retire(&Ending::Reboot);
                match self.again() {
                    Ok(()) => (Ok(Answer::Done), None),
                    Err(ending) => {
                        let words = match &ending {
                            Ending::Failed(why) => why.clone(),
                            ending => ending.word().to_owned(),
                        };
                        (Err(Refusal::new(500, words)), Some(ending))
                    }
                }
            }
            Reboot::EndsProcess => self.end(&Ending::Reboot),
        }
    }

    fn end(&mut self, ending: &Ending) -> (Reply, Next) {
        self.retire(ending);
        (Ok(Answer::Done), Some(ending.clone()))
    }

    /// Makes the machine anew.
    fn again(&mut self) -> Result<(), Ending> {
        let Some(spec) = &self.spec else { return Ok(()) };
        let made = self.maker.make(spec);
        let guest =
            made.map_err(|error| Ending::Failed(chain("reboot", &*error).words.join(": ")))?;
        self.machine = Some(Machine { guest, paused: false });
        Ok(())
    }

    fn info(&self) -> Reply {
        let spec = self.spec.as_ref().ok_or_else(not_created)?;
        let machine = self.machine.as_ref();
        let state = match machine {
            None => State::Created,
            Some(Machine { paused: true, .. }) => State::Paused,
            Some(_) => State::Running,
        };
        let slots = machine.map(|machine| machine.guest.slots()).unwrap_or_default();
        let node = |(id, slot): (&String, &u16)| {
            let id = device_name(spec, id);
            let pci_bdf = Some(format!("0000:00:{slot:02x}.0"));
            (id.clone(), Node { id, resources: Vec::new(), children: Vec::new(), pci_bdf })
        };
        let given_back = machine.map_or(0, |machine| machine.guest.given_back());
        Ok(Answer::Info(Box::new(Info {
            config: translate::config(spec),
            state,
            memory_actual_size: spec.memory.0.saturating_sub(given_back),
            device_tree: slots.iter().map(node).collect(),
        })))
    }

    fn counters(&self) -> Reply {
        let (Some(machine), Some(spec)) = (&self.machine, &self.spec) else {
            return Err(not_running());
        };
        let all = machine.guest.counters().into_iter();
        Ok(Answer::Counters(all.map(|(id, counts)| (device_name(spec, &id), counts)).collect()))
    }
}

fn ping() -> Ping {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ping {
        build_version: format!("zos-vmm {version}"),
        version,
        pid: std::process::id(),
        features: vec!["kvm".to_owned()],
    }
}

fn not_created() -> Refusal {
    Refusal::new(404, "there is no VM").because("create one first: vm.create")
}

fn not_running() -> Refusal {
    Refusal::new(500, "the VM isn't running").because("boot it first: vm.boot")
}

fn chain(what: &str, error: &dyn Error) -> Refusal {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let words = causes.map(ToString::to_string);
    Refusal { status: 500, words: std::iter::once(format!("{what} failed")).chain(words).collect() }
}

#[cfg(test)]
mod tests;

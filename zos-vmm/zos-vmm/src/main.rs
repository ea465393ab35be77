//! zos-vmm: the life of one VM's process, or of a VMM that is told over its API what to run.
//!
//! ```text
//!  jailed, or a VM on the command line and no socket        with --api-socket, for developers
//!    open everything ─▶ give up paths ─▶ api thread           api thread
//!    ─▶ machine ─▶ filter ─▶ wait                             ─▶ machine, if one was named ─▶ wait
//!    the VM's end is the process's end                        a reboot makes the machine anew
//! ```

mod cli;
mod signals;
mod workshop;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use cli::{Cli, WrongArguments};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signals::{Signal, Signals};
use std::process::ExitCode;
use std::time::Instant;
use workshop::Workshop;
use zos_vmm::api::{Calls, Limits, Server};
use zos_vmm::control::{Reboot, Vmm};
use zos_vmm::jail::{self, Kind};
use zos_vmm::lifecycle::Ending;
use zos_vmm::resources::{Passed, Resources};

/// As the parser of the command line has it.
const WRONG_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let start = Instant::now();
    match run(start, &Cli::parse()) {
        Ok(ending) => ExitCode::from(ending.exit_code()),
        Err(error) => {
            eprintln!("zos-vmm: {error:#}");
            ExitCode::from(if error.is::<WrongArguments>() { WRONG_ARGUMENTS } else { 1 })
        }
    }
}

fn run(start: Instant, cli: &Cli) -> Result<Ending> {
    // SAFETY: the first thing that this process does with descriptors.
    #[allow(unsafe_code)]
    let mut passed = unsafe { Passed::take() }?;
    let signals = Signals::block().context("block signals")?;
    let spec = cli.spec(&mut passed)?;
    let door = cli.door(&mut passed)?;
    let reboot = match &door {
        Some(door) if !door.jailed => Reboot::InPlace,
        _ => Reboot::EndsProcess,
    };
    let seccomp = cli.seccomp();
    let again = reboot == Reboot::InPlace;
    let mut workshop =
        Workshop { opened: None, seccomp, again, json: cli.json, start: Some(start) };
    if reboot == Reboot::EndsProcess {
        let Some(spec) = &spec else {
            bail!(
                "what shall run? give --spec FILE or --kernel FILE (see --help), --api-socket PATH, \
                 or pass a descriptor named `spec`"
            );
        };
        workshop.opened = Some(Resources::open(spec, passed)?);
        jail::give_up_paths().context("give up paths by landlock")?;
    }
    let serve = |door: cli::Door| {
        let enter = move || seccomp.enter(Kind::Api);
        let calls = Server::spawn(door.listener, Limits::default(), enter);
        calls.context("serve the API socket").map(|calls| (calls, door.keeper))
    };
    let (calls, _keeper) = door.map(serve).transpose()?.unzip();
    let mut vmm = Vmm::new(workshop, reboot);
    if let Some(spec) = spec {
        vmm.start(spec).map_err(|error| anyhow!(chain(&*error)))?;
    }
    if reboot == Reboot::EndsProcess {
        // Else this thread opens what the next machine is made of, and makes its threads.
        seccomp.enter(Kind::Main);
    }
    Ok(wait(&mut vmm, &signals, calls.as_ref()))
}

/// An error and its causes in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A guest that is still starting misses the button: it is pressed again until the guest ends.
const PRESS_AGAIN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Until the end: looks after the guest, does what clients want; SIGTERM and the first Ctrl-C press
/// the power button.
fn wait(vmm: &mut Vmm<Workshop>, signals: &Signals, calls: Option<&Calls>) -> Ending {
    let mut interrupted = false;
    let mut pressed = false;
    loop {
        if let Some(ending) = vmm.look() {
            return ending;
        }
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(vmm.lifecycle().map(|life| PollFd::new(life.event(), PollFlags::IN)));
        fds.extend(calls.map(|calls| PollFd::new(calls.event(), PollFlags::IN)));
        // An interrupted wait is a wait that looks again.
        let woken = poll(&mut fds, pressed.then_some(&PRESS_AGAIN));
        drop(fds);
        let signal = signals.take();
        if signal == Some(Signal::Interrupt) && std::mem::replace(&mut interrupted, true) {
            let ending = Ending::Failed("stopped by a second Ctrl-C".to_owned());
            vmm.retire(&ending);
            return ending;
        }
        pressed |= signal.is_some();
        if (signal.is_some() || woken == Ok(0))
            && let Some(ending) = vmm.terminate()
        {
            return ending;
        }
        while let Some((calls, (ticket, request))) = calls.and_then(|c| Some((c, c.take()?))) {
            let (reply, ending) = vmm.handle(request);
            calls.answer(ticket, reply);
            if let Some(ending) = ending {
                return ending;
            }
        }
    }
}

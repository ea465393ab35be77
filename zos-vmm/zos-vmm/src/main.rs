//! zos-vmm: the life of one VM's process.

mod cli;
mod signals;

use anyhow::{Context, Result};
use clap::Parser;
use cli::Cli;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signals::{Signal, Signals};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use zos_vmm::jail::{self, Kind};
use zos_vmm::lifecycle::{Ending, Lifecycle};
use zos_vmm::machine::{Machine, Running};
use zos_vmm::resources::{Passed, Resources};
use zos_vmm::stats::Stats;

fn main() -> ExitCode {
    let start = Instant::now();
    match run(start, &Cli::parse()) {
        Ok(ending) => ExitCode::from(ending.exit_code()),
        Err(error) => {
            eprintln!("zos-vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(start: Instant, cli: &Cli) -> Result<Ending> {
    // SAFETY: the first thing that this process does with descriptors.
    #[allow(unsafe_code)]
    let mut passed = unsafe { Passed::take() }?;
    let signals = Signals::block().context("block signals")?;
    let spec = cli.spec(&mut passed)?;
    spec.validate().context("the VM's spec")?;
    let resources = Resources::open(&spec, passed)?;
    jail::give_up_paths().context("give up paths by landlock")?;

    let lifecycle = Arc::new(Lifecycle::new().context("make the event of the end")?);
    let stats = Arc::new(Stats::new(start));
    let seccomp = cli.seccomp();
    let machine = Machine::build(&spec, resources, lifecycle.clone(), stats.clone(), seccomp)?;
    let running = machine.start(seccomp)?;
    seccomp.enter(Kind::Main);

    let ending = wait(&lifecycle, &signals, &running);
    // One that is held up in a device ends with the process.
    let _ = running.stop();
    let report = stats.report(ending.word());
    let mut text = if cli.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        format!("zos-vmm: {report}\n")
    };
    if let Ending::Failed(why) = &ending {
        text += &format!("zos-vmm: {why}\n");
    }
    // One write, so that the line stays whole among those of others.
    std::io::stderr().write_all(text.as_bytes()).context("report")?;
    Ok(ending)
}

/// A guest that is still starting misses the button: it is pressed again until the guest ends.
const PRESS_AGAIN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Waits for the end; meanwhile SIGTERM and the first Ctrl-C press the power button.
fn wait(lifecycle: &Lifecycle, signals: &Signals, running: &Running) -> Ending {
    let mut interrupted = false;
    let mut pressed = false;
    loop {
        if let Some(ending) = lifecycle.ending() {
            return ending.clone();
        }
        let mut fds =
            [PollFd::new(lifecycle.event(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        // An interrupted wait is a wait that looks again.
        let woken = poll(&mut fds, pressed.then_some(&PRESS_AGAIN));
        if woken == Ok(0) {
            running.press_power_button();
        }
        match signals.take() {
            Some(Signal::Interrupt) if std::mem::replace(&mut interrupted, true) => {
                lifecycle.end(Ending::Failed("stopped by a second Ctrl-C".to_owned()));
            }
            Some(Signal::Terminate | Signal::Interrupt) => {
                pressed = true;
                running.press_power_button();
            }
            None => {}
        }
    }
}

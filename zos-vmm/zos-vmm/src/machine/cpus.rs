//! The threads of the vCPUs: set going, brought to rest, ended.
//!
//! ```text
//!  wish:    Run ◀── pause / resume ──▶ Rest          any ── stop ──▶ Leave (for good)
//!
//!  thread:  Cpu::run ─ out ─▶ wish?  Run: in again   Rest: waits here   Leave: lets go of its Cpu
//! ```
//!
//! Who wants a vCPU out of the guest sets its bell first, then sends its thread a signal. The bell
//! (`immediate_exit`) is looked at by KVM when it enters the guest, the signal by a guest that runs:
//! whatever the thread was about to do between reading the wish and entering, one of the two meets
//! it. Nobody holds the lock while a guest runs or a device works, so that no order of pause,
//! resume, reset and end can wait in a circle.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | never leave the processor | the signal takes it out |
//! | reset devices while it is paused | the reset ends first: threads of devices stop after vCPUs |
//! | power off while it is paused | that vCPU has left, and counts as resting |
#![allow(unsafe_code)]

use crate::lifecycle::{Ending, Lifecycle};
use crate::stats::{Exit, Stats};
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Runs a guest's code; KVM, or a simulation in tests.
pub trait Cpu: Send {
    /// Goes into the guest, and answers what it came out for. Comes back soon once its bell is set
    /// and its thread gets a signal.
    ///
    /// # Errors
    /// The VM ends, in this way.
    fn run(&mut self) -> Result<Exit, Ending>;

    /// It was at rest, and is about to go on.
    fn goes_on(&mut self) {}

    /// How others call it.
    fn bell(&mut self) -> Arc<dyn Bell>;
}

/// Calls a vCPU back from the guest, also one that is just about to enter it.
pub trait Bell: Send + Sync {
    /// Sets or clears it.
    fn set(&self, on: bool);
}

/// Why vCPUs didn't come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// They have left for good, or shall.
    #[error("the VM is ending")]
    Ended,
    /// Somebody else wished so meanwhile.
    #[error("the VM was resumed meanwhile")]
    Resumed,
    /// One works on something that takes too long, such as writing to a full pipe.
    #[error("a vCPU is held up in a device")]
    HeldUp,
}

/// How long a vCPU may take to come out: what holds it up so long is a device, not the guest.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is called again: a signal can be lost where the user's queue of signals is full.
const CALL_AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Wish {
    Run,
    Rest,
    Leave,
}

/// All vCPUs of a VM, each in its thread.
pub struct Cpus {
    yard: Arc<Yard>,
    lines: Vec<Line>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One vCPU as seen by those who call it.
struct Line {
    bell: Arc<dyn Bell>,
    /// Its thread's id; zero until it runs.
    thread: Arc<AtomicI32>,
    process: libc::pid_t,
}

/// Where all of them meet.
struct Yard {
    /// The wish of `state` again, read before each entry without the lock.
    wish: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
    stats: Arc<Stats>,
    lifecycle: Arc<Lifecycle>,
}

struct State {
    wish: Wish,
    resting: usize,
    left: usize,
}

impl Cpus {
    /// Makes the threads; each runs `enter` (its jail) first, and leaves when the VM ends.
    ///
    /// # Errors
    /// No thread left.
    pub fn start(
        cpus: Vec<Box<dyn Cpu>>,
        lifecycle: &Arc<Lifecycle>,
        stats: &Arc<Stats>,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        handle_signal()?;
        let yard = Arc::new(Yard {
            wish: AtomicU8::new(Wish::Run as u8),
            state: Mutex::new(State { wish: Wish::Run, resting: 0, left: 0 }),
            changed: Condvar::new(),
            stats: stats.clone(),
            lifecycle: lifecycle.clone(),
        });
        let process = libc::pid_t::try_from(std::process::id()).unwrap_or(0);
        let mut all = Self { yard, lines: Vec::new(), threads: Mutex::default() };
        for (index, mut cpu) in cpus.into_iter().enumerate() {
            let thread = Arc::new(AtomicI32::new(0));
            let line = Line { bell: cpu.bell(), thread: thread.clone(), process };
            let (yard, enter) = (all.yard.clone(), enter.clone());
            let name = std::thread::Builder::new().name(format!("vcpu-{index}"));
            let handle = name.stack_size(128 << 10).spawn(move || {
                thread.store(own_thread(), Ordering::SeqCst);
                enter();
                yard.work(cpu.as_mut());
                drop(cpu);
                yard.leave();
            })?;
            all.lines.push(line);
            all.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(handle);
        }
        Ok(all)
    }

    /// Brings all to rest: when this returns well, no guest code runs, and none of them touches a
    /// device.
    ///
    /// # Errors
    /// They go on, or have ended.
    pub fn pause(&self) -> Result<(), RestError> {
        let mut state = self.yard.lock();
        if state.wish == Wish::Leave {
            return Err(RestError::Ended);
        }
        self.wish(&mut state, Wish::Rest);
        let (mut state, rested) = self.until(state, |state| match state.wish {
            Wish::Rest => (state.resting + state.left >= self.lines.len()).then_some(Ok(())),
            Wish::Run => Some(Err(RestError::Resumed)),
            Wish::Leave => Some(Err(RestError::Ended)),
        });
        if rested == Err(RestError::HeldUp) {
            self.wish(&mut state, Wish::Run);
        }
        rested
    }

    /// All go on.
    pub fn resume(&self) {
        let mut state = self.yard.lock();
        if state.wish == Wish::Rest {
            self.wish(&mut state, Wish::Run);
        }
    }

    /// All leave, for good, and let go of their [`Cpu`]s.
    ///
    /// # Errors
    /// One is held up; it leaves when it can.
    pub fn stop(&self) -> Result<(), RestError> {
        let mut state = self.yard.lock();
        self.wish(&mut state, Wish::Leave);
        let gone = |state: &State| (state.left >= self.lines.len()).then_some(Ok(()));
        let (state, left) = self.until(state, gone);
        drop(state);
        if left.is_ok() {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.drain(..).for_each(|thread| drop(thread.join()));
        }
        left
    }

    fn wish(&self, state: &mut State, wish: Wish) {
        state.wish = wish;
        self.yard.wish.store(wish as u8, Ordering::SeqCst);
        self.lines.iter().for_each(|line| line.bell.set(wish != Wish::Run));
        self.yard.changed.notify_all();
    }

    /// Calls all of them until `done` says what came out.
    fn until<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        done: impl Fn(&State) -> Option<Result<(), RestError>>,
    ) -> (MutexGuard<'a, State>, Result<(), RestError>) {
        let since = Instant::now();
        loop {
            if let Some(result) = done(&state) {
                return (state, result);
            }
            if since.elapsed() > PATIENCE {
                return (state, Err(RestError::HeldUp));
            }
            self.lines.iter().for_each(Line::call);
            let waited = self.yard.changed.wait_timeout(state, CALL_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Cpus {
    fn drop(&mut self) {
        // One that is held up holds what it needs, and leaves when it can.
        let _ = self.stop();
    }
}

impl std::fmt::Debug for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpus").field("count", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Yard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self, cpu: &mut dyn Cpu) {
        while self.lifecycle.ending().is_none() {
            if self.wish.load(Ordering::SeqCst) != Wish::Run as u8 {
                match self.rest() {
                    Wish::Leave => return,
                    Wish::Run | Wish::Rest => cpu.goes_on(),
                }
            }
            match cpu.run() {
                Ok(exit) => self.stats.count(exit),
                Err(ending) => self.lifecycle.end(ending),
            }
        }
    }

    /// Waits while the wish is to rest.
    fn rest(&self) -> Wish {
        let mut state = self.lock();
        state.resting += 1;
        self.changed.notify_all();
        while state.wish == Wish::Rest {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.resting -= 1;
        state.wish
    }

    fn leave(&self) {
        self.lock().left += 1;
        self.changed.notify_all();
    }
}

impl Line {
    fn call(&self) {
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: takes no pointers. A thread that has ended, or another of ours that took over
            // its number, is only woken once for nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, self.process, thread, signal()) };
        }
    }
}

/// The signal that takes a thread out of the guest.
pub(crate) fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Has the signal do nothing but interrupt.
fn handle_signal() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zero is a valid value of this plain struct of integers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // Other calls than KVM's go on after it.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is whole, and its handler does nothing, which is safe at any moment.
    match unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_thread() -> libc::pid_t {
    // SAFETY: takes nothing and can't fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    libc::pid_t::try_from(id).unwrap_or(0)
}

#[cfg(test)]
mod tests;

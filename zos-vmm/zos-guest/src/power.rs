//! The end of the machine: the power button, Ctrl-Alt-Del, or the host's word by the agent.
//!
//! ```text
//!  SIGTERM to every process ─▶ two seconds at most ─▶ SIGKILL ─▶ disks are written ─▶ off, or reset
//! ```

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;
use zos_agent::Power;

/// `struct input_event` on 64-bit Linux: time (16 bytes), type, code, value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: u32 = 1;

/// Blocks the signals that stop us, before any thread is made.
pub(crate) fn block_signals() -> nix::Result<SigSet> {
    // The kernel sends SIGINT to PID 1 for Ctrl-Alt-Del; people send SIGTERM.
    let stops = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    stops.thread_block()?;
    let _ = set_cad_enabled(false);
    Ok(stops)
}

/// Starts to listen.
pub(crate) fn spawn(stops: SigSet) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(signal) = stops.wait() {
            end(Power::Off, signal.as_str());
        }
    })?;
    let Ok(devices) = std::fs::read_dir("/dev/input") else { return Ok(()) };
    for device in devices.flatten().filter_map(|entry| File::open(entry.path()).ok()) {
        thread::Builder::new().name("button".into()).spawn(move || {
            if watch(device).is_ok() {
                end(Power::Off, "power button");
            }
        })?;
    }
    Ok(())
}

/// Reads events until the power key is pressed.
fn watch(mut device: impl Read) -> io::Result<()> {
    let mut event = [0; EVENT_BYTES];
    loop {
        device.read_exact(&mut event)?;
        if is_power_key(&event) {
            return Ok(());
        }
    }
}

fn is_power_key(event: &[u8; EVENT_BYTES]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_ne_bytes([t0, t1]) == EV_KEY
        && u16::from_ne_bytes([c0, c1]) == KEY_POWER
        && u32::from_ne_bytes([v0, v1, v2, v3]) == PRESSED
}

/// Whether this process may end the machine: it is PID 1.
pub(crate) fn may_end() -> Result<(), String> {
    match std::process::id() {
        1 => Ok(()),
        pid => Err(format!("process {pid} is not PID 1 and ends no machine")),
    }
}

/// Ends the machine.
pub(crate) fn end(how: Power, why: &str) {
    let (mode, words) = match how {
        Power::Off => (RebootMode::RB_POWER_OFF, "powering off"),
        Power::Reboot => (RebootMode::RB_AUTOBOOT, "rebooting"),
    };
    println!("hello: {why}: {words}");
    stop_all();
    rustix::fs::sync();
    let Err(error) = reboot(mode);
    println!("hello: {words} failed: {error}");
}

/// Asks every process but us to end, then makes it.
fn stop_all() {
    let all = Pid::from_raw(-1);
    // The reaper takes them; when there is nobody left the kernel says so.
    let _ = kill(all, Signal::SIGTERM);
    for _ in 0..20 {
        if kill(all, None).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let _ = kill(all, Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: u32) -> [u8; EVENT_BYTES] {
        let mut event = [0; EVENT_BYTES];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        for (kind, code, value, right) in
            [(1, 116, 1, true), (1, 116, 0, false), (1, 30, 1, false), (0, 116, 1, false)]
        {
            assert_eq!(is_power_key(&event(kind, code, value)), right);
        }
        let stream = [event(0, 0, 0), event(1, 116, 0), event(1, 116, 1)].concat();
        assert!(watch(&stream[..]).is_ok());
        assert!(watch(&stream[..EVENT_BYTES + 3]).is_err());
    }
}

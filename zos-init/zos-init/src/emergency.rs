//! When PID 1 itself can't go on: the reason in the kernel log and on the console, a while to read it, and
//! a reboot. The kernel would panic if PID 1 returned.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zos_host::kmsg::Level;
use zos_host::power::{self, End};

use crate::{evidence, log};

/// How long the reason stands on the console before the reboot, seconds.
const DELAY: u64 = 10;
/// The same with `zos.mode=dev`: time to look around, unless the watchdog (which nobody feeds now) ends it first;
/// `zos.watchdog=off` prevents that.
const DELAY_DEV: u64 = 120;

static DEV: AtomicBool = AtomicBool::new(false);

/// A panic anywhere in PID 1 ends here instead of in the kernel's "Attempted to kill init".
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("(no message)");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        reboot(&format!("panic at {place}: {what}"));
    }));
}

/// A developer watches: the reason stays longer.
pub(crate) fn developer_mode() {
    DEV.store(true, Ordering::Relaxed);
}

/// Says why, waits, and boots again. Never returns.
pub(crate) fn reboot(reason: &str) -> ! {
    let delay = if DEV.load(Ordering::Relaxed) { DELAY_DEV } else { DELAY };
    let text = format!("cannot go on: {reason}; rebooting in {delay} s");
    log::line(Level::Emergency, &text);
    // The next boot shall know: it was no reset.
    evidence::mark(&format!("died {reason}"));
    // The kernel shows its log on the console unless it was told to be quiet; say it there ourselves.
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("\r\nZOS: {text}\r\n").as_bytes());
    }
    std::thread::sleep(Duration::from_secs(delay));
    power::sync();
    loop {
        // It doesn't return; if it fails, there is nothing left to try but again.
        let _ = power::end(End::Reboot);
        std::thread::sleep(Duration::from_secs(1));
    }
}

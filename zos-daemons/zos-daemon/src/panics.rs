//! What a panic leaves behind: one line at the level "critical", before the process ends and PID 1
//! starts it again.
//!
//! ```text
//!  <2>{"msg":"panicked at src/x.rs:7:5: …","thread":…,"version":…,"backtrace":["+0x1f2a", …]}
//! ```
//! The image has no symbols. An address is told from the program's begin, so that `addr2line` with
//! the unstripped program of the same build finds its line.

use std::backtrace::Backtrace;
use std::io::Write;
use std::panic::PanicHookInfo;

use crate::log;

/// The most addresses told.
const DEEP: usize = 24;

/// Tells panics of this process so, from now on.
pub(crate) fn tell(daemon: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        // With one write, so that no other line stands in it; there is nobody to tell of a failure.
        let _ = std::io::stderr().write_all(report(daemon, panic).as_bytes());
    }));
}

fn report(daemon: &str, panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let words = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current().name().unwrap_or("?").to_owned();
    let frames = frames(&format!("{:#}", Backtrace::force_capture()), program());
    let fields = [
        ("thread", thread.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("backtrace", frames.into()),
    ];
    log::line(log::CRITICAL, &format!("panicked at {place}: {words}"), daemon, &fields)
}

/// Where the program lies in memory: the first mapping of proc_pid_maps(5).
fn program() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.split('-').next().and_then(|begin| u64::from_str_radix(begin, 16).ok()).unwrap_or(0)
}

/// Each frame below those of the panic itself: its function, or its place in the program.
fn frames(backtrace: &str, program: u64) -> Vec<String> {
    // `   4:     0x55d5a8a0f2f6 - function`, in long form as std writes it; places stand on lines between
    let frame = |line: &str| {
        let (number, rest) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok()?;
        let (address, name) = rest.trim_start().split_once(" - ")?;
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some(match name {
            "<unknown>" => format!("+{:#x}", address.checked_sub(program).unwrap_or(address)),
            name => name.to_owned(),
        })
    };
    let all: Vec<String> = backtrace.lines().filter_map(frame).collect();
    let begins = |name: &String| name.contains("core::panicking") || name.contains("begin_unwind");
    let own = all.iter().rposition(begins).map_or(0, |at| at + 1);
    all.into_iter().skip(own).take(DEEP).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TEXT: &str = "
   0:     0x7f0000001000 - std::backtrace::Backtrace::force_capture::h0
   1:     0x7f0000001100 - core::panicking::panic_fmt::h1
                               at /rustc/library/core/src/panicking.rs:80:14
   2:     0x7f0000001234 - <unknown>
   3:     0x7f0000002000 - storaged::life::Life::handle::h2
   4:                0x0 - <unknown>";

    #[test]
    fn a_frame_is_its_function_or_its_place_in_the_program() {
        let seen = frames(TEXT, 0x7f00_0000_0000);
        assert_eq!(seen, ["+0x1234", "storaged::life::Life::handle::h2", "+0x0"]);
        assert!(frames("disabled backtrace", 0).is_empty());
        assert_ne!(program(), 0);
    }

    /// The child of the test below: panics in a thread of its own, as a daemon does.
    #[test]
    #[ignore = "run by the next test, in a process of its own"]
    fn child() {
        tell("testd");
        let thread = std::thread::Builder::new().name("worker".into());
        let _ = thread.spawn(|| panic!("no \"bread\"\nno wine")).unwrap().join();
    }

    #[test]
    fn a_panic_is_one_critical_line() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "panics::tests::child", "--nocapture"])
            .output()
            .unwrap();
        let stderr = String::from_utf8(child.stderr).unwrap();
        let line = stderr.lines().find_map(|line| line.strip_prefix("<2>")).expect("a line");
        assert!(line.starts_with(r#"{"msg":"panicked at "#), "{line}");
        let value: Value = serde_json::from_str(line).unwrap();
        let of = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        assert!(of("msg").contains("panics.rs:"), "{line}");
        assert!(of("msg").ends_with("no \"bread\"\nno wine"), "{line}");
        assert_eq!((of("thread"), of("target")), ("worker".to_owned(), "testd".to_owned()));
        assert_eq!(of("version"), env!("CARGO_PKG_VERSION"));
        let frames = value["backtrace"].as_array().unwrap();
        assert!(
            frames.iter().any(|f| f.as_str().unwrap().contains("panics::tests::child")),
            "{line}"
        );
    }
}

//! The node's processes, from `/proc`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Every process in user space with its memory in KiB: `pss` with its share of common pages, `private` without.
pub(crate) fn all() -> Result<Value> {
    let mut list = Vec::new();
    for (pid, words) in processes()? {
        let rollup =
            std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let private = field("Private_Clean:") + field("Private_Dirty:");
        list.push(
            json!({"pid": pid, "name": name(&words), "pss": field("Pss:"), "private": private}),
        );
    }
    Ok(list.into())
}

/// Kills every process of a name.
pub(crate) fn kill(wanted: &str) -> Result<Value> {
    let mut killed = 0;
    for (pid, words) in processes()? {
        if name(&words) == wanted {
            let pid = Pid::from_raw(pid).context("a process has a number")?;
            kill_process(pid, Signal::KILL).with_context(|| format!("kill {wanted}"))?;
            killed += 1;
        }
    }
    Ok(killed.into())
}

/// Runs a program, given as a list of words, to its end.
pub(crate) fn run(command: &str) -> Result<Value> {
    let words: Vec<String> = serde_json::from_str(command).context("run [\"PROGRAM\", ..]")?;
    let (program, arguments) = words.split_first().context("run [\"PROGRAM\", ..]")?;
    let start = Instant::now();
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let text = [output.stdout, output.stderr].concat();
    Ok(
        json!({"code": output.status.code(), "output": String::from_utf8_lossy(&text), "millis": millis}),
    )
}

/// Processes that have a command line; threads of the kernel have none.
fn processes() -> Result<Vec<(i32, Vec<String>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may be gone by now.
        let bytes = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = bytes
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if !words[0].is_empty() {
            found.push((pid, words));
        }
    }
    found.sort();
    Ok(found)
}

/// `zosd storaged` is `storaged`; anything else is its file's name.
fn name(words: &[String]) -> &str {
    let program =
        Path::new(&words[0]).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match words.get(1) {
        Some(daemon) if program == "zosd" => daemon,
        _ => program,
    }
}

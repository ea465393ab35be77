//! Ten services that print as fast as they can: PID 1 stays small and answers, the console stays readable, and a reader
//! knows which lines it has missed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::SOON;
use qemu_tests::probe::Probe;
use qemu_tests::{Node, scene};
use serde_json::{Value, json};

const FLOODS: usize = 10;
/// Of each, in MiB.
const MUCH: usize = 8;
/// The same in lines; one more tells that it is over.
const LINES: u64 = (MUCH << 20) as u64 / (100 * 160) * 160;
/// What PID 1 may keep in memory meanwhile: KiB, its share of common pages.
const PID_1: u64 = 3 << 10;

#[test]
fn ten_floods_cost_pid_1_their_rings_and_nobody_anything() {
    scene("log", |scene| {
        let mut plan = Node::default().set("zos.log=info").with_probe();
        for number in 0..FLOODS {
            plan = plan.with_unit(&format!("flood-{number}"), &unit(number));
        }
        let mut node = scene.start(&plan)?;
        node.wait_ready()?;
        let probe = node.probe()?;
        probe.write("/run/act/floods", "now")?;
        while_they_last(probe)?;
        for number in 0..FLOODS {
            kept(probe, &format!("flood-{number}"))?;
        }
        // One of them wants its lines on the console, and gets as many as anybody may bear.
        let shown = node.serial().text().lines().filter(|line| line.contains(": flood ")).count();
        println!("{shown} of its lines are on the console");
        ensure!((100..2_000).contains(&shown), "{shown} lines are on the console");
        node.power_off()
    });
}

fn unit(number: usize) -> String {
    let console = number == 0;
    format!(
        r#"
exec = ["/bin/zos-probe", "act", "when", "floods", "flood", "{MUCH}"]
user = "root"
restart = "never"
log = {{ console = {console} }}
"#
    )
}

/// Looks at PID 1 again and again, and follows one of them, until all have said their last word. How long the
/// slowest answer took is told, and no test: the computer may be busy.
fn while_they_last(probe: &mut Probe) -> Result<()> {
    let (mut slowest, mut cursor, mut seen, mut size) = (Duration::ZERO, 0, 0, 0);
    let end = Instant::now() + 4 * SOON;
    while Instant::now() < end {
        let start = Instant::now();
        let reply = read(probe, "flood-1", cursor)?;
        slowest = slowest.max(start.elapsed());
        let entries = reply["entries"].as_array().context("a log has entries")?;
        let missed = reply["missed"].as_u64().context("a log tells what was missed")?;
        // Each line once, in order, or counted as missed.
        for (entry, expect) in entries.iter().zip(cursor + missed + 1..) {
            ensure!(entry["cursor"] == expect, "line {} instead of {expect}", entry["cursor"]);
        }
        seen += entries.len() as u64;
        cursor += missed + entries.len() as u64;
        size = size.max(small(probe)?);
        if (0..FLOODS).map(|n| ended(probe, n)).collect::<Result<Vec<_>>>()?.iter().all(|e| *e) {
            println!("PID 1 held {size} KiB; {seen} of {cursor} lines were seen");
            ensure!(seen > 0 && cursor > seen, "{seen} of {cursor} lines were seen");
            println!("the slowest answer took {} ms", slowest.as_millis());
            return Ok(());
        }
    }
    anyhow::bail!("the floods did not end")
}

fn ended(probe: &mut Probe, number: usize) -> Result<bool> {
    let reply = read(probe, &format!("flood-{number}"), LINES)?;
    let last = reply["entries"][0]["text"].as_str();
    Ok(last.is_some_and(|text| text.starts_with("flooded:")))
}

/// The newest lines are there, each whole, and the count of all says that none was lost on its way.
fn kept(probe: &mut Probe, unit: &str) -> Result<()> {
    let reply = read(probe, unit, 0)?;
    let entries = reply["entries"].as_array().context("a log has entries")?;
    let texts: Vec<&str> = entries.iter().filter_map(|entry| entry["text"].as_str()).collect();
    let (last, flood) = texts.split_last().context("a log has lines")?;
    println!("{unit}: {last}");
    let number = |text: &str| text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    let numbers: Vec<u64> = flood.iter().filter_map(|text| number(text)).collect();
    ensure!(numbers.len() > 200, "{unit}: {} lines are kept", numbers.len());
    ensure!(numbers.last() == Some(&(LINES - 1)), "{unit}: the last is {:?}", numbers.last());
    ensure!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{unit}: lines are missing");
    let cursor = &entries[entries.len() - 1]["cursor"];
    ensure!(*cursor == LINES + 1, "{unit}: the last line of {LINES} has the number {cursor}");
    Ok(())
}

fn small(probe: &mut Probe) -> Result<u64> {
    let all = probe.processes()?;
    let init = all.iter().find(|process| process["pid"] == 1).context("there is no PID 1")?;
    let size = init["pss"].as_u64().context("PID 1 has no size")?;
    ensure!(size > 0 && size <= PID_1, "PID 1 holds {size} KiB, more than {PID_1}");
    Ok(size)
}

fn read(probe: &mut Probe, unit: &str, after: u64) -> Result<Value> {
    probe.varlink("init", "org.zos.Init.ReadLog", json!({ "unit": unit, "after": after }))
}

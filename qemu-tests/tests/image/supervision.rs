//! Services that behave badly, files that are wrong, callers that know no protocol: PID 1 goes on, and says what is what.
//!
//! Every check asks as others do: `org.zos.Init`, `GET /v1/node`, `/proc` and the cgroups.

mod units;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use image_builder::cpio::Mode;
use qemu_tests::api::Api;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Node, scene};
use serde_json::{Value, json};
use zos_types::machine::Node as NodeView;

use crate::vm::{DAEMONS, HELLO, running, vmms};

/// What PID 1 may keep in memory, whatever happened: KiB.
const PID_1: u64 = 3 << 10;
/// How long a part may take: ten thousand programs start in 20 s on free cores under emulation, in 80 s beside another node.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long an answer of the API may take while the node is busy, under emulation.
const ANSWER: Duration = Duration::from_secs(10);

#[test]
fn bad_services_and_bad_unit_files_disturb_nobody_else() {
    scene("supervision", |scene| {
        let mut plan = Node::with_disks([scene.disk("key", 4 * GIB)?]).with_probe();
        for (name, text) in units::BAD.iter().chain(&units::RING) {
            plan = plan.with_unit(name, text);
        }
        for (name, text, _, _) in &units::WRONG {
            plan = plan.with_unit(name, text);
        }
        plan = plan.with_file("bin/nothing", Mode::Program, units::nothing());
        let mut node = scene.start(&plan)?;
        let found = node.wait_ready()?;
        faults_are_named(&found)?;

        let port = node.api_port();
        let over = AtomicBool::new(false);
        let slowest = std::thread::scope(|threads| {
            let asked = threads.spawn(|| keep_asking(port, &over));
            let checked = each_part(node.probe()?);
            over.store(true, Ordering::Relaxed);
            let slowest = asked.join().ok().context("the asker panicked")?;
            checked?;
            slowest
        })?;
        println!("the slowest answer of the API took {} ms", slowest.as_millis());
        ensure!(slowest < ANSWER, "an answer of the API took {slowest:?}");
        undisturbed(&mut node)?;

        // The deaf one hangs on the way down, too: its time is bounded, and the others' is theirs.
        let start = Instant::now();
        node.power_off()?;
        println!("the way down took {} ms", start.elapsed().as_millis());
        Ok(())
    });
}

/// Every wrong file is a fault that names it with its line, and what is wrong.
fn faults_are_named(node: &NodeView) -> Result<()> {
    let all: Vec<&str> = node.faults.iter().map(|fault| fault.detail.as_str()).collect();
    for (name, _, line, word) in units::WRONG {
        let place = if line == 0 { format!("{name}.toml") } else { format!("{name}.toml:{line}") };
        let said = all.iter().any(|fault| fault.contains(&place) && fault.contains(word));
        ensure!(said, "no fault names {place} and `{word}`: {all:#?}");
    }
    let ring = all.iter().find(|fault| units::RING.iter().all(|(name, _)| fault.contains(name)));
    ensure!(ring.is_some(), "no fault names the whole ring: {all:#?}");
    let named = |name: &str| node.services.iter().any(|service| service.name == name);
    ensure!(units::BAD.iter().all(|(name, _)| named(name)), "a good file was left out");
    Ok(())
}

/// Asks for the node again and again; gives the time of the slowest answer, and no answer is an error.
fn keep_asking(port: u16, over: &AtomicBool) -> Result<Duration> {
    let api = Api::new(port, None)?;
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        api.node().context("the API stopped answering")?;
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(slowest)
}

/// Each bad service: what becomes of it.
fn each_part(probe: &mut Probe) -> Result<()> {
    // These need nobody's word.
    until(probe, "crashing", |unit| state(unit) == "failed" && says(unit, "code 3"))?;
    until(probe, "preparing", |unit| state(unit) == "done" && unit["restarts"] == 2)?;
    let causes = [
        ("silent", "silent for 2 s; then signal 6"),
        ("unwell", "check failed 2 times in a row: exit code 1"),
        ("stuck", "check failed 2 times in a row: no answer"),
    ];
    for (name, cause) in causes {
        until(probe, name, |unit| unit["restarts"].as_u64() > Some(0))?;
        event(probe, name, cause)?;
    }
    // A oneshot that failed for good is tried anew later, and whoever waits for it knows why until then.
    event(probe, "hopeless", "code 7")?;
    until(probe, "hopeless", |unit| state(unit) == "done")?;
    until(probe, "patient", |unit| state(unit) == "running")?;

    begin(probe, "forking")?;
    until(probe, "forking", |unit| state(unit) == "exited" && unit["exit"]["code"] == 0)?;
    empty(probe, "forking")?;

    begin(probe, "eating")?;
    until(probe, "eating", |unit| unit["exit"]["oom"] == true)?;
    empty(probe, "eating")?;

    call(probe, "StopUnit", json!({"unit": "deaf"}))?;
    until(probe, "deaf", |unit| state(unit) == "exited" && unit["exit"]["signal"] == 9)?;
    empty(probe, "deaf")?;
    call(probe, "StartUnit", json!({"unit": "deaf"}))?;
    until(probe, "deaf", |unit| state(unit) == "running")?;

    begin(probe, "flooding")?;
    let last = wait_log(probe, "flooding", "flooded:")?;
    println!("{last}");
    let held = describe(probe, "flooding")?["log_bytes"].as_u64();
    ensure!(held <= Some(64 << 10) && held > Some(0), "a ring of 64 KiB holds {held:?} bytes");

    begin(probe, "breeding")?;
    until(probe, "breeding", |unit| state(unit) == "exited" && unit["exit"]["code"] == 0)?;
    println!("{}", wait_log(probe, "breeding", "zombies")?);
    empty(probe, "breeding")?;
    let dead = probe.zombies()?;
    ensure!(dead == 0, "{dead} zombies are left");
    small(probe)
}

/// After everything: the daemons are the ones of the start, and PID 1 is as small as ever.
fn undisturbed(node: &mut Machine) -> Result<()> {
    let found = node.api().node()?;
    for daemon in DAEMONS {
        let service = found.services.iter().find(|service| service.name == daemon);
        let calm = service.is_some_and(|s| s.state == "running" && s.restarts == 0);
        ensure!(calm, "{daemon} was disturbed: {service:?}");
    }
    small(node.probe()?)
}

fn small(probe: &mut Probe) -> Result<()> {
    let status = probe.read("/proc/1/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = size.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let size = size.context("the kernel tells no size of PID 1")?;
    println!("PID 1 holds {size} KiB");
    ensure!(size <= PID_1, "PID 1 holds {size} KiB, more than {PID_1}");
    Ok(())
}

/// Lets a service that waits for it do its part.
fn begin(probe: &mut Probe, name: &str) -> Result<()> {
    probe.write(&format!("/run/act/{name}"), "now")
}

fn call(probe: &mut Probe, method: &str, parameters: Value) -> Result<Value> {
    probe.varlink("init", &format!("org.zos.Init.{method}"), parameters)
}

fn describe(probe: &mut Probe, unit: &str) -> Result<Value> {
    call(probe, "DescribeUnit", json!({"unit": unit}))
}

fn state(unit: &Value) -> &str {
    unit["state"].as_str().unwrap_or_default()
}

pub(crate) fn says(unit: &Value, word: &str) -> bool {
    unit["detail"].as_str().is_some_and(|detail| detail.contains(word))
}

/// Waits until PID 1 says of a unit what is wanted.
pub(crate) fn until(
    probe: &mut Probe,
    unit: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = describe(probe, unit)?;
        if wanted(&found["unit"]) {
            return Ok(found);
        }
        if Instant::now() > end {
            let log = call(probe, "ReadLog", json!({"unit": unit, "after": 0}));
            bail!("{unit} is not as wanted; it is {found}, and printed {log:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until PID 1 remembers that a word was said of a unit.
fn event(probe: &mut Probe, unit: &str, word: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let time = (1, Duration::from_secs(5));
        let replies = probe.watch("init", "org.zos.Init.WatchEvents", json!({"after": 0}), time)?;
        let events = replies.first().context("no events came")?["events"].clone();
        let of_unit: Vec<&Value> = events
            .as_array()
            .context("events are a list")?
            .iter()
            .filter(|event| event["unit"] == unit)
            .collect();
        if of_unit.iter().any(|event| says(event, word)) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "nothing about `{word}` happened to {unit}: {of_unit:#?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits for a line in what a unit printed.
pub(crate) fn wait_log(probe: &mut Probe, unit: &str, word: &str) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        // Only the end: a whole ring is more than a serial line takes at a time.
        let held = call(probe, "ReadLog", json!({"unit": unit, "after": 0}))?;
        let entries = held["entries"].as_array().context("a log is a list")?;
        let texts = entries.iter().filter_map(|entry| entry["text"].as_str());
        if let Some(line) = texts.rev().find(|text| text.contains(word)) {
            return Ok(line.to_owned());
        }
        ensure!(Instant::now() < end, "{unit} never printed `{word}`");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Nothing of a service that has ended runs on.
fn empty(probe: &mut Probe, unit: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        // No folder is as good as an empty one.
        let events = probe.read(&format!("/sys/fs/cgroup/node/{unit}/cgroup.events"));
        match events {
            Ok(events) if !events.contains("populated 0") => {
                ensure!(Instant::now() < end, "{unit} left processes behind: {events}");
            }
            _ => return Ok(()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn garbage_and_a_thousand_connections_disturb_nobody_and_vms_go_down_first() {
    scene("hammer", |scene| {
        let twin = scene.twin("twin")?;
        let disk = scene.disk("key", 8 * GIB)?;
        let mut node = scene.start(&Node::with_disks([disk]).with_probe())?;
        node.wait_ready()?;
        let found =
            node.wait_node("last phase", SOON, |node| node.phases.contains_key("services"))?;
        phases_in_order(&found)?;
        let api = twin.api(&node)?;
        api.put("hello", HELLO)?;
        running(&api, "hello")?;
        api.wait_log(("hello", "hello"), "boots: 1", SOON)?;
        let vm = vmms(&mut node)?;

        let port = node.api_port();
        let over = AtomicBool::new(false);
        let slowest = std::thread::scope(|threads| {
            let asked = threads.spawn(|| keep_asking(port, &over));
            let hammered = hammer(node.probe()?);
            over.store(true, Ordering::Relaxed);
            let slowest = asked.join().ok().context("the asker panicked")?;
            hammered?;
            slowest
        })?;
        println!("the slowest answer of the API took {} ms", slowest.as_millis());
        ensure!(slowest < ANSWER, "an answer of the API took {slowest:?}");
        undisturbed(&mut node)?;
        ensure!(vmms(&mut node)? == vm, "a VM was touched");

        vms_first(&mut node)
    });
}

/// From the kernel's hand-over to the last service: each phase has its time, and they follow each other.
fn phases_in_order(node: &NodeView) -> Result<()> {
    let ends: Vec<Option<&u64>> =
        ["mounts", "manifest", "loop", "services"].map(|name| node.phases.get(name)).to_vec();
    let ordered = ends.is_sorted() && ends.iter().all(Option::is_some);
    ensure!(ordered, "phases are missing or out of order: {:?}", node.phases);
    println!("phases {:?}", node.phases);
    Ok(())
}

/// A thousand connections at once to each socket, by nobody and by root.
fn hammer(probe: &mut Probe) -> Result<()> {
    let before = probe.list("/proc/1/fd")?.len();
    let sockets = ["init", "storage", "identity", "net", "capacity", "vm", "provision"];
    for (number, noun) in sockets.iter().enumerate() {
        let path = format!("/run/zos/{noun}.sock");
        let seed = (number + 1).to_string();
        let words = ["/bin/zos-probe", "act", "hammer", &path, "1000", &seed];
        // PID 1 is asked by both; of the others each is asked by one of them.
        let who: &[u32] = if number == 0 { &[65_534, 0] } else { &[65_534] };
        for uid in who {
            let done = probe.run_as(*uid, &words)?;
            println!("{noun} by {uid}: {}", done["output"].as_str().unwrap_or_default().trim());
            ensure!(done["code"] == 0, "the hammer broke: {done}");
        }
    }
    // What they left open is let go of.
    let end = Instant::now() + SOON;
    while probe.list("/proc/1/fd")?.len() > before + 5 {
        ensure!(Instant::now() < end, "PID 1 keeps connections of callers that have gone");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// The way down as PID 1 tells it: the VM ends by its guest's own hand, then the services stop.
fn vms_first(node: &mut Machine) -> Result<()> {
    let probe = node.probe()?;
    probe.follow("init", "org.zos.Init.WatchEvents", json!({"after": 0}))?;
    std::thread::sleep(Duration::from_secs(1));
    node.press_power_button()?;
    let told = node.probe()?.told()?;
    let reason = node.wait_off(SOON)?;
    ensure!(reason == "guest-shutdown", "the machine ended by {reason}");
    let events: Vec<&Value> =
        told.iter().filter_map(|reply| reply["events"].as_array()).flatten().collect();
    let is_vm = |event: &Value| event["unit"].as_str().is_some_and(|unit| unit.starts_with("vm/"));
    let down = events.iter().position(|event| is_vm(event) && state(event) == "stopping");
    let events = &events[down.with_context(|| format!("no VM was told to stop: {events:#?}"))?..];
    let ended = events.iter().position(|event| is_vm(event) && event["exit"].is_object());
    let ended = ended.with_context(|| format!("no VM has ended: {events:#?}"))?;
    // 0 is zos-vmm's word for a guest that switched itself off; a kill would be a signal.
    ensure!(events[ended]["exit"]["code"] == 0, "the guest heard no button: {}", events[ended]);
    let service = events.iter().position(|event| !is_vm(event) && state(event) == "stopping");
    ensure!(service.is_none_or(|at| at > ended), "a service stopped before the VM: {events:#?}");
    Ok(())
}

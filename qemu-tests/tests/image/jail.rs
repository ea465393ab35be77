//! A VMM that a guest has taken over gets nowhere, in the fence that PID 1 really builds.

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::machine::SOON;
use qemu_tests::{GIB, Node, programs, scene};
use zos_types::status::State;

/// A VM with all that one can have; its end is to be seen.
const TAKEN: &str = r#"
version = 1
[workloads.hello]
type = "vm"
cpu = 1
memory = "128MiB"
image = "builtin:hello"
restart = "never"
disks = [{ volume = "data" }]
networks = [{ network = "nat" }]
[workloads.data]
type = "volume"
size = "1GiB"
"#;

/// What the VMM says last, before it takes memory without end.
const LAST: &str = "escape: now memory without end";

#[test]
fn a_vmm_taken_over_gets_nowhere() {
    scene("jail", |scene| {
        let escape = programs::escape()?;
        let escape = std::fs::read(escape).context("read the VMM taken over")?;
        let twin = scene.twin("twin")?;
        // Without a manifest PID 1 takes every program for whole.
        let plan = Node::with_disks([scene.disk("key", 4 * GIB)?])
            .with_file("bin/zos-vmm", Mode::Program, escape)
            .with_file("manifest", Mode::File, "");
        let mut node = scene.start(&plan)?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        api.put("taken", TAKEN)?;
        let log = api.wait_log(("taken", "hello"), LAST, SOON)?;
        println!("{log}");
        nothing_won(&log)?;
        // More memory than its cgroup has: the whole VM goes, and the node stays.
        let ended = api.wait_workload(("taken", "hello"), SOON, |workload| {
            matches!(workload.state, State::Stopped { .. })
        })?;
        let words = format!("{:?}", ended.state);
        ensure!(words.contains("memory that it is held to"), "it ended otherwise: {words}");
        ensure!(
            !api.log("taken", "hello")?.contains("without end: WON"),
            "it had memory without end"
        );
        let services = node.api().node()?.services;
        let restarted: Vec<_> = services.iter().filter(|service| service.restarts > 0).collect();
        ensure!(restarted.is_empty(), "services went with it: {restarted:?}");
        node.power_off()
    });
}

/// Each goal was tried, with everything there to try it on, and none was won.
fn nothing_won(log: &str) -> Result<()> {
    let tried: Vec<&str> = log.lines().filter(|line| line.starts_with("escape: ")).collect();
    ensure!(tried.len() > 60, "only {} lines", tried.len());
    let won: Vec<_> = tried.iter().filter(|line| line.contains(" WON")).collect();
    ensure!(won.is_empty(), "won: {won:#?}");
    ensure!(log.contains(": 0 won"), "the sum is missing");
    let untried: Vec<_> = tried.iter().filter(|line| line.contains(" - ")).collect();
    ensure!(untried.is_empty(), "nothing to try these on: {untried:#?}");
    Ok(())
}

//! Volumes of each kind on the node's own kernel: storaged's tests of them, run inside a node.
//!
//! ```text
//!  ns_volume (static) ─▶ node ─▶ loop devices as disks ─ btrfs ─ dm-integrity, dm-raid, dm-crypt
//! ```
//! What they check is told where they stand, in `storaged/tests/ns_volume.rs`. Where there is no device-mapper, as
//! on many build machines, they say that they were skipped; here that is a failure.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::{Machine, Node, programs, scene};

/// How long one of them may take on two busy cores; alone the longest takes a minute and a half.
const LONG: Duration = Duration::from_secs(900);

#[test]
fn every_kind_of_volume_keeps_its_promise_on_the_nodes_kernel() {
    scene("volumes", |scene| {
        let program = std::fs::read(programs::volumes()?).context("read the tests of volumes")?;
        // Their disks lie in memory, of which half may be files.
        let plan = Node { memory: 8192, ..Node::default() }
            .with_file("bin/ns_volume", Mode::Program, program)
            .with_file("manifest", Mode::File, "")
            .with_probe();
        let mut node = scene.start(&plan)?;
        node.wait_ready()?;
        let listed = run(&mut node, &["--list", "--format", "terse"])?;
        let tests: Vec<&str> = listed.lines().filter_map(|l| l.strip_suffix(": test")).collect();
        ensure!(tests.len() > 6, "only these tests: {listed}");
        for test in tests {
            let said = run(&mut node, &["--exact", test, "--nocapture"])?;
            println!("{said}");
            ensure!(said.contains("1 passed"), "{test} did not pass:\n{said}");
            ensure!(!said.contains("skipped:"), "{test} was skipped:\n{said}");
        }
        node.power_off()
    });
}

fn run(node: &mut Machine, words: &[&str]) -> Result<String> {
    let all = [&["/bin/ns_volume"], words].concat();
    let ended = node.probe()?.run_long(&all, LONG)?;
    Ok(ended["output"].as_str().context("the probe tells no output")?.to_owned())
}

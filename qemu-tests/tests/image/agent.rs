//! The hand in a jailed VM: zos-guest answers its host over vsock, through the VMM's jail.

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Node, programs, scene};
use serde_json::Value;

use crate::vm::{HELLO, guest, running};

/// The first VM of a node has slot 0.
const SOCKET: &str = "/run/zos/vm/0/vsock";

#[test]
fn the_agent_of_a_vm_answers_through_the_jail() {
    scene("agent", |scene| {
        let disk = scene.disk("key", 8 * GIB)?;
        let alice = scene.twin("alice")?;
        let agent = std::fs::read(programs::agent()?).context("read zos-agent")?;
        let node = Node::with_disks([disk])
            .with_probe()
            .with_file("tests", Mode::Dir, [])
            .with_file("tests/zos-agent", Mode::Program, agent);
        let mut node = scene.start(&node)?;
        node.wait_ready()?;
        let api = alice.api(&node)?;
        api.put("hello", HELLO)?;
        let address = running(&api, "hello")?;
        guest(&mut node, address)?;
        let probe = node.probe()?;

        let told = ask(probe, &["describe"], 0)?;
        let told: Value = serde_json::from_str(&told).context("read the description")?;
        let kernel = told["description"]["kernel"].as_str().unwrap_or_default();
        ensure!(kernel.ends_with("-guest"), "another kernel answers: {told}");
        let told = ask(probe, &["stats"], 0)?;
        let told: Value = serde_json::from_str(&told).context("read the statistics")?;
        let memory = told["stats"]["memory"].as_u64().context("it tells its memory")?;
        ensure!(memory < GIB, "a VM of the sample's size has less: {told}");

        // The one program in there is PID 1's: as a process it tells how it is meant, and ends with 2.
        let said = ask(probe, &["exec", "--", "/init"], 2)?;
        ensure!(said.contains("zos-guest is PID 1"), "its stderr came not: {said}");
        let said = ask(probe, &["exec", "--", "/no/such"], 127)?;
        ensure!(said.contains("/no/such: No such file"), "it does not say what failed: {said}");

        // A file system of the host's wish, and one that can't be.
        let tmpfs =
            r#"{"mount":{"source":"none","target":"/mnt","kind":"tmpfs","flags":["nosuid"]}}"#;
        ask(probe, &["call", tmpfs], 0)?;
        let said = ask(probe, &["call", &tmpfs.replace("tmpfs", "nofs")], 255)?;
        ensure!(said.contains("mount none as nofs on /mnt"), "it does not say what failed: {said}");
        node.power_off()
    });
}

/// What the guest answers, and the code that is expected.
fn ask(probe: &mut Probe, words: &[&str], code: i64) -> Result<String> {
    let words = [&["/tests/zos-agent", SOCKET], words].concat();
    let ended = probe.run(&words.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let output = ended["output"].as_str().unwrap_or_default().to_owned();
    ensure!(ended["code"] == code, "{words:?} ended with {}: {output}", ended["code"]);
    Ok(output)
}

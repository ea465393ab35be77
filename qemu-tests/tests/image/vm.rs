//! A twin's VM runs, is walled in, and outlives the daemons around it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::api::Api;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{GIB, Node, scene};
use zos_types::status::State;

/// The sample that the README shows.
pub(crate) const HELLO: &str = include_str!("../../../docs/examples/hello.toml");
/// The port on which the guest of `builtin:hello` answers.
const PORT: u16 = 8080;
/// Daemons in the order of their start.
const DAEMONS: [&str; 8] =
    ["storaged", "identityd", "netd", "capacityd", "vmd", "provisiond", "apid", "consoled"];

/// Waits until the VM `hello` of a deployment runs and has an address.
pub(crate) fn running(api: &Api, deployment: &str) -> Result<IpAddr> {
    let status = api.wait_workload((deployment, "hello"), SOON, |workload| {
        workload.state == State::Running && workload.address.is_some()
    })?;
    status.address.context("the VM has an address")
}

/// Where a VM's guest answers, once it does.
fn guest(node: &mut Machine, address: IpAddr) -> Result<SocketAddr> {
    let guest = SocketAddr::new(address, PORT);
    let probe = node.probe()?;
    let end = std::time::Instant::now() + SOON;
    while !probe.connects(guest)? {
        ensure!(std::time::Instant::now() < end, "{guest} does not answer from the node's side");
    }
    Ok(guest)
}

#[test]
fn a_twins_vm_runs_walled_in_and_outlives_the_daemons() {
    scene("vm", |scene| {
        let disk = scene.disk("key", 8 * GIB)?;
        let (alice, bob) = (scene.twin("alice")?, scene.twin("bob")?);
        let mut node = scene.start(&Node::with_disks([disk]).with_probe())?;
        node.wait_ready()?;

        // The way of a twin's hand: the command line, the sample.
        let file =
            qemu_tests::image::project().join("docs/examples/hello.toml").display().to_string();
        alice.run_zos(&node, &["apply", "-f", &file, "--wait"])?;
        bob.run_zos(&node, &["apply", "-f", &file, "--wait"])?;
        let (of_alice, of_bob) = (alice.api(&node)?, bob.api(&node)?);
        let (a, b) = (running(&of_alice, "hello")?, running(&of_bob, "hello")?);
        ensure!(a != b, "two VMs have one address: {a}");

        // The guest booted to its user space, sees what it was given, and the log says so through the API.
        of_alice.wait_log(("hello", "hello"), &a.to_string(), SOON)?;

        // Its port answers from the node's side, and not from another twin's VM.
        let (alice_guest, bob_guest) = (guest(&mut node, a)?, guest(&mut node, b)?);
        let probe = node.probe()?;
        let seen = probe.get(alice_guest, "/")?;
        ensure!(seen.contains("memory"), "the guest tells nothing of its memory: {seen}");
        let reach = |probe: &mut qemu_tests::probe::Probe, to: &str| -> Result<bool> {
            let answer = probe.get(bob_guest, &format!("/reach?to={to}"))?;
            let answer: serde_json::Value =
                serde_json::from_str(&answer).context("read the guest's answer")?;
            let result = answer["result"].as_str();
            Ok(result.with_context(|| format!("the guest tells no result for {to}: {answer}"))?
                == "connected")
        };
        // It can try at all: it reaches itself.
        ensure!(reach(probe, &format!("{b}:{PORT}"))?, "the guest can't even reach itself");
        ensure!(
            !reach(probe, &alice_guest.to_string())?,
            "another twin's VM reaches {alice_guest}"
        );
        let gateway = gateway(b);
        for walled in [format!("{gateway}:8443"), "10.0.2.15:8443".into(), "10.0.2.2:53".into()] {
            ensure!(
                !reach(probe, &walled)?,
                "a VM reaches {walled}, which is the node's or the farmer's"
            );
        }

        // Each daemon killed once: the VM is the same process, and was never started again.
        let vmms = |node: &mut Machine| -> Result<Vec<i64>> {
            let all = node.probe()?.processes()?;
            let ours = all.iter().filter(|process| process["name"] == "zos-vmm");
            Ok(ours.filter_map(|process| process["pid"].as_i64()).collect())
        };
        let before = vmms(&mut node)?;
        ensure!(before.len() == 2, "two VMs run in {} processes", before.len());
        for daemon in DAEMONS {
            let killed = node.probe()?.kill(daemon)?;
            ensure!(killed == 1, "{killed} processes are {daemon}");
            node.wait_node(&format!("{daemon} running again"), SOON, |found| {
                found
                    .services
                    .iter()
                    .any(|s| s.name == daemon && s.state == "running" && s.restarts > 0)
            })?;
            ensure!(vmms(&mut node)? == before, "killing {daemon} touched a VM");
        }
        for api in [&of_alice, &of_bob] {
            let status = api.wait_workload(("hello", "hello"), SOON, |workload| {
                workload.state == State::Running
            })?;
            ensure!(status.restarts == 0, "a VM was started again: {status:?}");
        }
        ensure!(
            node.probe()?.connects(alice_guest)?,
            "the VM's port is closed after the daemons' restarts"
        );
        node.power_off()
    });
}

/// The first address of the VMs' network, which is the node's.
fn gateway(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 1])
        }
        v6 @ IpAddr::V6(_) => v6,
    }
}

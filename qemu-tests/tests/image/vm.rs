//! A twin's VM runs, is walled in, and outlives the daemons around it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::api::Api;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Node, scene};
use serde_json::Value;
use zos_types::machine::Service;
use zos_types::status::State;

/// The sample that the README shows.
pub(crate) const HELLO: &str = include_str!("../../../docs/examples/hello.toml");
/// The port on which the guest of `builtin:hello` answers.
const PORT: u16 = 8080;
/// Daemons in the order of their start.
pub(crate) const DAEMONS: [&str; 8] =
    ["storaged", "identityd", "netd", "capacityd", "vmd", "provisiond", "apid", "consoled"];

/// Waits until the VM `hello` of a deployment runs and has an address.
pub(crate) fn running(api: &Api, deployment: &str) -> Result<IpAddr> {
    let status = api.wait_workload((deployment, "hello"), SOON, |workload| {
        workload.state == State::Running && workload.address.is_some()
    })?;
    status.address.context("the VM has an address")
}

/// Where a VM's guest answers, once it does.
pub(crate) fn guest(node: &mut Machine, address: IpAddr) -> Result<SocketAddr> {
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
        let file = qemu_tests::image::project().join("docs/examples/hello.toml");
        let file = file.display().to_string();
        alice.run_zos(&node, &["apply", "-f", &file, "--wait"])?;
        bob.run_zos(&node, &["apply", "-f", &file, "--wait"])?;
        let (of_alice, of_bob) = (alice.api(&node)?, bob.api(&node)?);
        let (a, b) = (running(&of_alice, "hello")?, running(&of_bob, "hello")?);
        ensure!(a != b, "two VMs have one address: {a}");

        // The guest booted to its user space, and says so through the API.
        of_alice.wait_log(("hello", "hello"), &a.to_string(), SOON)?;

        let (a, b) = (guest(&mut node, a)?, guest(&mut node, b)?);
        walled_in(node.probe()?, a, b)?;
        let traffic = Traffic::begin(node.probe()?, a)?;
        daemons_killed(&mut node)?;
        told_to_stop(&mut node)?;
        traffic.end(node.probe()?)?;
        for api in [&of_alice, &of_bob] {
            let status = api.wait_workload(("hello", "hello"), SOON, |workload| {
                workload.state == State::Running
            })?;
            ensure!(status.restarts == 0, "a VM was started again: {status:?}");
        }
        ensure!(node.probe()?.connects(a)?, "the VM's port is closed after the daemons' restarts");
        node.power_off()
    });
}

/// What the node reaches, and a VM does not: another twin's VM, the node, the farmer's LAN.
fn walled_in(probe: &mut Probe, alice: SocketAddr, bob: SocketAddr) -> Result<()> {
    let report: Value = serde_json::from_str(&probe.get(bob, "/")?).context("read the guest")?;
    let gateway = report["gateway"].as_str();
    let gateway = gateway.with_context(|| format!("the guest tells no gateway: {report}"))?;
    // QEMU's user network leads to this computer as 10.0.2.2: somebody on the farmer's LAN.
    let lan = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on the LAN")?;
    let lan = format!("10.0.2.2:{}", lan.local_addr()?.port());
    let node = [format!("{gateway}:8443"), "10.0.2.15:8443".to_owned()];
    for walled in [&alice.to_string(), &node[0], &node[1], &lan] {
        ensure!(probe.connects(walled.parse()?)?, "{walled} does not even answer the node");
        ensure!(!reaches(probe, bob, walled)?, "a VM reaches {walled}");
    }
    // It can try at all: it reaches itself.
    ensure!(reaches(probe, bob, &bob.to_string())?, "the guest can't even reach itself");
    Ok(())
}

/// Whether the guest of a VM reaches an address.
fn reaches(probe: &mut Probe, guest: SocketAddr, to: &str) -> Result<bool> {
    let answer = probe.get(guest, &format!("/reach?to={to}"))?;
    let answer: Value = serde_json::from_str(&answer).context("read the guest's answer")?;
    let result = answer["result"].as_str();
    Ok(result.with_context(|| format!("the guest tells no result: {answer}"))? == "connected")
}

/// Each daemon killed once: it comes again, and the VMs are the same processes.
fn daemons_killed(node: &mut Machine) -> Result<()> {
    let before = vmms(node)?;
    ensure!(before.len() == 2, "two VMs run in {} processes", before.len());
    for daemon in DAEMONS {
        let killed = node.probe()?.kill(daemon)?;
        ensure!(killed == 1, "{killed} processes are {daemon}");
        node.wait_node(&format!("{daemon} running again"), SOON, |found| {
            let again = |s: &Service| s.name == daemon && s.state == "running" && s.restarts > 0;
            found.services.iter().any(again)
        })?;
        ensure!(vmms(node)? == before, "killing {daemon} touched a VM");
    }
    Ok(())
}

/// SIGTERM, as PID 1 sends it: vmd ends in order, and no VM with it.
fn told_to_stop(node: &mut Machine) -> Result<()> {
    let before = vmms(node)?;
    let restarts = |node: &zos_types::machine::Node| {
        node.services.iter().find(|s| s.name == "vmd").map_or(0, |s| s.restarts)
    };
    let found = restarts(&node.api().node()?);
    ensure!(node.probe()?.signal("vmd", "TERM")? == 1, "there is no vmd");
    node.wait_node("vmd running again", SOON, |node| restarts(node) > found)?;
    ensure!(vmms(node)? == before, "SIGTERM to vmd touched a VM");
    Ok(())
}

/// Datagrams to a VM and numbers on its disk, while something happens around it.
pub(crate) struct Traffic {
    guest: SocketAddr,
    before: u64,
}

impl Traffic {
    /// Begins, and waits until both flow.
    pub(crate) fn begin(probe: &mut Probe, guest: SocketAddr) -> Result<Self> {
        let writes = probe.get(guest, "/write?seconds=600")?;
        let writes: Value = serde_json::from_str(&writes).context("read the writer's answer")?;
        let before = writes["acknowledged"].as_u64().context("the writer tells no number")?;
        probe.udp_start(guest, 50)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        Ok(Self { guest, before })
    }

    /// Ends: no datagram was lost and no write failed; the last number that the guest holds for durable.
    pub(crate) fn end(self, probe: &mut Probe) -> Result<u64> {
        let datagrams = probe.udp_stop()?;
        let writes = Self::writes(probe, self.guest)?;
        println!("datagrams {datagrams}, writes {writes}");
        ensure!(datagrams["lost"] == 0, "datagrams were lost: {datagrams}");
        ensure!(datagrams["sent"].as_u64() > Some(20), "hardly a datagram was sent: {datagrams}");
        ensure!(writes["failed"] == 0, "writes of the guest failed: {writes}");
        let last = writes["acknowledged"].as_u64().context("the writer tells no number")?;
        ensure!(last > self.before + 10, "the guest hardly wrote: {writes}");
        Ok(last)
    }

    /// What the guest says of its numbers.
    pub(crate) fn writes(probe: &mut Probe, guest: SocketAddr) -> Result<Value> {
        let report: Value = serde_json::from_str(&probe.get(guest, "/")?)?;
        ensure!(report["writes"].is_object(), "the guest writes no numbers: {report}");
        Ok(report["writes"].clone())
    }
}

/// The processes that run VMs.
pub(crate) fn vmms(node: &mut Machine) -> Result<Vec<i64>> {
    let all = node.probe()?.processes()?;
    let ours = all.iter().filter(|process| process["name"] == "zos-vmm");
    Ok(ours.filter_map(|process| process["pid"].as_i64()).collect())
}

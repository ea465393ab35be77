//! A share: several VMs have one folder, it outlives them and the node's runs, and the node's tree never shows it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::api::Api;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{GIB, Node, scene};
use serde_json::{Value, json};
use zos_types::status::{State, WorkloadStatus};

use crate::vm::guest;

/// The example that the documents show.
const SHARES: &str = include_str!("../../../docs/examples/shares.toml");

#[test]
fn vms_share_a_folder_that_outlives_them_and_that_the_node_never_shows() {
    scene("shares", |scene| {
        let twin = scene.twin("twin")?;
        let plan = Node::with_disks([scene.disk("key", 8 * GIB)?]).with_probe();
        let mut node = scene.start(&plan)?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        api.put("web", SHARES)?;
        let ready = |workload: &WorkloadStatus| workload.state == State::Ready;
        api.wait_workload(("web", "files"), SOON, ready)?;

        // Both have it, and each sees what the other writes.
        let (one, two) = (serves(&api, &mut node, "one")?, serves(&api, &mut node, "two")?);
        let (first, second) = (share(&mut node, one)?, share(&mut node, two)?);
        ensure!(first["tag"] == "files" && second["tag"] == "theirs", "{first} {second}");
        starts(&mut node, one, 2)?;
        starts(&mut node, two, 2)?;
        // Each has a server of its own, with a user of its own.
        let servers = servers(&mut node)?;
        ensure!(servers.len() == 2, "two servers run, not {servers:?}");
        let mut users = Vec::new();
        for pid in &servers {
            users.push(user(&mut node, *pid)?);
        }
        users.sort_unstable();
        ensure!(users == [100_000, 100_008], "servers run as {users:?}");
        unseen(&mut node)?;

        // A server dies: its VM comes again, with what was there; the other one notices nothing.
        let unit = format!("virtiofsd/{}/web.one.files", twin.id());
        let kill = json!({"unit": unit, "signal": "KILL"});
        node.probe()?.varlink("init", "org.zos.Init.KillUnit", kill)?;
        api.wait_workload(("web", "one"), SOON, |w| w.restarts == 1 && w.state == State::Running)?;
        let one = serves(&api, &mut node, "one")?;
        starts(&mut node, one, 3)?;
        starts(&mut node, two, 3)?;
        let other = api.wait_workload(("web", "two"), SOON, |_| true)?;
        ensure!(other.restarts == 0, "a VM was started again whose server lives: {other:?}");
        // A killed vmd or storaged touches neither.
        let before = self::servers(&mut node)?;
        for daemon in ["vmd", "storaged"] {
            node.probe()?.kill(daemon)?;
            node.wait_node(&format!("{daemon} running again"), SOON, |found| {
                let again = |s: &zos_types::machine::Service| {
                    s.name == daemon && s.state == "running" && s.restarts > 0
                };
                found.services.iter().any(again)
            })?;
        }
        api.wait_workload(("web", "one"), SOON, |w| w.restarts == 1 && w.state == State::Running)?;
        ensure!(self::servers(&mut node)? == before, "killing daemons touched a server");

        // The other VM goes, the share is still this one's.
        let (head, rest) = SHARES.split_once("[workloads.two]").context("there are two")?;
        let (_, files) = rest.split_once("[workloads.files]").context("there is a share")?;
        let alone = format!("{head}[workloads.files]{files}").replace("version = 1", "version = 2");
        let size = share(&mut node, one)?["size"].as_u64().context("the share has no size")?;
        ensure!(size <= GIB, "the share of 1 GiB has {size} bytes");
        api.put("web", &alone)?;
        gone(&mut node, 1)?;
        // It grows while it is used.
        let alone = alone.replace("version = 2", "version = 3").replace("\"1GiB\"", "\"2GiB\"");
        api.put("web", &alone)?;
        let end = Instant::now() + SOON;
        while share(&mut node, one)?["size"].as_u64() <= Some(size) {
            ensure!(Instant::now() < end, "the share doesn't grow");
            std::thread::sleep(Duration::from_millis(200));
        }
        starts(&mut node, one, 3)?;
        node.power_off()?;
        drop(node);

        // The node boots again: all of it is there.
        let mut node = scene.start(&plan)?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        let one = serves(&api, &mut node, "one")?;
        starts(&mut node, one, 4)?;
        unseen(&mut node)?;

        // Taken away, it is gone, and another of its name is empty.
        api.delete("web")?;
        gone(&mut node, 0)?;
        api.put("web", &alone.replace("version = 3", "version = 4"))?;
        let one = serves(&api, &mut node, "one")?;
        starts(&mut node, one, 1)?;
        node.power_off()
    });
}

/// Where a VM's guest answers.
fn serves(api: &Api, node: &mut Machine, vm: &str) -> Result<SocketAddr> {
    let status = api.wait_workload(("web", vm), SOON, |workload| {
        workload.state == State::Running && workload.address.is_some()
    })?;
    guest(node, status.address.context("the VM has no address")?)
}

/// What a guest says of its share.
fn share(node: &mut Machine, guest: SocketAddr) -> Result<Value> {
    let report: Value = serde_json::from_str(&node.probe()?.get(guest, "/")?)?;
    let shares = report["shares"].as_array().context("the guest tells no shares")?;
    ensure!(shares.len() == 1, "one share, not {shares:?}");
    Ok(shares[0].clone())
}

/// Waits until a guest reads so many starts in its share: names are remembered for a second.
fn starts(node: &mut Machine, guest: SocketAddr, count: u64) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let share = share(node, guest)?;
        ensure!(share["error"].is_null(), "the share fails: {share}");
        if share["starts"] == count {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{count} starts, not {share}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The servers' processes.
fn servers(node: &mut Machine) -> Result<Vec<i64>> {
    let all = node.probe()?.processes()?;
    let ours = all.iter().filter(|process| process["name"] == "zos-virtiofsd");
    let mut pids: Vec<i64> = ours.filter_map(|process| process["pid"].as_i64()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Waits until so many servers are left.
fn gone(node: &mut Machine, left: usize) -> Result<()> {
    let end = Instant::now() + SOON;
    while servers(node)?.len() != left {
        ensure!(Instant::now() < end, "servers are left: {:?}, not {left}", servers(node)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn user(node: &mut Machine, pid: i64) -> Result<u32> {
    let status = node.probe()?.read(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("no user")?;
    let first = line.split_whitespace().next().context("no user")?;
    first.parse().context("a user is a number")
}

/// No process of the node sees the file system of a share: not the daemons, not PID 1, not the servers themselves.
fn unseen(node: &mut Machine) -> Result<()> {
    let mut looked = 0;
    for process in node.probe()?.processes()? {
        let (Some(pid), name) = (process["pid"].as_i64(), process["name"].clone()) else {
            continue;
        };
        let Ok(mounts) = node.probe()?.read(&format!("/proc/{pid}/mountinfo")) else { continue };
        looked += usize::from(!mounts.is_empty());
        for line in mounts.lines() {
            ensure!(!line.contains("/dev/dm-"), "{name} sees a mount of a share: {line}");
        }
    }
    ensure!(looked > 10, "only {looked} processes could be looked at");
    Ok(())
}

//! What a recorded node is asked to do.
//!
//! ```text
//!  adoption, key ─▶ volumes made, grown, kept, set back, copied, destroyed ┐ at once ─▶ a VM writes and syncs ─▶ off
//!                   deployments come, change and go                        ┘
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use zos_types::status::State;
use zos_types::{Name, TwinId, WorkloadName};

use super::facts::About;
use super::recording::{Disk, Recorder, Recording};
use crate::api::Api;
use crate::machine::SOON;
use crate::probe::Probe;
use crate::{GIB, MIB, Machine, Node, Scene};

/// The class of a virtio disk.
const CLASS: &str = "hdd";
/// The port on which the guest of `builtin:hello` answers.
const PORT: u16 = 8080;

/// Records a run of a node with so many disks.
pub fn record(scene: &mut Scene, disks: usize) -> Result<Recording> {
    let mut recorded = Vec::new();
    let mut attached = Vec::new();
    for number in 0..disks {
        let (id, size) = (format!("disk-{number}"), 4 * GIB);
        let log = scene.dir().join(format!("{id}.log"));
        attached.push(scene.disk(&id, size)?.recorded(log.clone())?);
        recorded.push(Disk { log, size });
    }
    let twin = scene.twin("twin")?;
    let direct = scene.twin("direct")?.id();
    let recorder = Recorder::begin(recorded)?;
    let node_asked = recorder.ask(About::Node, None)?;
    let mut node = scene.start(&Node::with_disks(attached).with_probe())?;
    let found = node.wait_ready()?;
    ensure!(!found.ephemeral, "the node's key is on no disk: {:?}", found.faults);
    recorder.done_as(&node_asked, Some(found.id.to_string()))?;

    let api = twin.api(&node)?;
    std::thread::scope(|threads| -> Result<()> {
        let churn = threads.spawn(|| deployments(&recorder, &api, twin.id()));
        volumes(&recorder, node.probe()?, direct, disks)?;
        churn.join().ok().context("the twin's thread panicked")?
    })?;
    guest(&recorder, &mut node, &api, twin.id())?;

    let off = recorder.ask(About::End, Some("poweroff".into()))?;
    node.power_off()?;
    recorder.done(&off)?;
    recorder.end()
}

/// storaged, by its own calls.
struct Storage<'a> {
    recorder: &'a Recorder,
    probe: &'a mut Probe,
    twin: TwinId,
}

impl Storage<'_> {
    /// Has a thing become so, by a call with these parameters beside twin and name.
    fn call(
        &mut self,
        about: About,
        is: Option<u64>,
        method: &str,
        name: &WorkloadName,
        more: Value,
    ) -> Result<()> {
        let mut parameters = json!({"twin": self.twin, "name": name});
        if let (Some(all), Value::Object(more)) = (parameters.as_object_mut(), more) {
            all.extend(more);
        }
        let asked = self.recorder.ask(about, is.map(|is| is.to_string()))?;
        self.probe.varlink("storage", &format!("org.zos.Storage.{method}"), parameters)?;
        self.recorder.done(&asked)
    }

    fn create(
        &mut self,
        name: &WorkloadName,
        size: u64,
        integrity: &str,
        from: Option<&str>,
    ) -> Result<()> {
        let about = About::Volume(self.twin, name.clone());
        let wanted = json!({"size": size, "class": CLASS, "integrity": integrity, "key": "node",
            "holds": "disk", "from": from});
        self.call(about, Some(size), "CreateVolume", name, wanted)
    }

    fn delete(&mut self, name: &WorkloadName) -> Result<()> {
        let about = About::Volume(self.twin, name.clone());
        self.call(about, None, "DeleteVolume", name, json!({}))
    }
}

/// Volumes of each kind: made, grown, kept, set back, copied, destroyed.
fn volumes(recorder: &Recorder, probe: &mut Probe, twin: TwinId, disks: usize) -> Result<()> {
    let mut storage = Storage { recorder, probe, twin };
    for round in 0..4 {
        let name: WorkloadName = format!("direct/v{round}").parse()?;
        let size = (4 << round) * MIB;
        let integrity = match round % 3 {
            0 => "none",
            1 => "detect",
            // Its two legs lie on two disks.
            _ if disks > 1 => "repair",
            _ => "none",
        };
        storage.create(&name, size, integrity, None)?;
        let grown = size + 4 * MIB;
        let about = About::Volume(twin, name.clone());
        storage.call(about, Some(grown), "GrowVolume", &name, json!({"size": grown}))?;
        let snapshot =
            |of: &str| -> Result<About> { Ok(About::Snapshot(twin, name.clone(), of.parse()?)) };
        for of in ["one", "two"] {
            storage.call(
                snapshot(of)?,
                Some(grown),
                "TakeSnapshot",
                &name,
                json!({"snapshot": of}),
            )?;
        }
        let same = About::Volume(twin, name.clone());
        storage.call(same, Some(grown), "RestoreSnapshot", &name, json!({"snapshot": "one"}))?;
        storage.call(
            snapshot("one")?,
            None,
            "DeleteSnapshot",
            &name,
            json!({"snapshot": "one"}),
        )?;
        let copy: WorkloadName = format!("direct/c{round}").parse()?;
        storage.create(&copy, grown, integrity, Some(&format!("{name}@two")))?;
        if round % 2 == 1 {
            let with_it = recorder.ask(snapshot("two")?, None)?;
            storage.delete(&name)?;
            recorder.done(&with_it)?;
            storage.delete(&copy)?;
        }
    }
    Ok(())
}

fn text(version: u64, volumes: &[&str]) -> String {
    let volume = |name: &&str| {
        format!("[workloads.{name}]\ntype = \"volume\"\nsize = \"16MiB\"\nclass = \"{CLASS}\"\n")
    };
    format!("version = {version}\n{}", volumes.iter().map(volume).collect::<String>())
}

/// Deployments that are put, changed and deleted.
fn deployments(recorder: &Recorder, api: &Api, twin: TwinId) -> Result<()> {
    for round in 0..4 {
        let name = format!("plain-{round}");
        let about = About::Deployment(twin, name.parse()?);
        let put = |version: u64, volumes: &[&str]| -> Result<()> {
            let asked = recorder.ask(about.clone(), Some(version.to_string()))?;
            api.put(&name, &text(version, volumes))?;
            recorder.done(&asked)
        };
        let first =
            recorder.ask(About::Volume(twin, of(&name, "a")?), Some((16 * MIB).to_string()))?;
        put(1, &["a"])?;
        api.wait_workload((&name, "a"), SOON, |w| w.state == State::Ready)?;
        recorder.done(&first)?;
        let second =
            recorder.ask(About::Volume(twin, of(&name, "b")?), Some((16 * MIB).to_string()))?;
        put(2, &["a", "b"])?;
        api.wait_workload((&name, "b"), SOON, |w| w.state == State::Ready)?;
        recorder.done(&second)?;
        if round % 2 == 1 {
            let volumes = ["a", "b"].map(|volume| Ok(About::Volume(twin, of(&name, volume)?)));
            let volumes = volumes.into_iter().collect::<Result<Vec<_>>>()?;
            // What is acknowledged is the deployment's end; its volumes go after it.
            for about in volumes {
                recorder.ask(about, None)?;
            }
            let asked = recorder.ask(about.clone(), None)?;
            api.delete(&name)?;
            recorder.done(&asked)?;
            wait_gone(api, &name)?;
        }
    }
    Ok(())
}

fn of(deployment: &str, workload: &str) -> Result<WorkloadName> {
    Ok(WorkloadName { deployment: deployment.parse()?, workload: workload.parse::<Name>()? })
}

/// Waits until nothing of a deployment is left.
fn wait_gone(api: &Api, name: &str) -> Result<()> {
    let end = Instant::now() + SOON;
    while api.list()?.iter().any(|deployment| deployment.name.to_string() == name) {
        ensure!(Instant::now() < end, "{name} is still there");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A VM that writes numbers on its volume, and syncs each.
fn guest(recorder: &Recorder, node: &mut Machine, api: &Api, twin: TwinId) -> Result<()> {
    const HELLO: &str = include_str!("../../../docs/examples/hello.toml");
    let hello = HELLO.replace("\"ssd\"", &format!("\"{CLASS}\""));
    let volume = of("hello", "data")?;
    let deployment = About::Deployment(twin, "hello".parse()?);
    let made = recorder.ask(About::Volume(twin, volume.clone()), Some(GIB.to_string()))?;
    let asked = recorder.ask(deployment.clone(), Some("1".into()))?;
    api.put("hello", &hello)?;
    recorder.done(&asked)?;
    let status = api.wait_workload(("hello", "hello"), SOON, |workload| {
        workload.state == State::Running && workload.address.is_some()
    })?;
    recorder.done(&made)?;
    let guest = answers(node, status.address.context("the VM has an address")?)?;
    let probe = node.probe()?;
    probe.get(guest, "/write?seconds=600")?;
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        let number = recorder.ask(About::Number(twin, volume.clone()), None)?;
        let report: Value = serde_json::from_str(&probe.get(guest, "/")?)?;
        let written = report["writes"]["acknowledged"].as_u64().context("the guest writes")?;
        recorder.done_as(&number, Some(written.to_string()))?;
    }
    Ok(())
}

/// Where a VM's guest answers, once it does.
fn answers(node: &mut Machine, address: IpAddr) -> Result<SocketAddr> {
    let guest = SocketAddr::new(address, PORT);
    let end = Instant::now() + SOON;
    while !node.probe()?.connects(guest)? {
        ensure!(Instant::now() < end, "{guest} does not answer from the node's side");
    }
    Ok(guest)
}

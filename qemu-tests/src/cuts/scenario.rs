//! What a recorded node is asked to do; with two disks: [`two`].
//!
//! ```text
//!  adoption, key ─▶ volumes made, grown, kept, set back, copied, destroyed ┐ at once ─▶ a VM writes and syncs ─▶ off
//!                   deployments come, change and go                        ┘
//! ```

mod two;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use zos_types::status::State;
use zos_types::{Name, TwinId, WorkloadName};

use super::facts::About;
use super::recording::{Asked, Disk, Recorder, Recording};
use crate::api::Api;
use crate::machine::SOON;
use crate::probe::Probe;
use crate::{GIB, MIB, Machine, Node, Scene};

/// The class of a virtio disk.
const CLASS: &str = "hdd";
/// The port on which the guest of `builtin:hello` answers.
const PORT: u16 = 8080;

/// Records a run of a node with so many disks: one or two.
pub fn record(scene: &mut Scene, disks: usize) -> Result<Recording> {
    ensure!((1..=2).contains(&disks), "there is no scenario with {disks} disks");
    let mut run = Run::begin(scene, disks)?;
    match disks {
        1 => go(&mut run)?,
        _ => two::go(&mut run)?,
    }
    run.end()
}

/// A recorded node, from its first boot on.
struct Run {
    recorder: Recorder,
    node: Machine,
    api: Api,
    twin: TwinId,
    direct: TwinId,
}

impl Run {
    /// Only the first disk is there at the begin.
    fn begin(scene: &mut Scene, disks: usize) -> Result<Self> {
        let mut recorded = Vec::new();
        let mut attached = Vec::new();
        for number in 0..disks {
            let (id, size) = (format!("disk-{number}"), 4 * GIB);
            let log = scene.dir().join(format!("{id}.log"));
            let disk = scene.disk(&id, size)?.recorded(log.clone())?;
            attached.push(if number == 0 { disk } else { disk.unplugged() });
            recorded.push(Disk { log, size });
        }
        let twin = scene.twin("twin")?;
        let direct = scene.twin("direct")?.id();
        let recorder = Recorder::begin(recorded)?;
        let node_asked = recorder.ask(About::Node, None)?;
        let copy = recorder.ask(About::Copies, Some("0".into()))?;
        let mut node = scene.start(&Node::with_disks(attached).with_probe())?;
        let found = node.wait_ready()?;
        ensure!(!found.ephemeral, "the node's key is on no disk: {:?}", found.faults);
        recorder.done_as(&node_asked, Some(found.id.to_string()))?;
        recorder.done(&copy)?;
        let api = twin.api(&node)?;
        Ok(Self { recorder, node, api, twin: twin.id(), direct })
    }

    fn end(mut self) -> Result<Recording> {
        let off = self.recorder.ask(About::End, Some("poweroff".into()))?;
        self.node.power_off()?;
        self.recorder.done(&off)?;
        self.recorder.end()
    }
}

/// One disk.
fn go(run: &mut Run) -> Result<()> {
    let Run { recorder, node, api, twin, direct } = run;
    std::thread::scope(|threads| -> Result<()> {
        let churn = threads.spawn(|| deployments(recorder, api, *twin, 4));
        let mut storage = Storage { recorder, probe: node.probe()?, twin: *direct };
        for (round, integrity) in ["none", "detect", "none", "none"].into_iter().enumerate() {
            volume(&mut storage, round, integrity)?;
        }
        churn.join().ok().context("the twin's thread panicked")?
    })?;
    let guest = guest(recorder, node, api, *twin, "none")?;
    numbers(recorder, node, guest, *twin, 8)
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
        let legs = self.legs(name, integrity, Some("0+1"))?;
        self.call(about, Some(size), "CreateVolume", name, wanted)?;
        legs.iter().try_for_each(|legs| self.recorder.done(legs))
    }

    fn delete(&mut self, name: &WorkloadName, integrity: &str) -> Result<()> {
        let about = About::Volume(self.twin, name.clone());
        let legs = self.legs(name, integrity, None)?;
        self.call(about, None, "DeleteVolume", name, json!({}))?;
        legs.iter().try_for_each(|legs| self.recorder.done(legs))
    }

    /// A volume with two copies has them from now on, or not any more.
    fn legs(
        &self,
        name: &WorkloadName,
        integrity: &str,
        is: Option<&str>,
    ) -> Result<Option<Asked>> {
        let about = About::Legs(self.twin, name.clone());
        let asked = || {
            // Made or destroyed by half it lies on one.
            for half in ["0", "1"] {
                self.recorder.ask(about.clone(), Some(half.to_owned()))?;
            }
            self.recorder.ask(about.clone(), is.map(str::to_owned))
        };
        (integrity == "repair").then(asked).transpose()
    }
}

/// A volume that is made, grown, kept, set back, copied; each second one is destroyed.
fn volume(storage: &mut Storage<'_>, round: usize, integrity: &str) -> Result<()> {
    let name: WorkloadName = format!("direct/v{round}").parse()?;
    let (twin, size) = (storage.twin, (4 << round) * MIB);
    storage.create(&name, size, integrity, None)?;
    let grown = size + 4 * MIB;
    let about = About::Volume(twin, name.clone());
    storage.call(about, Some(grown), "GrowVolume", &name, json!({"size": grown}))?;
    let snapshot =
        |of: &str| -> Result<About> { Ok(About::Snapshot(twin, name.clone(), of.parse()?)) };
    for of in ["one", "two"] {
        storage.call(snapshot(of)?, Some(grown), "TakeSnapshot", &name, json!({"snapshot": of}))?;
    }
    let same = About::Volume(twin, name.clone());
    storage.call(same, Some(grown), "RestoreSnapshot", &name, json!({"snapshot": "one"}))?;
    storage.call(snapshot("one")?, None, "DeleteSnapshot", &name, json!({"snapshot": "one"}))?;
    let copy: WorkloadName = format!("direct/c{round}").parse()?;
    storage.create(&copy, grown, integrity, Some(&format!("{name}@two")))?;
    if round % 2 == 1 {
        let with_it = storage.recorder.ask(snapshot("two")?, None)?;
        storage.delete(&name, integrity)?;
        storage.recorder.done(&with_it)?;
        storage.delete(&copy, integrity)?;
    }
    Ok(())
}

fn text(version: u64, volumes: &[&str]) -> String {
    let volume = |name: &&str| {
        format!("[workloads.{name}]\ntype = \"volume\"\nsize = \"16MiB\"\nclass = \"{CLASS}\"\n")
    };
    format!("version = {version}\n{}", volumes.iter().map(volume).collect::<String>())
}

/// Puts a version of a deployment, the last of whose volumes is new, and waits for that.
fn put(recorder: &Recorder, api: &Api, twin: TwinId, name: &str, volumes: &[&str]) -> Result<()> {
    let new = volumes.last().context("a deployment has volumes")?;
    let volume = About::Volume(twin, of(name, new)?);
    let made = recorder.ask(volume, Some((16 * MIB).to_string()))?;
    let version = volumes.len() as u64;
    let asked = recorder.ask(About::Deployment(twin, name.parse()?), Some(version.to_string()))?;
    api.put(name, &text(version, volumes))?;
    recorder.done(&asked)?;
    api.wait_workload((name, new), SOON, |w| w.state == State::Ready)?;
    recorder.done(&made)
}

/// Deployments that are put, changed and deleted.
fn deployments(recorder: &Recorder, api: &Api, twin: TwinId, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        let name = format!("plain-{round}");
        put(recorder, api, twin, &name, &["a"])?;
        put(recorder, api, twin, &name, &["a", "b"])?;
        if round % 2 == 1 {
            let volumes = ["a", "b"].map(|volume| Ok(About::Volume(twin, of(&name, volume)?)));
            let volumes = volumes.into_iter().collect::<Result<Vec<_>>>()?;
            // What is acknowledged is the deployment's end; its volumes go after it.
            for about in volumes {
                recorder.ask(about, None)?;
            }
            let asked = recorder.ask(About::Deployment(twin, name.parse()?), None)?;
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

/// A VM that writes numbers on its volume, and syncs each; where its guest answers.
fn guest(
    recorder: &Recorder,
    node: &mut Machine,
    api: &Api,
    twin: TwinId,
    integrity: &str,
) -> Result<SocketAddr> {
    const HELLO: &str = include_str!("../../../docs/examples/hello.toml");
    let hello = HELLO.replace("\"ssd\"", &format!("\"{CLASS}\""));
    let hello = hello
        .replace("integrity = \"none\"", &format!("integrity = \"{integrity}\""))
        .replace("1GiB", "32MiB");
    let volume = of("hello", "data")?;
    let deployment = About::Deployment(twin, "hello".parse()?);
    let made = recorder.ask(About::Volume(twin, volume.clone()), Some((32 * MIB).to_string()))?;
    let legs = match integrity {
        "repair" => {
            for half in ["0", "1"] {
                recorder.ask(About::Legs(twin, volume.clone()), Some(half.into()))?;
            }
            Some(recorder.ask(About::Legs(twin, volume), Some("0+1".into()))?)
        }
        _ => None,
    };
    let asked = recorder.ask(deployment.clone(), Some("1".into()))?;
    api.put("hello", &hello)?;
    recorder.done(&asked)?;
    let status = api.wait_workload(("hello", "hello"), SOON, |workload| {
        workload.state == State::Running && workload.address.is_some()
    })?;
    recorder.done(&made)?;
    legs.iter().try_for_each(|legs| recorder.done(legs))?;
    let guest = answers(node, status.address.context("the VM has an address")?)?;
    node.probe()?.get(guest, "/write?seconds=600")?;
    Ok(guest)
}

/// What the guest has written and synced, so many times.
fn numbers(
    recorder: &Recorder,
    node: &mut Machine,
    guest: SocketAddr,
    twin: TwinId,
    times: usize,
) -> Result<()> {
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(500));
        let number = recorder.ask(About::Number(twin, of("hello", "data")?), None)?;
        let report: Value = serde_json::from_str(&node.probe()?.get(guest, "/")?)?;
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

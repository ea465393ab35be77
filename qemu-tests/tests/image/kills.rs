//! QEMU killed at any moment, and a full boot after each: what was acknowledged is there, and the node is the same.
//!
//! ```text
//!  boot ─▶ all as acknowledged? ─▶ deployments come and go, a guest counts its starts ─▶ SIGKILL ─▶ boot ...
//!    └── sometimes SIGKILL before it is up
//! ```
//! What this computer has cached outlives QEMU, so a missing flush is not found here but by `powercut`; this is the whole
//! boot after a cut: PID 1, every daemon, the VM. `ZOS_KILLS_SEED=N` plays the same moments again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::api::Api;
use qemu_tests::cuts::chance::Chance;
use qemu_tests::machine::SOON;
use qemu_tests::{Disk, GIB, Node, Scene, scene};
use zos_types::NodeId;
use zos_types::status::State;

use crate::vm::HELLO;

/// The longest life of a node that is up, in milliseconds.
const LIFE: u64 = 6000;
/// The longest life of one that isn't.
const BOOTING: u64 = 15_000;

#[test]
fn four_hard_kills_lose_nothing() {
    scene("kills", |scene| kills(scene, 4));
}

#[test]
#[ignore = "a quarter of an hour: make test-all"]
fn thirty_hard_kills_lose_nothing() {
    scene("kills-30", |scene| kills(scene, 30));
}

fn seed() -> Result<u64> {
    if let Ok(given) = std::env::var("ZOS_KILLS_SEED") {
        return given.parse().context("ZOS_KILLS_SEED is a number");
    }
    Ok(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()))
}

fn kills(scene: &mut Scene, count: usize) -> Result<()> {
    let seed = seed()?;
    println!("ZOS_KILLS_SEED={seed}");
    let mut chance = Chance::new(seed);
    let disk = scene.disk("key", 8 * GIB)?;
    let mut known = Known::default();
    for kill in 0..count {
        let early = kill > 0 && chance.once_in(4);
        let life = Duration::from_millis(chance.below(if early { BOOTING } else { LIFE }));
        once(scene, &disk, &mut known, (early, life), &mut chance)
            .with_context(|| format!("ZOS_KILLS_SEED={seed}, kill {kill} after {life:?}"))?;
    }
    let mut node = scene.start(&Node::with_disks([disk]))?;
    known.check(&node.wait_ready()?.id, &scene.twin("twin")?.api(&node)?)?;
    node.power_off()
}

/// One life, from boot to kill.
fn once(
    scene: &mut Scene,
    disk: &Disk,
    known: &mut Known,
    (early, life): (bool, Duration),
    chance: &mut Chance,
) -> Result<()> {
    let twin = scene.twin("twin")?;
    let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
    if early {
        std::thread::sleep(life);
        return node.cut_power();
    }
    let found = node.wait_ready()?;
    ensure!(!found.ephemeral, "the node's key is on no disk: {:?}", found.faults);
    let api = twin.api(&node)?;
    known.check(&found.id, &api)?;
    std::thread::scope(|threads| {
        let churn = threads.spawn(|| known.churn(&api, chance));
        std::thread::sleep(life);
        node.cut_power()?;
        churn.join().ok().context("the twin's thread panicked")?
    })
}

/// What a twin knows of its node.
#[derive(Default)]
struct Known {
    node: Option<NodeId>,
    /// Acknowledged deployments, by name: their version.
    there: BTreeMap<String, u64>,
    /// The highest version that was ever acknowledged, also of those that were deleted.
    highest: BTreeMap<String, u64>,
    /// Asked for and not answered: the version, or none for a deletion.
    asked: Option<(String, Option<u64>)>,
    /// How often the guest had started when it was last asked.
    boots: u64,
}

impl Known {
    /// The node is the same, and has exactly what it acknowledged; what was asked for last it may have or not.
    fn check(&mut self, node: &NodeId, api: &Api) -> Result<()> {
        ensure!(*self.node.get_or_insert(*node) == *node, "the node is another one: {node}");
        let found: BTreeMap<String, u64> =
            api.list()?.iter().map(|d| (d.name.to_string(), d.deployment.version)).collect();
        let mut wanted = self.there.clone();
        if let Some((name, version)) = self.asked.take() {
            let was = wanted.get(&name).copied();
            let is = found.get(&name).copied();
            // One that was deleted may be listed until its volumes are gone.
            ensure!(
                is == was || is == version,
                "{name} was {was:?}, asked for {version:?}, is {is:?}"
            );
            match is {
                Some(is) => drop(wanted.insert(name.clone(), is)),
                None => drop(wanted.remove(&name)),
            }
            if let Some(is) = is {
                self.highest.insert(name, is);
            }
        }
        let lost: Vec<_> = wanted.iter().filter(|(name, v)| found.get(*name) != Some(v)).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}, found {found:?}");
        let extra: Vec<_> = found.keys().filter(|name| !wanted.contains_key(*name)).collect();
        for name in extra {
            ensure!(self.highest.contains_key(name), "{name} was never asked for");
        }
        self.there = wanted;
        for name in self.there.keys() {
            let workload = if name == "hello" { "hello" } else { "data" };
            api.wait_workload((name, workload), SOON, |w| {
                matches!(w.state, State::Ready | State::Running)
            })?;
        }
        if self.there.contains_key("hello") {
            let log = api.wait_log(("hello", "hello"), "boots: ", SOON)?;
            let last = log.rsplit("boots: ").next().unwrap_or_default();
            let digits: String = last.chars().take_while(char::is_ascii_digit).collect();
            let boots: u64 = digits.parse().context("how often the guest has started")?;
            ensure!(boots > self.boots, "the guest counted {} starts, now {boots}", self.boots);
            self.boots = boots;
        }
        Ok(())
    }

    /// Puts, changes and deletes until the node is gone.
    fn churn(&mut self, api: &Api, chance: &mut Chance) -> Result<()> {
        loop {
            let number = chance.below(6);
            let name = if self.there.contains_key("hello") {
                format!("small-{number}")
            } else {
                "hello".into()
            };
            let next = self.highest.get(&name).map_or(1, |highest| highest + 1);
            let delete = self.there.contains_key(&name) && chance.once_in(2);
            let outcome = if delete {
                self.asked = Some((name.clone(), None));
                api.delete(&name).map(drop)
            } else {
                self.asked = Some((name.clone(), Some(next)));
                api.put(&name, &text(&name, next)).map(drop)
            };
            match outcome {
                Ok(()) if delete => drop(self.there.remove(&name)),
                Ok(()) => {
                    self.there.insert(name.clone(), next);
                    self.highest.insert(name, next);
                }
                Err(error) if refused(&error) => bail!("{:?} is refused: {error:#}", self.asked),
                // The node is gone.
                Err(_) => return Ok(()),
            }
            self.asked = None;
        }
    }
}

/// Whether the node answered, and said no.
fn refused(error: &anyhow::Error) -> bool {
    let answer = error.downcast_ref::<zos_api::client::ClientError>();
    answer.is_some_and(|error| error.problem().is_some_and(|problem| problem.status < 500))
}

fn text(name: &str, version: u64) -> String {
    if name == "hello" {
        return HELLO.replacen("version = 1", &format!("version = {version}"), 1);
    }
    format!(
        "version = {version}\n[workloads.data]\ntype = \"volume\"\nsize = \"32MiB\"\nclass = \"ssd\"\n"
    )
}

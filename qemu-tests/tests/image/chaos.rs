//! Daemons killed at any moment: nothing acknowledged is lost, no VM is touched.
//!
//! ```text
//!  a VM: datagrams, durable numbers ──────────────────────────────────────────▶ the same process, 0 lost, 0 failed
//!  a twin: apply, delete, apply ..  ───▶ (each until it is acknowledged) ─────▶ exactly what was acknowledged is there
//!  50 SIGKILLs, whom and when by a seed ─▶ everything runs again ─▶ power cut ─▶ second boot: still there
//! ```
//!
//! `ZOS_CHAOS_SEED=N` plays the same kills again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::api::Api;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{GIB, Node, scene};
use zos_types::status::State;

use crate::vm::{DAEMONS, HELLO, Traffic, guest, running, vmms};

const KILLS: usize = 50;
/// The longest pause between two kills, in milliseconds.
const PAUSE: u64 = 700;
/// A deployment that is made and deleted all the time.
const SMALL: &str = r#"
version = 1
[workloads.data]
type = "volume"
size = "64MiB"
class = "ssd"
"#;
/// The same with a VM; one at a time, for the node's memory.
const GUEST: &str = r#"
[workloads.vm]
type = "vm"
cpu = 1
memory = "128MiB"
image = "builtin:hello"
disks = [{ volume = "data" }]
networks = [{ network = "nat" }]
"#;

/// Numbers by chance, the same for the same seed: splitmix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn seed() -> Result<u64> {
    if let Ok(given) = std::env::var("ZOS_CHAOS_SEED") {
        return given.parse().context("ZOS_CHAOS_SEED is a number");
    }
    Ok(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()))
}

#[test]
fn fifty_kills_while_deployments_come_and_go_lose_nothing() {
    scene("chaos", |scene| {
        let seed = seed()?;
        println!("ZOS_CHAOS_SEED={seed}");
        let disk = scene.disk("key", 8 * GIB)?;
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&Node::with_disks([disk.clone()]).with_probe())?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        api.put("hello", HELLO)?;
        let address = running(&api, "hello")?;
        let guest = guest(&mut node, address)?;
        let [vm] = vmms(&mut node)?[..] else { bail!("one VM is not one process") };
        let traffic = Traffic::begin(node.probe()?, guest)?;

        // Deployments come and go while daemons are killed.
        let over = AtomicBool::new(false);
        let of_twin = twin.api(&node)?;
        let acknowledged = std::thread::scope(|threads| -> Result<BTreeSet<String>> {
            let churn = threads.spawn(|| churn(&of_twin, &mut Chance(seed), &over));
            let killed =
                kill(&mut node, &mut Chance(!seed)).with_context(|| format!("seed {seed}"));
            over.store(true, Ordering::Relaxed);
            let acknowledged = churn.join().ok().context("the twin's thread panicked")?;
            killed?;
            acknowledged.with_context(|| format!("seed {seed}"))
        })?;

        // Everything is back, as it was acknowledged, and the VM never noticed.
        node.wait_node("all daemons running", SOON, |node| {
            DAEMONS.iter().all(|daemon| {
                node.services.iter().any(|s| s.name == *daemon && s.state == "running")
            })
        })?;
        there(&api, &acknowledged)?;
        let vms = vmms(&mut node)?;
        ensure!(vms.contains(&vm), "the VM was the process {vm}, and is one of {vms:?}");
        let hello = api.wait_workload(("hello", "hello"), SOON, |w| w.state == State::Running)?;
        ensure!(hello.restarts == 0, "the VM was started again: {hello:?}");
        let last = traffic.end(node.probe()?)?;

        // What was acknowledged outlives even a cut of the power.
        node.cut_power()?;
        let mut node = scene.start(&Node::with_disks([disk]).with_probe())?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        there(&api, &acknowledged)?;
        let address = running(&api, "hello")?;
        let guest = self::guest(&mut node, address)?;
        let found = Traffic::writes(node.probe()?, guest)?["found"].as_u64();
        ensure!(found >= Some(last), "the guest wrote {last} durably; its disk holds {found:?}");
        node.power_off()
    });
}

/// So many SIGKILLs. Each daemon comes round before one comes twice as often as another, so that none exceeds its budget of
/// crashes, which would be another promise.
fn kill(node: &mut Machine, chance: &mut Chance) -> Result<()> {
    let mut bag: Vec<&str> = Vec::new();
    let mut killed = 0;
    let end = Instant::now() + 3 * SOON;
    while killed < KILLS {
        ensure!(Instant::now() < end, "only {killed} kills found somebody to kill");
        if bag.is_empty() {
            bag.extend(DAEMONS);
        }
        std::thread::sleep(Duration::from_millis(chance.below(PAUSE)));
        let at = usize::try_from(chance.below(bag.len() as u64))?;
        // One that is just starting again has its turn later.
        if node.probe()?.kill(bag[at])? > 0 {
            println!("{:8.3} kill {}", node.started().elapsed().as_secs_f32(), bag[at]);
            bag.swap_remove(at);
            killed += 1;
        }
    }
    Ok(())
}

/// Applies and deletes until it is over; gives the deployments that the node has acknowledged, and must have.
fn churn(api: &Api, chance: &mut Chance, over: &AtomicBool) -> Result<BTreeSet<String>> {
    let mut there: BTreeSet<String> = BTreeSet::from(["hello".to_owned()]);
    let mut next = 0;
    while !over.load(Ordering::Relaxed) {
        let small: Vec<String> = there.iter().filter(|name| *name != "hello").cloned().collect();
        if small.len() > 5 || (small.len() > 1 && chance.below(3) == 0) {
            let gone = &small[usize::try_from(chance.below(small.len() as u64))?];
            until_done(&format!("delete {gone}"), || match api.delete(gone) {
                Err(error) if status(&error) == Some(404) => Ok(()),
                other => other.map(drop),
            })?;
            there.remove(gone);
        } else {
            next += 1;
            let with_guest = !small.iter().any(|name| name.starts_with("guest"));
            let name = format!("{}-{next}", if with_guest { "guest" } else { "small" });
            let text = if with_guest { [SMALL, GUEST].concat() } else { SMALL.to_owned() };
            until_done(&format!("put {name}"), || api.put(&name, &text).map(drop))?;
            there.insert(name);
        }
    }
    println!("{next} deployments were made, {} are left", there.len());
    Ok(there)
}

/// Asks until the node acknowledges. A refusal is none of the answers of a node whose daemons come and go.
fn until_done(what: &str, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let Err(error) = ask() else { return Ok(()) };
        if let Some(code) = status(&error)
            && code < 500
            && code != 401
            && code != 429
        {
            return Err(error.context(format!("{what} is refused")));
        }
        if Instant::now() > end {
            return Err(error.context(format!("{what} is not acknowledged")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn status(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<zos_api::client::ClientError>()?.problem().map(|problem| problem.status)
}

/// Waits until exactly these deployments are there, with every workload up.
fn there(api: &Api, wanted: &BTreeSet<String>) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let list = api.list();
        let seen = match &list {
            Ok(list) => {
                let names: BTreeSet<String> = list.iter().map(|d| d.name.to_string()).collect();
                let up = list.iter().flat_map(|d| d.workloads.values());
                let up = up.into_iter().all(|w| matches!(w.state, State::Ready | State::Running));
                if names == *wanted && up {
                    return Ok(());
                }
                // What was acknowledged may go on its way; what is missing will not come again.
                let lost: Vec<&String> = wanted.difference(&names).collect();
                ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
                format!("{list:#?}")
            }
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > end {
            bail!("the deployments are not {wanted:?}:\n{seen}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

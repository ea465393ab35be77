//! The node's key and its deployments on two disks: either one is enough, and one that fell behind never leads.
//!
//! ```text
//!  running  both ─▶ the first is pulled while deployments come ─▶ back, filled ─▶ daemons killed ─▶ the other is pulled
//!                ─▶ power cut ─▶ the one that was left, alone ─▶ both: the stale one is filled ─▶ that one, alone
//!  apart    each alone ─▶ both: none leads ─▶ zos.state=<one of them> leads, the other is filled
//!  given back  one of two is released, a third takes its place; a state of an older ZOS gets its second; rot is mended
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::api::{Api, fault};
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{Disk, GIB, Interface, Node, Scene, scene};
use serde_json::{Value, json};
use storaged::copies::Mark;
use storaged::disk::gpt;
use storaged::disk::header::Header;
use storaged::disk::judge::{self, Verdict};
use storaged::disk::read::Reader;
use zos_host::loopdev::{self, LoopDevice, Options};
use zos_host::mount::{self, MountFlags, UnmountFlags};
use zos_types::NodeId;

/// A deployment that nothing but the state knows of: its volume waits for a class of disk, or has it, all the same.
const SMALL: &str =
    "version = 1\n[workloads.data]\ntype = \"volume\"\nsize = \"32MiB\"\nclass = \"hdd\"\n";
/// Who keeps something on the copies.
const KEEPERS: [&str; 4] = ["storaged", "identityd", "netd", "provisiond"];
const LOST: &str = "storage.state-copy-lost";

/// A disk that can be pulled.
fn disk(scene: &Scene, id: &str) -> Result<Disk> {
    Ok(scene.disk(id, 2 * GIB)?.by(Interface::Virtio))
}

fn node(disks: &[&Disk]) -> Node {
    Node::with_disks(disks.iter().map(|disk| (*disk).clone())).with_probe().with_farmer()
}

/// What the header of a disk says, while no node runs on it.
fn header(disk: &Disk) -> Result<Header> {
    let size = fs::metadata(&disk.path)?.len();
    match judge::examine(&Reader::open(&disk.path, size)?, 512, |_| true) {
        Verdict::Ours(header) => Ok(*header),
        other => bail!("{} is no pool: {other}", disk.id),
    }
}

fn mark(disk: &Disk) -> Result<Mark> {
    header(disk)?.copy.with_context(|| format!("{} carries no copy", disk.id))
}

/// Waits until the state lies whole on so many disks; their pools, the one that is read first before the other.
fn whole(node: &mut Machine, count: usize) -> Result<Vec<String>> {
    let end = Instant::now() + SOON;
    loop {
        let method = "org.zos.Storage.WatchState";
        let told = node.probe()?.watch("storage", method, json!({}), (1, Duration::from_secs(5)));
        // storaged may have been killed just now.
        let copies = told.ok().and_then(|told| told.first()?["copies"].as_array().cloned());
        let copies = copies.unwrap_or_default();
        let current = copies.iter().filter(|copy| copy["current"] == true);
        let pools: Vec<String> =
            current.filter_map(|copy| copy["pool"].as_str().map(str::to_owned)).collect();
        if pools.len() == count && copies.len() == count {
            return Ok(pools);
        }
        ensure!(Instant::now() < end, "the state isn't whole on {count} disks: {copies:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Puts deployments one after another until it is over, each until it is acknowledged; gives those that were.
fn puts(api: &Api, prefix: &str, over: &AtomicBool) -> Result<BTreeSet<String>> {
    let mut acknowledged = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        let name = format!("{prefix}-{}", acknowledged.len());
        put(api, &name)?;
        acknowledged.insert(name);
    }
    Ok(acknowledged)
}

fn put(api: &Api, name: &str) -> Result<()> {
    let end = Instant::now() + SOON;
    while let Err(error) = api.put(name, SMALL) {
        ensure!(Instant::now() < end, "{name} is refused: {error:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Whether all of these are there, and nothing else.
fn there(api: &Api, expected: &BTreeSet<String>) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        // What keeps them may be on its way up.
        let found = api.list().map(|list| list.into_iter().map(|one| one.name.to_string()));
        let found: Result<BTreeSet<String>> = found.map(Iterator::collect);
        if found.as_ref().is_ok_and(|found| found == expected) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{expected:?} were acknowledged; there are {found:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn without(node: &mut Machine, id: &str) -> Result<()> {
    node.wait_node(&format!("no fault {id}"), SOON, |node| fault(node, id).is_none()).map(drop)
}

#[test]
fn either_of_two_disks_is_enough_and_a_stale_one_is_filled() {
    scene("state-two", |scene| {
        let (a, b) = (disk(scene, "a")?, disk(scene, "b")?);
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&self::node(&[&a, &b]))?;
        let id = node.wait_ready()?.id;
        let first = whole(&mut node, 2)?[0].clone();
        without(&mut node, LOST)?;
        let api = twin.api(&node)?;
        put(&api, "begin")?;
        let mut acknowledged = BTreeSet::from(["begin".to_owned()]);
        let (read, other) = if header(&a)?.pool == first { (&a, &b) } else { (&b, &a) };

        // The copy that is read is pulled while deployments come.
        let over = AtomicBool::new(false);
        let of_twin = twin.api(&node)?;
        let put_meanwhile = std::thread::scope(|threads| -> Result<BTreeSet<String>> {
            let puts = threads.spawn(|| puts(&of_twin, "pulled", &over));
            std::thread::sleep(Duration::from_secs(2));
            let pulled = node.unplug(&read.id).and_then(|()| node.wait_fault(LOST, SOON));
            std::thread::sleep(Duration::from_secs(2));
            over.store(true, Ordering::Relaxed);
            let acknowledged = puts.join().ok().context("the twin's thread panicked")??;
            let words = pulled?;
            ensure!(words.contains("connect its disk again"), "not told what to do: {words}");
            Ok(acknowledged)
        })?;
        println!("{} deployments while a disk was pulled", put_meanwhile.len());
        acknowledged.extend(put_meanwhile);
        there(&api, &acknowledged)?;

        // It comes back stale, and is filled; daemons that start again lose nothing, and don't take it for what it isn't.
        node.plug(&read.id)?;
        whole(&mut node, 2)?;
        without(&mut node, LOST)?;
        for keeper in KEEPERS {
            node.probe()?.kill(keeper)?;
        }
        whole(&mut node, 2)?;
        put(&api, "killed")?;
        acknowledged.insert("killed".to_owned());
        there(&api, &acknowledged)?;

        // The other one is pulled, and the power is cut.
        node.unplug(&other.id)?;
        node.wait_fault(LOST, SOON)?;
        put(&api, "alone")?;
        acknowledged.insert("alone".to_owned());
        node.cut_power()?;
        ensure!(mark(read)?.is_after(&mark(other)?), "the header doesn't say who fell behind");

        // The one that was left, alone.
        let mut node = scene.start(&self::node(&[read]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id && !found.ephemeral, "the node was {id}: {found:#?}");
        node.wait_fault(LOST, SOON)?;
        let api = twin.api(&node)?;
        there(&api, &acknowledged)?;
        put(&api, "later")?;
        acknowledged.insert("later".to_owned());
        node.power_off()?;
        drop(node);

        // Both: the stale one doesn't lead, and is filled. Then it alone has it all.
        let mut node = scene.start(&self::node(&[other, read]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        there(&twin.api(&node)?, &acknowledged)?;
        whole(&mut node, 2)?;
        node.power_off()?;
        drop(node);
        let mut node = scene.start(&self::node(&[other]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        there(&twin.api(&node)?, &acknowledged)?;
        node.power_off()
    });
}

/// Two disks with a node's state, and who it is.
fn two(scene: &mut Scene) -> Result<(Disk, Disk, NodeId)> {
    let (a, b) = (disk(scene, "a")?, disk(scene, "b")?);
    let mut node = scene.start(&node(&[&a, &b]))?;
    let found = node.wait_ready()?;
    whole(&mut node, 2)?;
    put(&scene.twin("twin")?.api(&node)?, "both")?;
    node.power_off()?;
    Ok((a, b, found.id))
}

#[test]
fn disks_that_went_on_apart_wait_for_the_farmers_word() {
    scene("state-apart", |scene| {
        let (a, b, id) = two(scene)?;
        let twin = scene.twin("twin")?;
        for disk in [&a, &b] {
            let mut node = scene.start(&node(&[disk]))?;
            let found = node.wait_ready()?;
            ensure!(found.id == id, "on {} alone the node is {}, not {id}", disk.id, found.id);
            put(&twin.api(&node)?, &format!("on-{}", disk.id))?;
            node.power_off()?;
        }

        // Neither leads, and neither is written to.
        let (of_a, of_b) = (mark(&a)?.generation, mark(&b)?.generation);
        let before = (a.hash()?, b.hash()?);
        let mut node = scene.start(&self::node(&[&a, &b]))?;
        let found = node.wait_ready()?;
        ensure!(found.ephemeral, "one of two histories leads unasked");
        let words = node.wait_fault("storage.state-in-memory", SOON)?;
        for generation in [of_a, of_b] {
            ensure!(words.contains(&generation.to_string()), "{generation} isn't named: {words}");
        }
        ensure!(words.contains("zos.state="), "not told what to do: {words}");
        node.power_off()?;
        drop(node);
        ensure!((a.hash()?, b.hash()?) == before, "a disk was written to without a word");

        // The farmer's word: that one leads, the other is filled anew. It may stay in the settings.
        let said = self::node(&[&a, &b]).set(&format!("zos.state={of_b}"));
        let expected = BTreeSet::from(["both".to_owned(), "on-b".to_owned()]);
        for _ in 0..2 {
            let mut node = scene.start(&said)?;
            let found = node.wait_ready()?;
            ensure!(found.id == id && !found.ephemeral, "the node was {id}: {found:#?}");
            there(&twin.api(&node)?, &expected)?;
            whole(&mut node, 2)?;
            node.power_off()?;
        }
        let mut node = scene.start(&self::node(&[&a]))?;
        node.wait_ready()?;
        there(&twin.api(&node)?, &expected)?;
        node.power_off()
    });
}

/// Makes a disk's pool one that an older ZOS has made: a state that is alone, and has no mark.
fn as_of_old(disk: &Disk) -> Result<()> {
    let header = header(disk)?;
    let pools = vec![header.pool.clone()];
    let old = Header { version: 1, copy: None, state_pools: pools, ..header };
    let file = File::options().write(true).open(&disk.path)?;
    for sequence in [old.sequence + 1, old.sequence + 2] {
        let next = Header { sequence, ..old.clone() };
        file.write_all_at(&next.encode(), next.place())?;
    }
    Ok(())
}

fn zos(node: &Machine, arguments: &[&str]) -> Result<Value> {
    let said = node.farmer()?.run_zos(node, &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&said).with_context(|| format!("read {said}"))
}

#[test]
fn a_state_of_old_gets_its_second_copy_and_one_is_given_back_for_another() {
    scene("state-given-back", |scene| {
        let (a, b, c) = (disk(scene, "a")?, disk(scene, "b")?, disk(scene, "c")?);
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&self::node(&[&a]))?;
        let id = node.wait_ready()?.id;
        put(&twin.api(&node)?, "old")?;
        node.power_off()?;
        drop(node);
        as_of_old(&a)?;

        let mut node = scene.start(&self::node(&[&a, &b, &c.clone().unplugged()]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        whole(&mut node, 2)?;
        let api = twin.api(&node)?;
        put(&api, "new")?;
        let expected = BTreeSet::from(["new".to_owned(), "old".to_owned()]);

        // The disk of old is given back: its volumes move, its copy of the state isn't needed.
        let pool = header(&a)?.pool;
        let disks = zos(&node, &["disk", "list"])?;
        let disks = disks["disks"].as_array().context("disks")?;
        let name = disks.iter().find(|disk| disk["pool"] == pool.as_str());
        let name = name.and_then(|disk| disk["name"].as_str()).context("the pool's disk")?;
        let plan = zos(&node, &["disk", "release", name, "--dry-run"])?;
        let hash = plan["hash"].as_str().context("a plan has a hash")?;
        let released = zos(&node, &["disk", "release", name, "--plan", hash, "--wait"])?;
        ensure!(released["role"] == "empty", "{released}");
        node.wait_fault(LOST, SOON)?;
        // The last copy can't be.
        let last = disks.iter().find(|disk| disk["role"] == "ours" && disk["name"] != name);
        let last = last.and_then(|disk| disk["name"].as_str()).context("another disk")?;
        let refused = node.farmer()?.run_zos(&node, &["disk", "release", last, "--dry-run"]);
        let refused = refused.err().context("the disk with the only copy may be released")?;
        ensure!(format!("{refused:#}").contains("state"), "no reason is told: {refused:#}");

        // Another disk takes its place; then it alone has everything.
        node.plug("c")?;
        whole(&mut node, 2)?;
        without(&mut node, LOST)?;
        there(&api, &expected)?;
        node.power_off()?;
        drop(node);
        let mut node = scene.start(&self::node(&[&c]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        there(&twin.api(&node)?, &expected)?;
        node.power_off()
    });
}

/// A disk's pool, mounted on this computer.
struct Mounted {
    device: LoopDevice,
    root: PathBuf,
}

impl Mounted {
    fn new(scene: &Scene, disk: &Disk) -> Result<Self> {
        let file = File::options().read(true).write(true).open(&disk.path)?;
        let options = Options { offset: gpt::MARGIN, ..Options::default() };
        let device = loopdev::attach(file.as_fd(), "rot", &options)?;
        let root = scene.dir().join("mounted");
        fs::create_dir_all(&root)?;
        let mounted = Self { device, root };
        let device = mounted.device.path.display().to_string();
        mount::mount(&device, &mounted.root, "btrfs", MountFlags::empty(), "")?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = mount::unmount(&self.root, UnmountFlags::empty());
        let _ = loopdev::detach(&self.device.path);
    }
}

fn spoil(file: &Path) -> Result<()> {
    let size = fs::metadata(file)?.len();
    let file = File::options().write(true).open(file)?;
    // Every page but the first, which names the others.
    let rot = vec![0xa5; usize::try_from(size - 4096)?];
    file.write_all_at(&rot, 4096)?;
    Ok(file.sync_all()?)
}

#[test]
fn rot_in_one_copy_is_mended_and_in_both_nothing_is_begun_anew() {
    if let Err(why) = qemu_tests::cuts::check::possible() {
        println!("skipped: it {why}");
        return;
    }
    scene("state-rot", |scene| {
        let (a, b, id) = two(scene)?;
        let twin = scene.twin("twin")?;
        let expected = BTreeSet::from(["both".to_owned()]);
        let state = |mounted: &Mounted| mounted.root.join("@state/provision");
        let store = |mounted: &Mounted| state(mounted).join("provision.redb");
        {
            let mounted = Mounted::new(scene, &a)?;
            spoil(&store(&mounted))?;
        }
        let mut node = scene.start(&self::node(&[&a, &b]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        there(&twin.api(&node)?, &expected)?;
        let words = node.wait_fault("provision.unreadable", SOON)?;
        ensure!(words.contains("provision.redb.unreadable-1"), "{words}");
        node.power_off()?;
        drop(node);
        {
            let mounted = Mounted::new(scene, &a)?;
            let names = fs::read_dir(state(&mounted))?;
            let kept = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let kept = kept.filter(|name| name.contains(".unreadable-")).count();
            ensure!(kept == 1, "what could not be read is kept {kept} times");
        }

        // Both: refused, and nothing is begun anew.
        for disk in [&a, &b] {
            spoil(&store(&Mounted::new(scene, disk)?))?;
        }
        let mut node = scene.start(&self::node(&[&a, &b]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        let words = node.wait_fault("provision.state", SOON)?;
        println!("rot in both copies: {words}");
        ensure!(twin.api(&node)?.put("new", SMALL).is_err(), "a deployment is kept nowhere");
        node.power_off()
    });
}

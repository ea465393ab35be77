//! A machine that runs: its serial port, its QMP, its end.
//!
//! ```text
//!  start ─▶ running ─▶ press_power_button ─▶ wait_off     orderly
//!              └──────▶ drop                               killed, evidence kept for a test that fails
//! ```

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use zos_types::machine::Node as NodeView;

use crate::api::{Api, fault};
use crate::arguments::{SPARE, bus, forward, port};
use crate::nic::Nic;
use crate::node::Node;
use crate::probe::Probe;
use crate::qmp::Qmp;
use crate::serial::Serial;
use crate::slots::Slot;
use crate::twin::Twin;
use crate::web::Web;

/// How long a node may take from its start to an answer of its API, firmware included, on two busy cores under emulation.
pub const BOOT: Duration = Duration::from_secs(180);
/// How long something may take that a running node does.
pub const SOON: Duration = Duration::from_secs(90);
/// Serial lines that a failed test shows.
const LAST: usize = 60;

/// What machines leave behind for a test that fails: a title and a text each.
pub type Evidence = Arc<Mutex<Vec<(String, String)>>>;

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    pub(crate) child: Child,
    pub(crate) qmp: Qmp,
    pub(crate) serial: Serial,
    pub(crate) node: Node,
    pub(crate) dir: PathBuf,
    /// Sockets; short paths, for Unix sockets have room for 107 bytes.
    pub(crate) sockets: tempfile::TempDir,
    pub(crate) api_port: u16,
    pub(crate) api: Api,
    pub(crate) web: Option<Web>,
    pub(crate) hand: Option<Probe>,
    pub(crate) started: Instant,
    pub(crate) farmer: Option<Twin>,
    pub(crate) evidence: Evidence,
    pub(crate) _slot: Slot,
}

impl Machine {
    /// Its folder: `serial.log`, `qmp.log`, `qemu.sh`, `qemu.log`, screenshots.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The port of this computer that leads to the node API.
    #[must_use]
    pub fn api_port(&self) -> u16 {
        self.api_port
    }

    /// Its address as `zos` wants it: `ID@HOST:PORT`.
    pub fn address(&self) -> Result<String> {
        Ok(format!("{}@127.0.0.1:{}", self.api.node()?.id, self.api_port))
    }

    /// The node API, without a key.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The farmer, whose key the node was started with ([`Node::with_farmer`]).
    pub fn farmer(&self) -> Result<&Twin> {
        self.farmer.as_ref().context("this node was started without a farmer's key")
    }

    /// The serial port.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The boot server, for boots from the network.
    #[must_use]
    pub fn web(&self) -> Option<&Web> {
        self.web.as_ref()
    }

    /// Since when it runs.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// QEMU's machine protocol.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// An error when QEMU has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        alive(&mut self.child)
    }

    /// Waits for a text on the serial port, and gives its line.
    pub fn wait_for_serial(&mut self, text: &str, patience: Duration) -> Result<String> {
        let Self { serial, child, .. } = self;
        serial.wait(text, patience, || alive(child))
    }

    /// Waits until the node API answers.
    pub fn wait_ready(&mut self) -> Result<NodeView> {
        self.wait_node("answer of the node API", BOOT, |_| true)
    }

    /// Waits until the node says of itself what is wanted.
    pub fn wait_node(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&NodeView) -> bool,
    ) -> Result<NodeView> {
        let Self { api, child, .. } = self;
        api.wait_node(what, patience, || alive(child), wanted)
    }

    /// Waits until the node shows a fault whose id begins so, and gives its words.
    pub fn wait_fault(&mut self, id: &str, patience: Duration) -> Result<String> {
        let node =
            self.wait_node(&format!("fault {id}"), patience, |node| fault(node, id).is_some())?;
        Ok(fault(&node, id).context("the fault was there")?.detail.clone())
    }

    /// Waits until the node, which showed `before` a moment ago, has booted again and answers; what it says then. The probe of the boot
    /// before is gone with it.
    pub fn wait_reboot(&mut self, before: &NodeView, patience: Duration) -> Result<NodeView> {
        // Without another boot it would be up for what it was, and the time since. A new boot may be up for longer than
        // the one before was, so that alone says nothing.
        let asked = Instant::now();
        let again = self.wait_node("answer after another boot", patience, |node| {
            node.audience != before.audience
                && node.uptime < before.uptime / 2 + asked.elapsed().as_secs()
        })?;
        self.hand = None;
        Ok(again)
    }

    /// The hand inside; only for a node with a probe. Its serial port takes one connection, which is kept.
    pub fn probe(&mut self) -> Result<&mut Probe> {
        ensure!(self.node.probe, "this node was started without a probe");
        if self.hand.is_none() {
            self.hand = Some(Probe::connect(&self.sockets.path().join("probe"), BOOT)?);
        }
        self.hand.as_mut().context("the probe is connected")
    }

    /// Plugs in a disk that the node was started without, or that was unplugged.
    pub fn plug(&mut self, id: &str) -> Result<()> {
        let mut disks = self.node.disks.iter_mut().enumerate();
        let found = disks.find(|(_, disk)| disk.id == id && disk.unplugged);
        let (number, disk) = found.with_context(|| format!("no unplugged disk {id}"))?;
        // What lies behind a disk that was unplugged is kept: a record of its writes goes on.
        let known = self.qmp.execute("query-named-block-nodes", json!({}))?;
        let known = known.as_array().is_some_and(|all| all.iter().any(|n| n["node-name"] == id));
        if !known {
            self.qmp.execute("blockdev-add", disk.blockdev())?;
        }
        self.qmp.execute("device_add", disk.device(bus(disk, &port(number))))?;
        disk.unplugged = false;
        Ok(())
    }

    /// Unplugs a disk; what lies on it stays.
    pub fn unplug(&mut self, id: &str) -> Result<()> {
        let mut disks = self.node.disks.iter_mut();
        let found = disks.find(|disk| disk.id == id && !disk.unplugged);
        let disk = found.with_context(|| format!("no disk {id} is plugged in"))?;
        let device = format!("disk-{id}");
        self.qmp.execute("device_del", json!({"id": device}))?;
        let gone = |event: &Value| {
            event["event"] == "DEVICE_DELETED" && event["data"]["device"] == device.as_str()
        };
        let waited = self.qmp.take_event(gone, SOON);
        waited.with_context(|| format!("the node does not let go of disk {id}"))?;
        disk.unplugged = true;
        Ok(())
    }

    /// Plugs in a network card on a LAN with DHCP; for a node that was started without one.
    pub fn plug_nic(&mut self) -> Result<()> {
        let back =
            json!({"type": "user", "id": "net-late", "hostfwd": [{"str": forward(self.api_port)}]});
        self.qmp.execute("netdev_add", back)?;
        let card =
            json!({"driver": "virtio-net-pci", "id": "late", "netdev": "net-late", "bus": SPARE});
        self.qmp.execute("device_add", card)?;
        Ok(())
    }

    /// Pulls a network card's cable, or puts it in.
    pub fn set_cable(&mut self, number: usize, plugged: bool) -> Result<()> {
        self.qmp.execute("set_link", json!({"name": Nic::id(number), "up": plugged}))?;
        Ok(())
    }

    /// A picture of the first screen: a PNG in the machine's folder.
    pub fn screenshot(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.png"));
        self.qmp.execute("screendump", json!({"filename": path, "format": "png"}))?;
        Ok(path)
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) -> Result<()> {
        self.qmp.execute("system_powerdown", json!({}))?;
        Ok(())
    }

    /// Waits until the machine has switched itself off; gives QEMU's word for it: `guest-shutdown`, `guest-reset`.
    pub fn wait_off(&mut self, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        while self.child.try_wait().context("look after QEMU")?.is_none() {
            if Instant::now() > end {
                bail!("the machine still runs after {} s", patience.as_secs());
            }
            // Reading events here, too: a full socket would hold QEMU back.
            self.qmp.events();
            std::thread::sleep(Duration::from_millis(50));
        }
        let events = self.qmp.events();
        let last = events.iter().find(|event| event["event"] == "SHUTDOWN");
        let last = last.context("QEMU ended, and not by its guest's wish")?;
        Ok(last["data"]["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// Switches off orderly, as a farmer does.
    pub fn power_off(&mut self) -> Result<()> {
        self.press_power_button()?;
        let reason = self.wait_off(SOON)?;
        ensure!(
            reason == "guest-shutdown",
            "the machine ended by {reason}, not by switching itself off"
        );
        Ok(())
    }

    /// Cuts the power.
    pub fn cut_power(mut self) -> Result<()> {
        self.child.kill().context("kill QEMU")?;
        self.child.wait().context("wait for QEMU's end")?;
        Ok(())
    }

    fn remember(&mut self) {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("QEMU has ended: {status}"),
            _ => match self.qmp.execute("query-status", json!({})) {
                Ok(state) => format!("QEMU says {state}"),
                Err(error) => format!("QEMU says nothing: {error:#}"),
            },
        };
        let errors = std::fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        let text =
            format!("{state}\n{errors}last {LAST} lines of serial:\n{}", self.serial.tail(LAST));
        if let Ok(mut evidence) = self.evidence.lock() {
            evidence.push((self.dir.display().to_string(), text));
        }
    }
}

fn alive(child: &mut Child) -> Result<()> {
    match child.try_wait().context("look after QEMU")? {
        Some(status) => bail!("QEMU has ended: {status}"),
        None => Ok(()),
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.remember();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

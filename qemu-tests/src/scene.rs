//! A test: a folder of its own, machines that are started in it, and what to show when it fails.
//!
//! ```text
//!  target/qemu-tests/<name>/          disks, keys, `took`: how many seconds
//!  target/qemu-tests/<name>/boot-1/   serial.log qmp.log qemu.sh qemu.log *.png
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::accel::Accel;
use crate::api::Api;
use crate::arguments::{Places, arguments};
use crate::disk::{self, Disk, Interface};
use crate::image;
use crate::machine::{Evidence, Machine};
use crate::node::{Boot, Firmware, Node};
use crate::probe;
use crate::qemu::Qemu;
use crate::qmp::Qmp;
use crate::serial::Serial;
use crate::slots::{PATIENCE, Slot};
use crate::twin::Twin;
use crate::web::{Page, Web};

/// How long QEMU may take to start.
const START: Duration = Duration::from_secs(30);

/// A test.
#[derive(Debug)]
pub struct Scene {
    dir: PathBuf,
    boots: u32,
    evidence: Evidence,
    _own: Slot,
}

/// Runs a test. When it fails it panics with the reason, what each machine said last, and where the rest lies.
///
/// # Panics
/// When the test fails.
pub fn scene(name: &str, body: impl FnOnce(&mut Scene) -> Result<()>) {
    let mut scene = Scene::new(&image::project().join("target/qemu-tests").join(name))
        .expect("make the test's folder");
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut scene)));
    // Beside another test, and with the waits for a place in it: what it costs a run, not what it needs.
    std::fs::write(scene.dir.join("took"), format!("{}\n", begun.elapsed().as_secs())).ok();
    let reason = match &outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        // The message of the panic stands above already.
        Err(_) => "a check failed (above)".to_owned(),
    };
    let mut report = format!("\n=== {name}: {reason}\n");
    for (title, text) in scene.evidence.lock().map(|evidence| evidence.clone()).unwrap_or_default()
    {
        report += &format!("--- {title}\n{text}\n");
    }
    panic!("{report}--- files: {}", scene.dir.display());
}

impl Scene {
    /// A scene in a folder, which is emptied once no other run of the same test uses it.
    pub fn new(dir: &Path) -> Result<Self> {
        let own = Slot::one_of(&[dir.with_extension("lock")], PATIENCE)?;
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        Self::at(dir, own)
    }

    /// A scene in a folder as it is: disks and keys of an earlier run stay. Refused while another run uses it.
    pub fn keep(dir: &Path) -> Result<Self> {
        Self::at(dir, Slot::one_of(&[dir.with_extension("lock")], Duration::ZERO)?)
    }

    fn at(dir: &Path, own: Slot) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), boots: 0, evidence: Evidence::default(), _own: own })
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new disk, all zeros.
    pub fn disk(&self, id: &str, size: u64) -> Result<Disk> {
        let path = self.dir.join(format!("{id}.img"));
        disk::create(&path, size)?;
        Ok(Disk::new(id, path))
    }

    /// A twin with a key of this test.
    pub fn twin(&self, name: &str) -> Result<Twin> {
        Twin::at(self.dir.join(format!("{name}.pem")))
    }

    /// Starts a machine, once there is a place for it.
    pub fn start(&mut self, node: &Node) -> Result<Machine> {
        let mut node = node.clone();
        let farmer = if node.farmer { Some(self.twin("farmer")?) } else { None };
        if let Some(farmer) = &farmer {
            node.settings.push(format!("zos.farmer={}", farmer.id()));
        }
        let node = &node;
        let slot = Slot::take(&image::project().join("target/qemu-tests"))?;
        self.boots += 1;
        let dir = self.dir.join(format!("boot-{}", self.boots));
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let qemu = Qemu::find()?;
        let sockets = tempfile::Builder::new()
            .prefix("zos-")
            .tempdir()
            .context("make a folder for sockets")?;
        let api_port = free_port()?;
        let web = if node.boot == Boot::Ipxe { Some(boot_server(node)?) } else { None };
        let places = Places {
            serial: dir.join("serial.log"),
            qmp: sockets.path().join("qmp"),
            probe: sockets.path().join("probe"),
            api_port,
            boot_url: web.as_ref().map(|web| boot_url(node, web)),
            kernel: kernel(node, &dir)?,
            uefi: uefi(node, qemu, &dir)?,
            stick: stick(node, &dir)?,
        };
        // Away from the terminal's Ctrl-C, so that a node may be switched off orderly on it; and gone with us, whatever ends us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(qemu.words()).process_group(0);
        command.args(arguments(node, Accel::probe()?, &places));
        write_script(&command, &dir.join("qemu.sh"))?;
        let log = File::create(dir.join("qemu.log")).context("make QEMU's log")?;
        let command = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        let started = Instant::now();
        let mut child = command.spawn().context("start QEMU")?;
        let qmp = Qmp::connect(&places.qmp, &dir.join("qmp.log"), START).map_err(|error| {
            child.kill().ok();
            child.wait().ok();
            let said = std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
            error.context(format!("QEMU does not start: {}", said.trim()))
        })?;
        let mut machine = Machine {
            child,
            qmp,
            serial: Serial::new(places.serial),
            node: node.clone(),
            dir,
            sockets,
            api_port,
            api: Api::new(api_port, None)?,
            web,
            hand: None,
            started,
            farmer,
            evidence: self.evidence.clone(),
            _slot: slot,
        };
        for (number, nic) in node.nics.iter().enumerate() {
            if nic.starts_unplugged() {
                machine.set_cable(number, false)?;
            }
        }
        machine.qmp.execute("cont", json!({}))?;
        Ok(machine)
    }
}

/// A TCP port that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// Kernel, initramfs (with what the test adds) and command line of a direct boot.
fn kernel(node: &Node, dir: &Path) -> Result<Option<(PathBuf, Option<PathBuf>, String)>> {
    let (kernel, initramfs) = match &node.boot {
        Boot::Kernel => (image::vmlinuz()?, Some(image::initramfs()?)),
        Boot::Files { kernel, initramfs } => (kernel.clone(), initramfs.clone()),
        Boot::Ipxe | Boot::Usb => return Ok(None),
    };
    let initramfs = match initramfs {
        Some(base) if node.probe || !node.files.is_empty() => {
            let extended = dir.join("initramfs.img");
            let mut files = if node.probe { probe::files()? } else { Vec::new() };
            files.extend(node.files.iter().cloned());
            image::extend_initramfs(&base, &files, &extended)?;
            Some(extended)
        }
        as_it_is => as_it_is,
    };
    Ok(Some((kernel, initramfs, node.command_line())))
}

/// OVMF with variables of the machine's own.
fn uefi(node: &Node, qemu: &Qemu, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let variables = dir.join("uefi-variables.fd");
    if node.firmware == Firmware::Uefi {
        std::fs::copy(&qemu.ovmf_vars, &variables).context("copy OVMF's variables")?;
    }
    Ok((qemu.ovmf_code.clone(), variables))
}

/// A copy of the stick with the node's settings in `zos.conf`.
fn stick(node: &Node, dir: &Path) -> Result<Option<Disk>> {
    if node.boot != Boot::Usb {
        return Ok(None);
    }
    let path = dir.join("zos-usb.img");
    disk::copy_sparse(&image::file("zos-usb.img")?, &path)?;
    let lines: Vec<String> =
        node.settings.iter().map(|setting| setting.replacen('=', " = ", 1)).collect();
    image::write_conf(&path, &lines)?;
    Ok(Some(Disk::new("stick", path).by(Interface::Usb)))
}

/// What DHCP names as the boot file: by BIOS our detour for the card's own iPXE, by UEFI our iPXE, which the firmware
/// loads by HTTP itself.
fn boot_url(node: &Node, web: &Web) -> String {
    let path = if node.firmware == Firmware::Uefi { "ipxe.efi" } else { "start" };
    format!("http://10.0.2.2:{}/{path}", web.port())
}

/// Serves `pxe/`. By BIOS the card's iPXE is sent on to the one that we ship; that one, which asks DHCP again and so comes
/// to the same address, to the script that we ship.
fn boot_server(node: &Node) -> Result<Web> {
    let start: Page = Box::new(|before| {
        let next = if before == 0 { "undionly.kpxe" } else { "boot.ipxe" };
        format!("#!ipxe\nchain {next}\n").into_bytes()
    });
    let line = node.command_line();
    let settings: Page = Box::new(move |_| format!("#!ipxe\nset zos {line}\n").into_bytes());
    let pages = BTreeMap::from([("/start".to_owned(), start), ("/zos.ipxe".to_owned(), settings)]);
    Web::serve(&image::file("pxe")?, pages)
}

/// The command, to be run again by hand.
fn write_script(command: &Command, path: &Path) -> Result<()> {
    let quote =
        |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    std::fs::write(path, format!("#!/bin/sh\nexec {}\n", words.join(" \\\n  ")))
        .context("keep QEMU's command")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .context("keep QEMU's command")
}

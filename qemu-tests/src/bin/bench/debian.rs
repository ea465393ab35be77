//! The peer of a boot: Debian's own kernel for clouds with a stock systemd root, all in memory as ours.
//!
//! ```text
//!  mmdebstrap: systemd, kernel ─▶ vmlinuz, root as an archive ─▶ the same QEMU ─▶ /proc/meminfo, then off
//! ```

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::{BOOT, SOON};
use qemu_tests::{Boot, Nic, Node, Scene};

use crate::figures::{Figures, float, mib};
use crate::node::{kept, meminfo};

/// Says in the kernel's log when the machine is up, and what memory it holds when it has settled.
const UNIT: &str = "\
[Unit]
After=multi-user.target systemd-networkd-wait-online.service
[Service]
Type=oneshot
ExecStart=/bin/sh /bench.sh
[Install]
WantedBy=multi-user.target
";
const SCRIPT: &str = "\
read up rest < /proc/uptime
echo \"BENCH-UP $up\" > /dev/kmsg
sleep 10
fields='^(MemTotal|MemFree|Active.file.|Inactive.file.|SReclaimable):'
echo \"BENCH-MEMORY;$(grep -E \"$fields\" /proc/meminfo | tr '\\n' ';')\" > /dev/kmsg
";

/// The wired cards by DHCP, as our netd does.
const NETWORK: &str = "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n";

pub(crate) fn measure(scene: &mut Scene, figures: &mut Figures) -> Result<()> {
    let dir = scene.dir().join("debian");
    std::fs::create_dir_all(&dir).context("make a folder for Debian")?;
    let (kernel, root) = make(&dir)?;
    let node = Node {
        boot: Boot::Files { kernel, initramfs: Some(root) },
        nics: vec![Nic::Lan],
        settings: Vec::new(),
        ..Node::default()
    };
    let mut machine = scene.start(&node)?;
    let up = machine.wait_for_serial("BENCH-UP", 2 * BOOT)?;
    let text = machine.wait_for_serial("BENCH-MEMORY", SOON)?.replace(';', "\n");
    let seconds: f64 =
        up.split_whitespace().last().and_then(|word| word.parse().ok()).context("read its time")?;
    let ram = node.memory << 20;
    let (held, total) = (kept(ram, &text)?, meminfo(&text, "MemTotal")? << 10);
    ensure!(total < ram, "Debian counts more memory than the machine has");
    const NAME: &str = "Debian + systemd";
    if let Some(ours) = figures.find("boot: api-ready done after") {
        ours.peer = Some((NAME, seconds * 1000.0));
    }
    if let Some(ours) = figures.find("idle: kept from twins (2 GiB machine)") {
        ours.peer = Some((NAME, mib(held)));
    }
    if let Some(ours) = figures.find("image: initramfs.img") {
        let size = std::fs::metadata(dir.join("root.cpio.zst")).context("look at its root")?.len();
        ours.peer = Some((NAME, float(size) / f64::from(1 << 20)));
    }
    Ok(())
}

/// Debian's root with its kernel beside; gives both.
fn make(dir: &Path) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let (tree, root) = (dir.join("tree"), dir.join("root.cpio.zst"));
    let release = std::fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("this Debian has a name")?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase", "--mode=auto"])
        .arg("--include=systemd,systemd-sysv,udev,dbus,iproute2,linux-image-cloud-amd64")
        .arg(suite)
        .arg(&tree);
    // The same mirror as the machine's own.
    let sites = Command::new("apt-get")
        .args(["indextargets", "--format", "$(SITE)"])
        .output()
        .context("ask apt-get for the mirror")?;
    let sites = String::from_utf8_lossy(&sites.stdout).into_owned();
    if let Some(site) = sites.lines().find(|line| line.trim_end_matches('/').ends_with("/debian")) {
        command.arg(site);
    }
    let output = command.output().context("run mmdebstrap (package mmdebstrap)")?;
    ensure!(
        output.status.success(),
        "mmdebstrap failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(tree.join("etc/systemd/network/10-wired.network"), NETWORK)
        .context("write its network")?;
    std::fs::write(tree.join("etc/systemd/system/bench.service"), UNIT)
        .context("write its unit")?;
    std::fs::write(tree.join("bench.sh"), SCRIPT).context("write its script")?;
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&wants).context("make a folder")?;
    for (unit, target) in [
        ("bench.service", "/etc/systemd/system/bench.service"),
        ("systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service"),
        (
            "systemd-networkd-wait-online.service",
            "/lib/systemd/system/systemd-networkd-wait-online.service",
        ),
    ] {
        std::os::unix::fs::symlink(target, wants.join(unit)).context("enable a unit")?;
    }
    std::os::unix::fs::symlink("lib/systemd/systemd", tree.join("init")).ok();
    let boot = std::fs::read_dir(tree.join("boot")).context("look into its /boot")?;
    let kernel = boot
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .context("its kernel")?;
    let target = dir.join("vmlinuz");
    std::fs::copy(&kernel, &target).context("take its kernel")?;
    let script = format!(
        "cd {} && find . -path ./boot -prune -o -path ./var/cache -prune -o -path ./var/lib/apt -prune -o -print0 \
         | cpio --quiet -0 -o -H newc -R 0:0 | zstd -q -3 -T0 > {}",
        tree.display(),
        root.display()
    );
    let status = Command::new("sh").args(["-ec", &script]).status().context("pack its root")?;
    ensure!(status.success(), "its root can't be packed");
    std::fs::remove_dir_all(&tree).context("remove its tree")?;
    Ok((target, root))
}

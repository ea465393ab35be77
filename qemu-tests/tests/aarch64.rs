//! The VMM on the other architecture: a machine with EL2 in QEMU, zos-vmm in it, a VM in that.
//!
//! ```text
//!  QEMU (emulated, EL2) ─▶ Debian's kernel, KVM ─▶ zos-inside: zos-vmm ─▶ the same kernel ─▶ zos-inside
//! ```
//!
//! No image of ours takes part, and no C compiler for aarch64: pinned kernel, our programs in pure Rust.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::cpio::{Archive, Mode};
use image_builder::fetch::Fetcher;
use image_builder::project::Project;
use qemu_tests::qemu::Qemu;
use qemu_tests::serial::Serial;
use qemu_tests::slots::Slot;
use qemu_tests::{image, programs, scene};

/// The pinned kernel, by the start of its package's name.
const KERNEL: &str = "linux-image-";
/// How long two VMs may take on two busy cores; alone they take a minute.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_vm_runs_on_the_other_architecture() {
    scene("aarch64", |scene| {
        let kernel = Kernel::pinned()?;
        let inside = std::fs::read(programs::inside_arm()?).context("read zos-inside")?;
        let vmm = std::fs::read(programs::vmm_arm()?).context("read zos-vmm")?;
        let image = std::fs::read(&kernel.image).context("read the kernel")?;
        let driver = kernel.module("drivers/block/virtio_blk")?;

        let mut inner = Archive::new();
        inner.add("init", Mode::Program, &inside);
        inner.add("virtio_blk.ko", Mode::File, &driver);
        let mut outer = Archive::new();
        outer.add("init", Mode::Program, &inside);
        outer.add("zos-vmm", Mode::Program, &vmm);
        outer.add("kernel", Mode::File, &image);
        outer.add("inner.img", Mode::File, &inner.finish());
        let initramfs = scene.dir().join("outer.img");
        std::fs::write(&initramfs, outer.finish()).context("write the initramfs")?;

        let _place = Slot::take(&image::project().join("target/qemu-tests"))?;
        let serial = Serial::new(scene.dir().join("serial.log"));
        let mut machine = Machine(start(&kernel.image, &initramfs, serial.path())?);
        let ran = serial.wait("inside: done", LONG, || machine.alive());
        let ran = ran.and_then(|_| check(&serial.text()));
        ran.with_context(|| format!("the machine's last words:\n{}", serial.tail(60)))
    });
}

/// What was said of two VMs: one told to power off, one to reboot.
fn check(text: &str) -> Result<()> {
    let said = |start: &str| -> Vec<&str> {
        text.lines().filter_map(|line| Some(line.split_once(start)?.1)).collect()
    };
    let guests = said("inside: guest ");
    ensure!(guests.len() == 2, "{} of 2 guests ran", guests.len());
    for guest in guests {
        for part in ["cpus=2 ", "disk=16777216 ", "serial=inner ", "interrupts=ITS-"] {
            ensure!(guest.contains(part), "`{part}` isn't in `{guest}`");
        }
        let clock = guest.split_once("clock=").context("the guest tells no clock")?.1;
        let clock: u64 = clock.trim().parse().with_context(|| format!("the clock: {clock}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("ask the clock")?.as_secs();
        ensure!(now.abs_diff(clock) < 3600, "the guest's clock shows {clock}, ours {now}");
    }
    let ends = said("inside: vm ");
    let wanted =
        ["told=poweroff exit=Some(0) answered=true", "told=reboot exit=Some(3) answered=true"];
    ensure!(ends.len() == 2, "{} of 2 VMs ended", ends.len());
    for (end, wanted) in ends.iter().zip(wanted) {
        ensure!(end.trim() == wanted, "a VM ended with `{end}` instead of `{wanted}`");
    }
    Ok(())
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn pinned() -> Result<Self> {
        let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
        let fetcher = Fetcher::open(&project, Cache::of_user()?, false)?;
        let mut pins = fetcher.lock.package.iter().filter(|pin| pin.fits(Arch::Aarch64));
        let pin = pins.find(|pin| pin.name.starts_with(KERNEL)).context("no kernel is pinned")?;
        let tree = fetcher.tree(pin).context("unpack the kernel")?;
        let release = pin.name.trim_start_matches(KERNEL);
        let (boot, lib) = (tree.join("boot"), tree.join("lib/modules").join(release));
        Ok(Self { image: boot.join(format!("vmlinuz-{release}")), modules: lib.join("kernel") })
    }

    /// A module's bytes.
    fn module(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.modules.join(format!("{name}.ko.xz"));
        let output = Command::new("xz").arg("-dc").arg(&path).output().context("run xz")?;
        ensure!(output.status.success(), "xz can't unpack {}", path.display());
        Ok(output.stdout)
    }
}

fn start(kernel: &Path, initramfs: &Path, serial: &Path) -> Result<Child> {
    Qemu::command_arm()?
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-accel", "tcg,thread=multi", "-machine", "virt,virtualization=on,gic-version=3"])
        .args(["-cpu", "max,sve=off,pauth-impdef=on", "-smp", "2", "-m", "2048"])
        .args(["-append", "console=ttyAMA0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-serial", &format!("file:{}", serial.display())])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start QEMU")
}

/// QEMU, killed when it is dropped.
struct Machine(Child);

impl Machine {
    fn alive(&mut self) -> Result<()> {
        match self.0.try_wait().context("look after QEMU")? {
            None => Ok(()),
            Some(status) => bail!("QEMU ended: {status}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

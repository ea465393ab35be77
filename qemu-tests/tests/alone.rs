//! The VMM alone, without an image or a daemon of ours: a machine in QEMU, zos-vmm in it, VMs in that.
//!
//! ```text
//!  aarch64: QEMU with EL2 ─▶ Debian's kernel ─▶ zos-inside: zos-vmm ─▶ Debian's kernel, twice
//!  x86_64:  QEMU with SVM ─▶ the node's      ─▶ zos-inside: zos-vmm ─▶ Debian's bzImage
//!                                                                   ─▶ the guest's kernel as ELF, by PVH
//! ```
//!
//! No C compiler for aarch64 is needed: pinned kernel, our programs in pure Rust.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::cpio::{Archive, Mode};
use image_builder::fetch::Fetcher;
use image_builder::kernel::{self, Flavour};
use image_builder::project::Project;
use qemu_tests::qemu::Qemu;
use qemu_tests::serial::Serial;
use qemu_tests::slots::Slot;
use qemu_tests::{image, programs, scene};

/// The pinned kernels, by the start of their packages' names.
const KERNEL: &str = "linux-image-6";
/// How long two VMs may take on two busy cores; alone they take half a minute.
const LONG: Duration = Duration::from_secs(600);
/// What a warning of a guest's kernel must not be about, for the VMM made it: tables, buses, interrupts, CPUs, devices.
/// Others (a slow timer, a processor that lacks microcode) are true of an emulated machine.
const OURS: [&str; 16] = [
    "ACPI", "BIOS", "e820", "irmware", "CPUID", "topology", "MTRR", "APIC", "GIC", "ITS", "OF:",
    "psci", "PCI", "pci", "virtio", "uart",
];

#[test]
fn two_vms_run_on_aarch64() {
    scene("alone-aarch64", |scene| {
        let kernel = Stock::pinned(Arch::Aarch64)?;
        let image = std::fs::read(&kernel.image).context("read the kernel")?;
        let alone = Alone {
            dir: scene.dir(),
            programs: (programs::inside_arm()?, programs::vmm_arm()?),
            driver: kernel.module("drivers/block/virtio_blk")?,
            kernels: vec![("debian", image)],
            // The seventeenth vCPU begins a second group of affinity.
            vms: [("debian", 2, "poweroff", 0), ("debian", 17, "reboot", 3)],
            console: "ttyAMA0",
        };
        let mut qemu = Qemu::command_arm()?;
        qemu.args(["-machine", "virt,virtualization=on,gic-version=3"]);
        qemu.args(["-cpu", "max,sve=off,pauth-impdef=on"]).arg("-kernel").arg(&kernel.image);
        let text = alone.run(qemu)?;
        let from = |line: &str| line.contains("interrupts=ITS-");
        ensure!(
            text.lines().filter(|line| from(line)).count() == 2,
            "an interrupt isn't the ITS's"
        );
        Ok(())
    });
}

#[test]
fn a_stock_kernel_and_a_pvh_kernel_run_on_x86_64() {
    scene("alone-x86_64", |scene| {
        let debian = Stock::pinned(Arch::X86_64)?;
        let alone = Alone {
            dir: scene.dir(),
            programs: (programs::inside()?, programs::vmm()?),
            driver: debian.module("drivers/block/virtio_blk")?,
            kernels: vec![
                ("debian", std::fs::read(&debian.image).context("read the kernel")?),
                ("guest", guest_elf()?),
            ],
            vms: [("debian", 2, "poweroff", 0), ("guest", 3, "reboot", 3)],
            console: "ttyS0",
        };
        let mut qemu = Qemu::find()?.command();
        qemu.args(["-machine", "q35", "-cpu", "EPYC,+svm"]).arg("-kernel").arg(image::vmlinuz()?);
        alone.run(qemu)?;
        Ok(())
    });
}

/// A machine whose only program runs the VMM.
struct Alone<'a> {
    dir: &'a Path,
    /// `zos-inside` and `zos-vmm`.
    programs: (&'a Path, &'a Path),
    /// The stock kernel's module for disks.
    driver: Vec<u8>,
    kernels: Vec<(&'a str, Vec<u8>)>,
    /// Kernel, vCPUs, what its init does at the end, and the VMM's exit code then.
    vms: [(&'a str, u16, &'a str, i32); 2],
    console: &'a str,
}

impl Alone<'_> {
    /// Runs it to its end, checks what was said, and gives that.
    fn run(&self, mut qemu: Command) -> Result<String> {
        let initramfs = self.dir.join("outer.img");
        std::fs::write(&initramfs, self.archive()?).context("write the initramfs")?;
        let told =
            |(kernel, cpus, end, _): &(&str, u16, &str, i32)| format!("{kernel}:{cpus}:{end}");
        let vms: Vec<_> = self.vms.iter().map(told).collect();
        let words = format!("console={} panic=-1 quiet inside={}", self.console, vms.join(","));
        let serial = Serial::new(self.dir.join("serial.log"));
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-append", &words])
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-serial", &format!("file:{}", serial.path().display())])
            .stdin(Stdio::null());
        let _place = Slot::take(&image::project().join("target/qemu-tests"))?;
        let mut machine = Machine(qemu.spawn().context("start QEMU")?);
        let ran = serial.wait("inside: done", LONG, || machine.alive());
        let ran = ran.and_then(|_| self.check(&serial.text()));
        ran.with_context(|| format!("the machine's last words:\n{}", serial.tail(60)))?;
        Ok(serial.text())
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let (inside, vmm) = self.programs;
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let inside = read(inside)?;
        let mut inner = Archive::new();
        inner.add("init", Mode::Program, &inside);
        inner.add("virtio_blk.ko", Mode::File, &self.driver);
        let mut outer = Archive::new();
        outer.add("init", Mode::Program, &inside);
        outer.add("zos-vmm", Mode::Program, &read(vmm)?);
        outer.add("inner.img", Mode::File, &inner.finish());
        outer.add("kernels", Mode::Dir, &[]);
        for (name, bytes) in &self.kernels {
            outer.add(&format!("kernels/{name}"), Mode::File, bytes);
        }
        Ok(outer.finish())
    }

    fn check(&self, text: &str) -> Result<()> {
        let said = |start: &str| -> Vec<&str> {
            text.lines().filter_map(|line| Some(line.split_once(start)?.1.trim())).collect()
        };
        let guests = said("inside: guest ");
        ensure!(guests.len() == 2, "{} of 2 guests ran", guests.len());
        for (guest, (_, cpus, _, _)) in guests.iter().zip(self.vms) {
            for part in [&format!("cpus={cpus} "), "disk=16777216 ", "serial=inner "] {
                ensure!(guest.contains(part), "`{part}` isn't in `{guest}`");
            }
            let clock = guest.split_once("clock=").context("the guest tells no clock")?.1;
            let clock: u64 = clock.parse().with_context(|| format!("the clock: {clock}"))?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).context("ask the clock")?;
            let apart = now.as_secs().abs_diff(clock);
            ensure!(apart < 3600, "the guest's clock is {apart} s away from ours");
        }
        let ends = said("inside: vm ");
        ensure!(ends.len() == 2, "{} of 2 VMs ended", ends.len());
        for (end, (kernel, _, told, code)) in ends.iter().zip(self.vms) {
            let wanted = format!("kernel={kernel} told={told} exit=Some({code}) answered=true");
            ensure!(*end == wanted, "a VM ended with `{end}` instead of `{wanted}`");
        }
        let complaints = said("inside: complaint: ");
        let ours: Vec<_> = complaints
            .into_iter()
            .filter(|line| OURS.iter().any(|word| line.contains(word)))
            .collect();
        ensure!(ours.is_empty(), "kernels complain:\n{}", ours.join("\n"));
        Ok(())
    }
}

/// Debian's kernel, pinned.
struct Stock {
    image: PathBuf,
    modules: PathBuf,
}

impl Stock {
    fn pinned(arch: Arch) -> Result<Self> {
        let fetcher = fetcher()?.1;
        let mut pins = fetcher.lock.package.iter().filter(|pin| pin.fits(arch));
        let pin = pins.find(|pin| pin.name.starts_with(KERNEL)).context("no kernel is pinned")?;
        let tree = fetcher.tree(pin).context("unpack the kernel")?;
        let release = pin.name.trim_start_matches("linux-image-");
        // Where /lib is a link a package may name the folder itself.
        let folders = ["lib/modules", "usr/lib/modules"].map(|lib| tree.join(lib).join(release));
        let modules = folders.into_iter().find(|folder| folder.exists());
        Ok(Self {
            image: tree.join("boot").join(format!("vmlinuz-{release}")),
            modules: modules.context("the kernel has no modules")?.join("kernel"),
        })
    }

    /// A module's bytes.
    fn module(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.modules.join(format!("{name}.ko.xz"));
        let output = Command::new("xz").arg("-dc").arg(&path).output().context("run xz")?;
        ensure!(output.status.success(), "xz can't unpack {}", path.display());
        Ok(output.stdout)
    }
}

fn fetcher() -> Result<(Project, Fetcher)> {
    let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let fetcher = Fetcher::open(&project, Cache::of_user()?, false)?;
    Ok((project, fetcher))
}

/// The ELF inside our guest kernel's bzImage (Linux, Documentation/arch/x86/boot.rst: `payload_offset`).
fn guest_elf() -> Result<Vec<u8>> {
    let (project, fetcher) = fetcher()?;
    let built = kernel::build(&project, &fetcher, Arch::X86_64, Flavour::Guest)?;
    let image = std::fs::read(built.vmlinuz()).context("read the guest's kernel")?;
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the guest's kernel is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
    };
    let setup = 512 * (usize::from(*image.get(0x1f1).context("the kernel is cut off")?) + 1);
    let payload = image.get(setup + word(0x248)?..).context("the payload lies behind the file")?;
    let mut decoder = zstd::Decoder::new(payload).context("the payload is no zstd")?.single_frame();
    let mut elf = Vec::new();
    std::io::copy(&mut decoder, &mut elf).context("unpack the guest's kernel")?;
    Ok(elf)
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

//! Everything, in order: kernels, programs, root, initramfs, and each form that boots.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::cache::hash;
use crate::cpio::{Archive, Mode};
use crate::error::{Result, make_dir, read, write};
use crate::fetch::Fetcher;
use crate::kernel::{self, Flavour, Kernel};
use crate::manifest::{self, Manifest, Output};
use crate::progress::say;
use crate::project::Project;
use crate::root::Root;
use crate::{firmware, initramfs, layout, programs, pxe, uki, usb};

/// What to build.
#[derive(Clone, Debug)]
pub struct Order {
    /// For which machines.
    pub arch: Arch,
    /// Where results go; a folder per architecture is made in it.
    pub out: PathBuf,
    /// A folder with our programs, ready; else they are compiled.
    pub programs: Option<PathBuf>,
}

/// Builds the image; gives its folder and its manifest.
///
/// # Errors
/// The first step that fails, by name; the size gate last, with everything written.
pub fn build(project: &Project, fetcher: &Fetcher, order: &Order) -> Result<(PathBuf, Manifest)> {
    let arch = order.arch;
    let out = order.out.join(arch.name());
    make_dir(&out)?;
    let guest = kernel::build(project, fetcher, arch, Flavour::Guest)?;
    let node = kernel::build(project, fetcher, arch, Flavour::Node)?;
    let ours = programs::build(project, arch, order.programs.as_deref(), fetcher.offline())?;

    let version = env!("CARGO_PKG_VERSION");
    let mut root = Root::new();
    layout::add_ours(&mut root, project, &ours)?;
    layout::add_guest(&mut root, &guest, hello(&ours[programs::GUEST], fetcher)?)?;
    let mut foreign = layout::add_tools(&mut root, fetcher, arch)?;
    foreign.extend(firmware::add(&mut root, &project.kernel_config(), &node, fetcher, arch)?);
    layout::add_identity(&mut root, arch, version, &node)?;

    let microcode = initramfs::microcode(fetcher, arch)?;
    let initrd = initramfs::build(&root, &microcode, &fetcher.cache)?;
    let vmlinuz = read(&node.vmlinuz())?;
    let image = unified(fetcher, arch, version, &node, &vmlinuz, &initrd)?;

    say(format!("writing {}", out.display()));
    write(&out.join("vmlinuz"), &vmlinuz)?;
    write(&out.join("initramfs.img"), &initrd)?;
    let mut manifest = Manifest::new(version, arch, hash(root.manifest().as_bytes()));
    usb::write(&out.join("zos-usb.img"), arch, &image, usb::CONF)?;
    write(&out.join("zos.efi"), &image)?;
    write(&out.join("zos.conf"), usb::CONF.as_bytes())?;
    pxe::write_folder(&out.join("pxe"), fetcher, arch, &vmlinuz, &initrd)?;

    describe(&mut manifest, &out, &[guest, node], fetcher, arch)?;
    manifest.foreign = foreign;
    measure(&mut manifest, &root, &image, &microcode);
    write(&out.join("manifest.json"), manifest.text()?.as_bytes())?;
    manifest.gate()?;
    Ok((out, manifest))
}

/// The initramfs of `builtin:hello`: its PID 1 and nothing else.
fn hello(guest: &[u8], fetcher: &Fetcher) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.add("init", Mode::Program, guest);
    for dir in ["dev", "proc", "sys", "run"] {
        archive.add(dir, Mode::Dir, &[]);
    }
    initramfs::compress(&archive.finish(), &fetcher.cache)
}

fn unified(
    fetcher: &Fetcher,
    arch: Arch,
    version: &str,
    node: &Kernel,
    vmlinuz: &[u8],
    initrd: &[u8],
) -> Result<Vec<u8>> {
    let stub = read(&fetcher.package("systemd-boot-efi", arch)?.join(arch.efi_stub()))?;
    let osrel = format!("ID=zos\nNAME=ZOS\nPRETTY_NAME=\"ZOS {version}\"\nVERSION_ID={version}\n");
    let sections = [
        uki::Section { name: ".osrel", data: osrel.as_bytes() },
        uki::Section { name: ".uname", data: node.facts.release.as_bytes() },
        uki::Section { name: ".initrd", data: initrd },
        uki::Section { name: ".linux", data: vmlinuz },
    ];
    uki::append(&stub, &sections)
}

fn describe(
    manifest: &mut Manifest,
    out: &Path,
    kernels: &[Kernel],
    fetcher: &Fetcher,
    arch: Arch,
) -> Result<()> {
    let mut names: Vec<String> =
        ["vmlinuz", "initramfs.img", "zos.efi", "zos-usb.img", "zos.conf"].map(String::from).into();
    names.extend(["boot.ipxe", "autoexec.ipxe", "zos.ipxe"].map(|n| format!("pxe/{n}")));
    names.extend(arch.ipxe().iter().map(|(_, name)| format!("pxe/{name}")));
    for name in names {
        manifest.files.insert(name.clone(), Output::of(&read(&out.join(&name))?));
    }
    manifest.kernels = kernels.iter().map(|k| k.facts.clone()).collect();
    let used = fetcher.lock.package.iter().filter(|p| p.fits(arch) && p.purpose.is_in_image());
    manifest.inputs = used.cloned().collect();
    Ok(())
}

fn measure(manifest: &mut Manifest, root: &Root, uki: &[u8], microcode: &[u8]) {
    let firmware: u64 = root
        .files()
        .filter(|(path, _)| path.starts_with("lib/firmware/"))
        .map(|(_, f)| f.data.len() as u64)
        .sum();
    let programs =
        root.files().filter(|(path, _)| path.starts_with("bin/") || *path == "init").count() as u64;
    manifest.measure("root", root.size(), manifest::ROOT_LIMIT);
    manifest.measure("zos.efi", uki.len() as u64, manifest::UKI_LIMIT);
    // Firmware is compressed in the image, so this counts a little too much away; the limit bears it.
    let bare = (uki.len() as u64).saturating_sub(microcode.len() as u64).saturating_sub(firmware);
    manifest.measure("zos.efi without blobs", bare, manifest::UKI_BARE_LIMIT);
    manifest.measure("programs", programs, manifest::PROGRAMS_LIMIT);
}

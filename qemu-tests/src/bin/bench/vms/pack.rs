//! The image with what the bench brings: the guests' initramfs, QEMU with its libraries, `ip`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use image_builder::arch::Arch;
use image_builder::cpio::{Archive, Mode, entries};
use image_builder::{elf, initramfs};
use qemu_tests::peers::Peers;
use qemu_tests::{image, programs};

pub(crate) const KERNEL: &str = "/usr/share/zos/guest/vmlinuz";
pub(crate) const INITRAMFS: &str = "/bench/init.img";

/// QEMU in the node.
#[derive(Debug)]
pub(crate) struct Qemu {
    /// What starts it.
    pub words: Vec<String>,
    /// Program, libraries and firmware.
    pub bytes: u64,
}

/// Writes the image; gives QEMU, and the size of our VMM.
pub(crate) fn pack(target: &Path, peers: &Peers) -> Result<(Qemu, u64)> {
    let found = qemu_tests::qemu::Qemu::find()?;
    let mut guest = Archive::new();
    let init = std::fs::read(programs::probe()?).context("read the guest's init")?;
    guest.add("init", Mode::Program, &init);
    for dir in ["dev", "proc", "run", "sys"] {
        guest.add(dir, Mode::Dir, &[]);
    }
    let peers = peers.files()?;
    for (path, mode, bytes) in &peers {
        guest.add(path, *mode, bytes);
    }
    let mut files = vec![
        ("bench".to_owned(), Mode::Dir, Vec::new()),
        (INITRAMFS[1..].to_owned(), Mode::File, guest.finish()),
    ];
    let mut bytes = 0;
    let mut add = |path: &Path| -> Result<String> {
        let name = path.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
        let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        bytes += content.len() as u64;
        files.push((format!("bench/{name}"), Mode::Program, content));
        Ok(format!("/bench/{name}"))
    };
    let tree = found.tree.clone().unwrap_or_else(|| PathBuf::from("/"));
    let program = tree.join("usr/bin/qemu-system-x86_64");
    let libraries =
        elf::closure(std::slice::from_ref(&program), std::slice::from_ref(&tree), Arch::X86_64)
            .context("find QEMU's libraries")?;
    let mut loader = String::new();
    for library in &libraries {
        let place = add(&library.source)?;
        if place.contains("/ld-linux") {
            loader = place;
        }
    }
    let program = add(&program)?;
    for firmware in ["qboot.rom", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin"] {
        add(&tree.join("usr/share/qemu").join(firmware))?;
    }
    add(&tree.join("usr/share/seabios/bios-256k.bin"))?;
    files.extend(peers);
    image::extend_initramfs(&image::initramfs()?, &files, target)?;
    let words = vec![loader, "--library-path".into(), "/bench".into(), program];
    Ok((Qemu { words, bytes }, own_size()?))
}

fn own_size() -> Result<u64> {
    let image = std::fs::read(image::initramfs()?).context("read the initramfs")?;
    for archive in initramfs::archives(&image)? {
        for (path, _, data) in entries(&archive).context("read an archive of the initramfs")? {
            if path == "bin/zos-vmm" {
                return Ok(data.len() as u64);
            }
        }
    }
    anyhow::bail!("the image has no zos-vmm")
}

//! The image with what the bench brings: the guests' initramfs, QEMU with its libraries, `ip`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use image_builder::arch::Arch;
use image_builder::cpio::{Archive, Mode, entries};
use image_builder::{elf, initramfs};
use qemu_tests::peers::Peers;
use qemu_tests::{image, programs};

pub(crate) const KERNEL: &str = "/usr/share/zos/guest/vmlinuz";
/// The same kernel without the program that unpacks it: what an ELF boot starts.
pub(crate) const UNPACKED: &str = "/bench/vmlinux";
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
        (UNPACKED[1..].to_owned(), Mode::File, unpack(&of_image(&KERNEL[1..])?)?),
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
    Ok((Qemu { words, bytes }, of_image("bin/zos-vmm")?.len() as u64))
}

/// The ELF file inside a bzImage that zstd packed (Documentation/arch/x86/boot.rst: `payload_offset` counts from the
/// protected-mode part; the payload ends with its size, 4 bytes that aren't zstd's).
fn unpack(kernel: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = kernel.get(at..at + 4).context("a kernel's header")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let setup = usize::from(*kernel.get(0x1f1).context("a kernel's header")?);
    let start = (setup + 1) * 512 + word(0x248)?;
    let end = (start + word(0x24c)?).checked_sub(4).context("an empty payload")?;
    let payload = kernel.get(start..end).context("a payload inside the kernel")?;
    let mut file = tempfile::NamedTempFile::new().context("make a temporary file")?;
    std::io::Write::write_all(&mut file, payload).context("write the payload")?;
    let output = Command::new("zstd").args(["-q", "-d", "-c"]).arg(file.path()).output();
    let output = output.context("run zstd")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.stdout.starts_with(b"\x7fELF"), "the payload is no ELF file: {said}");
    Ok(output.stdout)
}

/// A file of the image.
fn of_image(name: &str) -> Result<Vec<u8>> {
    let image = std::fs::read(image::initramfs()?).context("read the initramfs")?;
    for archive in initramfs::archives(&image)? {
        for (path, _, data) in entries(&archive).context("read an archive of the initramfs")? {
            if path == name {
                return Ok(data.to_vec());
            }
        }
    }
    anyhow::bail!("the image has no {name}")
}

//! One file for the boot loader: microcode as it is, then the two archives of the root, each compressed.
//!
//! ```text
//!  ┌ cpio, not compressed ┬ zstd(cpio: init, manifest, ours) ┬ zstd(cpio: base) ┐
//!  │ kernel/x86/microcode │                                  │                  │
//!  └──────────────────────┴──────────────────────────────────┴──────────────────┘
//! ```
//!
//! The kernel searches the uncompressed front before it has a file system, and unpacks the rest one after another.

use std::path::Path;

use crate::arch::Arch;
use crate::cache::{Cache, hash, hash_fields};
use crate::cpio::{Archive, Mode};
use crate::error::{Error, Result, make_dir, read, write};
use crate::fetch::Fetcher;
use crate::progress::{say, size};
use crate::root::Root;

/// 19 is the highest level whose window (8 MiB) a small machine can bear while it unpacks.
const LEVEL: i32 = 19;

/// The initramfs of a root.
///
/// # Errors
/// As [`Root::archives`] and [`compress`].
pub fn build(root: &Root, microcode: &[u8], cache: &Cache) -> Result<Vec<u8>> {
    let mut image = microcode.to_vec();
    for archive in root.archives()? {
        image.extend_from_slice(&compress(&archive, cache)?);
        image.resize(image.len().next_multiple_of(4), 0);
    }
    Ok(image)
}

/// The archives of an initramfs that [`build`] made, unpacked; the microcode, which the kernel keeps out of the root, is
/// left out.
///
/// # Errors
/// It isn't one.
pub fn archives(image: &[u8]) -> Result<Vec<Vec<u8>>> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let failed = |e: std::io::Error| Error::form("initramfs", e.to_string());
    let starts = image.chunks_exact(4).position(|word| word == MAGIC);
    let mut rest = starts.map_or(&[][..], |at| &image[4 * at..]);
    let mut found = Vec::new();
    while rest.starts_with(&MAGIC) {
        let size = zstd::zstd_safe::find_frame_compressed_size(rest)
            .map_err(|_| Error::form("initramfs", "an archive is cut off"))?;
        found.push(zstd::decode_all(&rest[..size]).map_err(failed)?);
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// zstd, taken from the cache when the same bytes were compressed before.
///
/// # Errors
/// The cache can't be read or written.
pub fn compress(data: &[u8], cache: &Cache) -> Result<Vec<u8>> {
    let version = zstd::zstd_safe::version_string();
    let key = hash_fields(&[hash(data).as_bytes(), &LEVEL.to_le_bytes(), version.as_bytes()]);
    let place = cache.segment(&key);
    if let Ok(done) = std::fs::read(&place) {
        cache.touch(&place);
        return Ok(done);
    }
    say(format!("compressing {}", size(data.len() as u64)));
    let done = pack(data)?;
    make_dir(place.parent().unwrap_or(cache.root()))?;
    write(&place, &done)?;
    Ok(done)
}

/// zstd with a checksum, so that a damaged image is noticed while it is unpacked.
fn pack(data: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::form("zstd", e.to_string());
    let mut packer = zstd::bulk::Compressor::new(LEVEL).map_err(failed)?;
    packer.include_checksum(true).map_err(failed)?;
    packer.include_contentsize(true).map_err(failed)?;
    packer.compress(data).map_err(failed)
}

/// The early archive with CPU microcode; empty where the architecture has none.
///
/// # Errors
/// A package that can't be had, or that holds no microcode.
pub fn microcode(fetcher: &Fetcher, arch: Arch) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let kinds = arch.microcode();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    for dir in ["kernel", "kernel/x86", "kernel/x86/microcode"] {
        archive.add(dir, Mode::Dir, &[]);
    }
    for (target, package, dir) in kinds {
        let blob = concatenate(&fetcher.package(package, arch)?.join(dir))?;
        archive.add(target, Mode::File, &blob);
    }
    Ok(archive.finish())
}

/// All blobs of a folder in the order of their names, each content once: packages carry one file under the name of
/// each CPU that it serves, and the kernel matches by the headers inside.
fn concatenate(dir: &Path) -> Result<Vec<u8>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("read", dir))?;
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    paths.sort();
    let mut seen = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    for path in paths {
        let blob = read(&path)?;
        if seen.insert(hash(&blob)) {
            all.extend_from_slice(&blob);
            // Each container is aligned; the kernel walks from one to the next.
            all.resize(all.len().next_multiple_of(16), 0);
        }
    }
    if all.is_empty() {
        Err(Error::form(dir.display().to_string(), "holds no microcode"))
    } else {
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::entries;
    use crate::root::Part;

    #[test]
    fn both_parts_unpack_and_bytes_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("a"));
        let mut root = Root::new();
        root.add("init", Mode::Program, Part::Ours, vec![7; 5000]).unwrap();
        root.add("bin/nft", Mode::Program, Part::Base, vec![8; 5000]).unwrap();
        let image = build(&root, &[], &cache).unwrap();
        let other = Cache::at(dir.path().join("b"));
        assert_eq!(image, build(&root, &[], &other).unwrap(), "a cold cache gives the same bytes");
        assert_eq!(image, build(&root, &[], &cache).unwrap(), "a warm one too");

        let size = zstd::zstd_safe::find_frame_compressed_size(&image).unwrap();
        let ours = zstd::decode_all(&image[..size]).unwrap();
        assert_eq!(entries(&ours).unwrap()[0].0, "init");
        let rest = &image[size.next_multiple_of(4)..];
        let size = zstd::zstd_safe::find_frame_compressed_size(rest).unwrap();
        let base = zstd::decode_all(&rest[..size]).unwrap();
        assert_eq!(entries(&base).unwrap()[0].0, "bin/nft");
    }

    #[test]
    fn microcode_holds_each_blob_once() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("b", &[1u8; 16]), ("a", &[2; 16]), ("c", &[1; 16])] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let mut wanted = vec![2u8; 16];
        wanted.extend([1; 16]);
        assert_eq!(concatenate(dir.path()).unwrap(), wanted);
    }
}

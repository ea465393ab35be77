//! Is the root whole? A tmpfs that was too small cuts an initramfs short without a word; a bit
//! may have flipped on the way here. Each file is compared with the manifest before anything of it is run.
//!
//! ```text
//!  <sha256, hex>  <size>  <mode, octal>  <path>      a file
//!  link <target>  <path>                             a symbolic link
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use zos_host::{Context, Error, Result};

use super::Boot;

const MANIFEST: &str = "/manifest";
/// More threads than this don't help: memory is read faster than hashed.
const THREADS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File { sha256: String, size: u64, mode: u32, path: String },
    Link { target: String, path: String },
}

pub(super) fn check(boot: &mut Boot) -> Result<()> {
    let text = fs::read(MANIFEST).during("read", MANIFEST)?;
    boot.image = hex(&Sha256::digest(&text));
    let text = String::from_utf8_lossy(&text);
    let entries: Vec<Entry> = text
        .lines()
        .map(|line| parse(line).ok_or_else(|| Error::invalid("parse", MANIFEST, line)))
        .collect::<Result<_>>()?;
    boot.corrupt = compare(Path::new("/"), &entries);
    for (path, what) in boot.corrupt.clone() {
        let advice = "the image did not arrive whole: give the machine more memory if it has less \
                      than 1 GiB, else fetch or write the image again";
        boot.fault("image-corrupt", &format!("{path} {what}; {advice}"));
    }
    Ok(())
}

fn parse(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split("  ").collect();
    match *fields.as_slice() {
        [link, path] => {
            let target = link.strip_prefix("link ")?.to_owned();
            Some(Entry::Link { target, path: absolute(path)? })
        }
        [sha256, size, mode, path] if sha256.len() == 64 => Some(Entry::File {
            sha256: sha256.to_owned(),
            size: size.parse().ok()?,
            mode: u32::from_str_radix(mode, 8).ok()?,
            path: absolute(path)?,
        }),
        _ => None,
    }
}

fn absolute(path: &str) -> Option<String> {
    path.starts_with('/').then(|| path.to_owned())
}

/// What is wrong, by path. Several threads hash; the largest files come first, so that none is left to the end.
fn compare(root: &Path, entries: &[Entry]) -> BTreeMap<String, String> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|entry| match entry {
        Entry::File { size, .. } => std::cmp::Reverse(*size),
        Entry::Link { .. } => std::cmp::Reverse(0),
    });
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(entry) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (Entry::File { path, .. } | Entry::Link { path, .. }) = entry;
            if let Some(what) = one(root, entry) {
                wrong.push((path.clone(), what));
            }
        }
        wrong
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .filter_map(|_| {
                std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, work).ok()
            })
            .collect();
        let mut wrong: BTreeMap<String, String> = work().into_iter().collect();
        for helper in helpers {
            wrong.extend(helper.join().unwrap_or_default());
        }
        wrong
    })
}

/// What is wrong with one file, if anything.
fn one(root: &Path, entry: &Entry) -> Option<String> {
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    match entry {
        Entry::Link { target, path } => match fs::read_link(place(path)) {
            Ok(found) if found == Path::new(target) => None,
            Ok(found) => Some(format!("points to {} instead of {target}", found.display())),
            Err(error) => Some(missing(&error)),
        },
        Entry::File { sha256, size, mode, path } => {
            let path = place(path);
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) => return Some(missing(&error)),
            };
            if !found.is_file() {
                return Some("is not a file".to_owned());
            }
            if found.len() != *size {
                return Some(format!("has {} bytes instead of {size}", found.len()));
            }
            if found.mode() & 0o7777 != *mode {
                return Some(format!("has mode {:o} instead of {mode:o}", found.mode() & 0o7777));
            }
            match hash(&path) {
                Ok(found) if found == *sha256 => None,
                Ok(_) => Some("is corrupt (its SHA-256 differs)".to_owned()),
                Err(error) => Some(format!("can't be read: {error}")),
            }
        }
    }
}

fn missing(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "is missing".to_owned(),
        _ => format!("can't be examined: {error}"),
    }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn lines() {
        let good = format!("{HELLO}  5  0755  /bin/a b");
        assert!(matches!(parse(&good), Some(Entry::File { size: 5, mode: 0o755, .. })));
        assert!(matches!(parse("link ../x  /lib/y"), Some(Entry::Link { .. })));
        for bad in [
            "",
            "abc  5  755  /x",
            "link x",
            &good.replace("/bin", "bin"),
            &good.replace("  5", "  -5"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(dir.path().join(name), text).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good", "hello", 0o644);
        write("short", "hell", 0o644);
        write("flipped", "hellp", 0o644);
        write("mode", "hello", 0o600);
        symlink("good", dir.path().join("link")).unwrap();
        symlink("bad", dir.path().join("astray")).unwrap();
        let mut text: String = ["good", "short", "flipped", "mode", "gone"]
            .iter()
            .map(|name| format!("{HELLO}  5  0644  /{name}\n"))
            .collect();
        text += "link good  /link\nlink good  /astray\n";
        let entries: Vec<Entry> = text.lines().map(|line| parse(line).unwrap()).collect();
        let wrong = compare(dir.path(), &entries);
        let wrong: Vec<(&str, &str)> =
            wrong.iter().map(|(p, w)| (p.as_str(), w.as_str())).collect();
        assert_eq!(
            wrong,
            [
                ("/astray", "points to bad instead of good"),
                ("/flipped", "is corrupt (its SHA-256 differs)"),
                ("/gone", "is missing"),
                ("/mode", "has mode 600 instead of 644"),
                ("/short", "has 4 bytes instead of 5"),
            ]
        );
    }
}

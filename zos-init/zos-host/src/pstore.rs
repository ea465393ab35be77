//! What survives a kernel: records of pstore, and a line to the next boot
//! (Documentation/admin-guide/pstore-blk.rst, ramoops.rst).
//!
//! ```text
//!  /sys/fs/pstore/dmesg-ramoops-0            `Panic#1 Part1` and the last kernel lines
//!                 dmesg-efi_pstore-17320...  the same in pieces: NVRAM takes a kilobyte at a time
//!                 console-ramoops-0          all that the console showed
//!                 pmsg-ramoops-0             what was written to /dev/pmsg0 before
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::SysRoot;
use crate::error::{Context, Result};

const FOLDER: &str = "/sys/fs/pstore";
const MESSAGES: &str = "/dev/pmsg0";

/// A kernel's last words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The record's name: `dmesg-ramoops-0`; of several pieces the first one's.
    pub name: String,
    /// What happened and the lines before it; the newest `limit` bytes.
    pub text: String,
}

/// A record's file and how it begins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    part: u32,
    name: String,
    text: String,
}

/// Crashes (panics and oopses) that are kept, at most `most` of at most `limit` bytes each, by name; of a large
/// one its end.
pub fn crashes(root: &SysRoot, most: usize, limit: usize) -> Result<Vec<Crash>> {
    // Pieces of one crash have its backend, kind and count in common.
    let mut found: BTreeMap<(String, String), Vec<Piece>> = BTreeMap::new();
    for name in records(root)? {
        // One that can't be read tells nothing; the others do.
        let Ok(text) = read(root, &name, limit) else { continue };
        let Some((kind, part)) = header(&text) else { continue };
        let backend = name.split('-').nth(1).unwrap_or_default();
        let key = (backend.to_owned(), kind.to_owned());
        found.entry(key).or_default().push(Piece { part, name, text });
    }
    let mut crashes: Vec<Crash> = found.into_values().map(|pieces| whole(pieces, limit)).collect();
    crashes.sort_by(|a, b| a.name.cmp(&b.name));
    crashes.truncate(most);
    Ok(crashes)
}

/// What was written to `/dev/pmsg0` before the machine started anew, as far as its memory kept it; the newest `limit`
/// bytes.
#[must_use]
pub fn messages(root: &SysRoot, limit: usize) -> Option<String> {
    first(root, "pmsg-", limit)
}

/// What the console showed before the machine started anew, as far as its memory kept it; the newest `limit` bytes.
#[must_use]
pub fn console(root: &SysRoot, limit: usize) -> Option<String> {
    first(root, "console-", limit)
}

fn first(root: &SysRoot, prefix: &str, limit: usize) -> Option<String> {
    let names = records(root).ok()?;
    let name = names.iter().find(|name| name.starts_with(prefix))?;
    read(root, name, limit).ok()
}

/// Removes the records of crashes, so that their place is free and the next boot doesn't find them again. What
/// consoles and messages were is overwritten by itself.
pub fn clear_crashes(root: &SysRoot) -> Result<()> {
    for name in records(root)?.iter().filter(|name| name.starts_with("dmesg-")) {
        let path = path(root, name);
        fs::remove_file(&path).during("remove", path.display())?;
    }
    Ok(())
}

/// The way to leave messages for the next boot.
#[derive(Debug)]
pub struct Messages {
    file: File,
}

impl Messages {
    /// Opens it; an error where the machine keeps none.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().write(true).open(MESSAGES).during("open", MESSAGES)?;
        Ok(Self { file })
    }

    /// Leaves a line.
    pub fn write(&self, line: &str) -> Result<()> {
        // In one write, which the kernel keeps whole.
        (&self.file).write_all(format!("{line}\n").as_bytes()).during("write", MESSAGES)
    }
}

fn records(root: &SysRoot) -> Result<Vec<String>> {
    root.list(FOLDER)
}

fn path(root: &SysRoot, name: &str) -> PathBuf {
    root.path(FOLDER).join(name)
}

/// The end of a record, at most `limit` bytes, with its first line before it.
fn read(root: &SysRoot, name: &str, limit: usize) -> Result<String> {
    let path = path(root, name);
    let file = File::open(&path).during("open", path.display())?;
    let mut bytes = Vec::new();
    // No backend keeps records of more than this.
    file.take(1 << 20).read_to_end(&mut bytes).during("read", path.display())?;
    Ok(end(&String::from_utf8_lossy(&bytes), limit))
}

/// `Panic#2 Part1` as what it is of and its part; nothing for other records (a shutdown's log, a compressed one).
fn header(text: &str) -> Option<(&str, u32)> {
    let line = text.lines().next()?;
    let (kind, part) = line.split_once(" Part")?;
    let crash = kind.starts_with("Panic#") || kind.starts_with("Oops#");
    crash.then(|| (kind, part.trim().parse().unwrap_or(1)))
}

/// Pieces put together: the kernel cuts its log from the end, so the last part is the oldest.
fn whole(mut pieces: Vec<Piece>, limit: usize) -> Crash {
    pieces.sort();
    let name = pieces[0].name.clone();
    if let [piece] = pieces.as_slice() {
        return Crash { name, text: piece.text.clone() };
    }
    let head = header(&pieces[0].text).map_or("", |(kind, _)| kind).to_owned();
    let mut text = format!("{head}\n");
    for piece in pieces.iter().rev() {
        text.push_str(piece.text.split_once('\n').map_or("", |(_, rest)| rest));
    }
    Crash { name, text: end(&text, limit) }
}

/// A text's first line and its end, together at most `limit` bytes.
fn end(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let (first, rest) = text.split_once('\n').unwrap_or(("", text));
    let head = if first.len() < limit / 2 { format!("{first}\n") } else { String::new() };
    let mut from = rest.len().saturating_sub(limit - head.len());
    while !rest.is_char_boundary(from) {
        from += 1;
    }
    head + &rest[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, SysRoot) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sys/fs/pstore");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let root = SysRoot::at(dir.path());
        (dir, root)
    }

    #[test]
    fn only_crashes_are_crashes() {
        for (name, text, expect) in [
            ("dmesg-ramoops-0", "Panic#1 Part1\nlast words\n", Some("Panic#1 Part1\nlast words\n")),
            ("dmesg-ramoops-1", "Oops#1 Part1\nbad\n", Some("Oops#1 Part1\nbad\n")),
            ("dmesg-ramoops-0", "Emergency#1 Part1\nrestart\n", None),
            ("dmesg-ramoops-0", "", None),
            ("console-ramoops-0", "Panic said somebody\n", None),
            ("pmsg-ramoops-0", "run 1\nend reboot\n", None),
        ] {
            let (_dir, root) = machine(&[(name, text)]);
            let found = crashes(&root, 8, 1000).unwrap();
            assert_eq!(found.first().map(|crash| crash.text.as_str()), expect, "{name} {text}");
        }
    }

    #[test]
    fn pieces_become_one_the_oldest_first() {
        let (_dir, root) = machine(&[
            ("dmesg-efi_pstore-17003", "Panic#2 Part3\na\n"),
            ("dmesg-efi_pstore-17002", "Panic#2 Part2\nb\n"),
            ("dmesg-efi_pstore-17001", "Panic#2 Part1\nc\n"),
            ("dmesg-efi_pstore-16001", "Oops#1 Part1\no\n"),
        ]);
        let found = crashes(&root, 8, 1000).unwrap();
        let texts: Vec<(&str, &str)> =
            found.iter().map(|crash| (crash.name.as_str(), crash.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                ("dmesg-efi_pstore-16001", "Oops#1 Part1\no\n"),
                ("dmesg-efi_pstore-17001", "Panic#2\na\nb\nc\n"),
            ]
        );
    }

    #[test]
    fn number_and_size_are_bounded_and_the_end_is_kept() {
        let long = format!("Panic#1 Part1\n{}the end\n", "é".repeat(600));
        let names: Vec<String> = (0..5).map(|n| format!("dmesg-r{n}-0")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), &*long)).collect();
        let (_dir, root) = machine(&files);
        let found = crashes(&root, 3, 100).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|crash| crash.text.len() <= 100
            && crash.text.starts_with("Panic#1 Part1\né")
            && crash.text.ends_with("the end\n")));
    }

    #[test]
    fn messages_are_read_and_only_crashes_are_cleared() {
        let (_dir, root) =
            machine(&[("pmsg-ramoops-0", "run 1\n"), ("dmesg-ramoops-0", "Panic#1 Part1\n")]);
        assert_eq!(messages(&root, 100).as_deref(), Some("run 1\n"));
        clear_crashes(&root).unwrap();
        assert_eq!(root.list(FOLDER).unwrap(), ["pmsg-ramoops-0"]);
        assert_eq!(messages(&SysRoot::at("/nowhere"), 100), None);
        assert!(crashes(&SysRoot::at("/nowhere"), 8, 100).unwrap().is_empty());
    }
}

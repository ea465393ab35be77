//! Rot at which redb panics: found by a search, and outlived where a panic ends the program.
//!
//! ```text
//!  a byte, a sector, a page rots ─▶ look ─▶ whole: all is there, and can be written
//!                                       └─▶ unreadable, told or by a panic: the other copy mends it
//!
//!  a process that a panic ends ─▶ dies ─▶ dies ─▶ mends it
//! ```

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::file::look;
use super::*;

/// Bytes of the store that [`fill`] makes, and what is flipped in them, at which redb 4.5 panics without debug
/// assertions too, one for each of its lines that the search found.
const DEADLY: [(usize, u8); 14] = [
    (12_288, 0x01),
    (12_290, 0x02),
    (12_294, 0x02),
    (12_613, 0xd0),
    (16_384, 0x01),
    (16_388, 0x01),
    (16_394, 0x02),
    (24_579, 0x02),
    (57_347, 0x80),
    (57_358, 0x02),
    (57_360, 0x01),
    (57_360, 0x80),
    (57_365, 0x01),
    (57_525, 0xad),
];

/// Where the child finds its folders.
const FOLDERS: &str = "ZOS_TEST_FOLDERS";

/// How often the search lets it rot.
const ROT: &str = "ZOS_ROT";

/// The same bytes each time: branches, leaves, what was deleted, a second table.
fn fill(folder: &Path) -> PathBuf {
    let store = Store::open(folder, "test", &[]).unwrap();
    for round in 0..3u32 {
        let rows = |w: &mut Write| {
            (0..120u32)
                .try_for_each(|i| w.put("rows", &format!("{i:04}"), &(i * round, "x".repeat(60))))
        };
        store.write(rows).unwrap();
        store.write(|w| w.put("single", "a", &round)).unwrap();
    }
    store.write(|w| (30..60u32).try_for_each(|i| w.delete("rows", &format!("{i:04}")))).unwrap();
    folder.join("test.redb")
}

/// Two folders with the store in both, and no one to tell.
struct Pair {
    root: tempfile::TempDir,
    clean: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["p", "q"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let clean = fs::read(fill(&root.path().join("p"))).unwrap();
        let pair = Self { root, clean };
        pair.reset();
        pair
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at(name).join("test.redb")
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.at(name).join("test.redb.opening")
    }

    /// Both as they were made.
    fn reset(&self) {
        for name in ["p", "q"] {
            fs::remove_dir_all(self.at(name)).unwrap();
            fs::create_dir(self.at(name)).unwrap();
            fs::write(self.file(name), &self.clean).unwrap();
        }
    }

    /// Flips bits of a byte; what the file is then.
    fn rot(&self, name: &str, (at, bits): (usize, u8)) -> Vec<u8> {
        let mut rotten = self.clean.clone();
        rotten[at] ^= bits;
        fs::write(self.file(name), &rotten).unwrap();
        rotten
    }

    /// A process that opens the store in these folders, and that a panic ends.
    fn child(&self, names: &[&str]) -> Output {
        let folders: Vec<_> = names.iter().map(|name| self.at(name)).collect();
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::rot_tests::child", "--nocapture"])
            .env(FOLDERS, std::env::join_paths(folders).unwrap())
            .output()
            .unwrap()
    }

    fn dies(&self, names: &[&str]) {
        let child = self.child(names);
        assert_eq!(child.status.signal(), Some(6), "{}", said(&child));
    }

    fn lives(&self, names: &[&str], word: &str) {
        let child = self.child(names);
        assert!(child.status.success(), "{}", said(&child));
        assert!(said(&child).contains(word), "{}", said(&child));
    }
}

fn said(child: &Output) -> String {
    let text = [&child.stdout[..], &child.stderr[..]].concat();
    format!("{}: {}", child.status, String::from_utf8_lossy(&text))
}

fn copies(folders: impl Iterator<Item = PathBuf>) -> Copies {
    let place = |folder: PathBuf| {
        let pool = folder.display().to_string();
        Place { coming: "1".into(), folder, current: true, pool }
    };
    Copies { places: folders.map(place).collect(), ..Copies::from(Path::new("")) }
}

/// Whether all that [`fill`] wrote is there.
fn is_filled(store: &Store) -> bool {
    let rows: Vec<(String, (u32, String))> = store.list("rows").unwrap();
    let right = rows
        .iter()
        .all(|(key, (n, text))| key.parse::<u32>().is_ok_and(|i| *n == i * 2) && text.len() == 60);
    right && rows.len() == 90 && store.get::<u32>("single", "a").unwrap() == Some(2)
}

/// The process that the tests below start: a panic ends it, as it ends a daemon of the image.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let folders = std::env::var_os(FOLDERS).unwrap();
    match Store::open(copies(std::env::split_paths(&folders)), "test", &[]) {
        Ok(store) => println!("filled: {}, mended: {:?}", is_filled(&store), store.repaired()),
        Err(error) => println!("{}", CallError::failed(&error)),
    }
}

#[test]
fn rot_that_ends_a_process_twice_is_mended_by_the_third() {
    let pair = Pair::new();
    for (rotten, deadly) in DEADLY.into_iter().zip(["p", "q"].into_iter().cycle()) {
        pair.reset();
        let bytes = pair.rot(deadly, rotten);
        for deaths in 1..=2 {
            pair.dies(&["p", "q"]);
            let mark = fs::read_to_string(pair.mark(deadly)).unwrap();
            assert!(mark.ends_with(&format!(" {deaths}\n")), "{mark}");
            assert_eq!(fs::read(pair.file(deadly)).unwrap(), bytes, "nothing is touched");
        }
        pair.lives(&["p", "q"], "filled: true, mended: [\"");
        let aside = pair.at(deadly).join("test.redb.unreadable-1");
        assert_eq!(fs::read(aside).unwrap(), bytes, "it is kept");
        for name in ["p", "q"] {
            assert!(!pair.mark(name).exists());
            pair.lives(&[name], "filled: true, mended: []");
        }
    }
}

#[test]
fn rot_without_another_copy_is_left_and_told() {
    let pair = Pair::new();
    // Alone, and with another that is as rotten.
    for names in [&["p"][..], &["p", "q"]] {
        pair.reset();
        let bytes = pair.rot("p", DEADLY[0]);
        pair.rot("q", DEADLY[0]);
        names.iter().for_each(|_| {
            pair.dies(names);
            pair.dies(names);
        });
        for _ in 0..3 {
            pair.lives(names, "died 2 times in this boot while it read the file");
        }
        for name in names {
            assert_eq!(fs::read(pair.file(name)).unwrap(), bytes);
            assert_eq!(fs::read_dir(pair.at(name)).unwrap().count(), 2, "it and its mark");
        }
        // Another boot reads it again: what ended its readers may have been something else.
        let mark = fs::read_to_string(pair.mark("p")).unwrap();
        let (_, rest) = mark.split_once(' ').unwrap();
        let other = "0b4a7b5e-52ac-4a4f-b3a8-1d6b0c5a0c11";
        fs::write(pair.mark("p"), format!("{other} {rest}")).unwrap();
        pair.dies(names);
        // And so it does when somebody has put a sound one there.
        pair.dies(names);
        pair.lives(names, "died 2 times");
        fs::write(pair.at("p").join("saved"), &pair.clean).unwrap();
        fs::rename(pair.at("p").join("saved"), pair.file("p")).unwrap();
        pair.lives(names, "filled: true");
    }
}

#[test]
fn processes_that_were_killed_while_they_looked_cost_nothing() {
    let pair = Pair::new();
    // Twice, so that it counts: with another copy it is renewed.
    for _ in 0..2 {
        std::mem::forget(opening::Opening::begin(&pair.file("p")).unwrap());
    }
    pair.lives(&["p", "q"], "filled: true, mended: [\"");
    pair.lives(&["p", "q"], "filled: true, mended: []");
    assert!(!pair.mark("p").exists());
    // Once is nothing.
    std::mem::forget(opening::Opening::begin(&pair.file("p")).unwrap());
    pair.lives(&["p"], "filled: true, mended: []");
    assert!(!pair.mark("p").exists());
}

/// The rule must not rest on what redb does; that its panics are real is what the tests above need.
#[test]
fn what_is_deadly_makes_redb_panic() {
    let pair = Pair::new();
    for rot in DEADLY {
        pair.rot("p", rot);
        let opened = catch_unwind(|| redb::Database::open(pair.file("p")).map(drop));
        assert!(opened.is_err(), "{rot:?}: {opened:?}");
    }
}

/// `ZOS_ROT=100000 cargo test -p zos-daemon rot_is_told -- --nocapture` goes further.
#[test]
fn rot_is_told_or_loses_nothing() {
    let times = std::env::var(ROT).map_or(500, |times| times.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = fill(folder.path());
    let closed = fs::read(&file).unwrap();
    // As a program leaves it that ends without closing it.
    let store = Store::open(folder.path(), "test", &[]).unwrap();
    store.write(|w| w.put("single", "a", &2)).unwrap();
    let open = fs::read(&file).unwrap();
    // With leaves of several pages.
    let large = |w: &mut Write| {
        (0..12).try_for_each(|i| w.put("large", &format!("{i:04}"), &"y".repeat(1000 * i)))
    };
    store.write(large).unwrap();
    drop(store);
    let large = fs::read(&file).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // xorshift64 (Marsaglia 2003): the same order each time
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let (mut whole, mut unreadable) = (0, 0);
    for time in 0..times {
        let clean = [&closed, &open, &large][time % 3];
        let mut rotten = clean.clone();
        let page = draw(clean.len() / 4096) * 4096;
        let what = match draw(8) {
            0 => {
                let at = page + draw(8) * 512;
                rotten[at..at + 512].fill(0);
                format!("{at}: a sector is zeros")
            }
            1 => {
                let from = draw(clean.len() / 4096) * 4096;
                rotten.copy_within(from..from + 4096, page);
                format!("{page}: the page of {from}")
            }
            // Half of them where a page says what it is.
            how => {
                let at = page + draw(if how % 2 == 0 { 32 } else { 4096 });
                let bits = u8::try_from(draw(255) + 1).unwrap();
                rotten[at] ^= bits;
                format!("{at}: ^{bits:#x}")
            }
        };
        fs::write(&file, rotten).unwrap();
        let looked = look(folder.path(), "test").unwrap();
        let Some(kept) = looked.file else {
            assert_eq!(looked.found, Found::Unreadable, "{what}");
            unreadable += 1;
            continue;
        };
        whole += 1;
        // What was looked at is read and written without a panic, and is what was written.
        let used = catch_unwind(AssertUnwindSafe(|| {
            let rows = kept.list("rows").unwrap();
            kept.list("large").unwrap();
            let single = kept.get("single", "a").unwrap();
            let op = |i| Op {
                table: "rows".into(),
                key: format!("{i:04}"),
                value: Some(vec![b'1'; 70]),
            };
            let ops: Vec<Op> = (0..120).map(op).collect();
            kept.apply(&ops, 100, None).unwrap();
            drop(kept);
            (rows.len(), single)
        }));
        let used = used.unwrap_or_else(|_| panic!("{what} passes the look and panics"));
        assert_eq!(used, (90, Some(b"2".to_vec())), "{what}");
        let again = look(folder.path(), "test").unwrap().found;
        assert_eq!(again, Found::Whole { schema: 1, sequence: 100 }, "{what}");
    }
    println!("{times} times: {whole} whole, {unreadable} unreadable");
    assert!(whole > 0 && unreadable > 0);
}

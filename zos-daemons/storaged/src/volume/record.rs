//! What is written of a volume, and which of two copies of it counts.
//!
//! ```text
//!  pool A: record, sequence 7 ─┐                     ┌ leads: A's, with B's data whole or stale
//!                              ├─ lead ─▶ Standing ──┼ waits: for a pool that is not here
//!  pool B: record, sequence 6 ─┘                     ├ broken: each was used without the other
//!                                                    └ dying: what is left of it is removed
//! ```
//! A record says which copies of the data missed writes (`stale`). It is written before a write can be
//! missed, so the copy that knows of the other is the newer one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use zos_api::local::storage::Snapshot;
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::volume::Sealing;
use zos_types::{Bytes, Name, TwinId, WorkloadName};

/// The version of the record that this code writes, and the newest that it reads.
pub const VERSION: u32 = 2;
/// Volumes are whole multiples of it, in bytes.
pub const GRAIN: u64 = 4096;
/// dm-crypt's cipher. What a pool says goes into the kernel's tables, so nothing else is taken.
pub const CIPHER: &str = "aes-xts-plain64";

/// What is known of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// Drawn when it is made: another volume of the same name is another. Version 1 had none.
    #[serde(default)]
    pub id: String,
    /// Counts the writes of the record.
    #[serde(default)]
    pub sequence: u64,
    /// Whose it is.
    pub twin: TwinId,
    /// Which workload it is.
    pub name: WorkloadName,
    /// Its size.
    pub size: Bytes,
    /// The class that was asked for.
    pub class: Class,
    /// What is done about bit rot.
    pub integrity: Integrity,
    /// Who holds its key.
    pub key: KeyHolder,
    /// dm-crypt's cipher.
    pub cipher: String,
    /// What its key is sealed with.
    #[serde(default = "beside")]
    pub sealing: Sealing,
    /// What is in it.
    #[serde(default)]
    pub holds: Content,
    /// The pools that it lies on; version 1: the one that the record lies on.
    #[serde(default)]
    pub legs: Vec<String>,
    /// Those of them whose data missed writes.
    #[serde(default)]
    pub stale: Vec<String>,
    /// Why it lies there, in words.
    #[serde(default)]
    pub placed: String,
    /// It was never handed out, and its ends still read as noise.
    #[serde(default)]
    pub fresh: bool,
    /// The size that it is to have.
    #[serde(default)]
    pub growing: Option<Bytes>,
    /// The snapshot that it is being set back to.
    #[serde(default)]
    pub restoring: Option<Name>,
    /// It is being destroyed.
    #[serde(default)]
    pub deleting: bool,
    /// This copy is being made; until it is whole the pool that it comes from counts.
    #[serde(default)]
    pub arriving: bool,
    /// This copy has moved to another pool, and no longer counts.
    #[serde(default)]
    pub left_for: Option<String>,
}

fn beside() -> Sealing {
    Sealing::Beside
}

impl Record {
    /// The record of a new volume that lies nowhere yet.
    pub fn new(twin: TwinId, name: WorkloadName, size: Bytes, class: Class) -> Self {
        Self {
            version: VERSION,
            id: String::new(),
            sequence: 0,
            twin,
            name,
            size,
            class,
            integrity: Integrity::None,
            key: KeyHolder::Node,
            cipher: CIPHER.to_owned(),
            sealing: Sealing::Beside,
            holds: Content::Disk,
            legs: Vec::new(),
            stale: Vec::new(),
            placed: String::new(),
            fresh: true,
            growing: None,
            restoring: None,
            deleting: false,
            arriving: false,
            left_for: None,
        }
    }

    /// What is wrong with a record that lies on a disk, where anybody may have written it.
    pub fn flaw(&self) -> Option<String> {
        let legs = if self.integrity == Integrity::Repair { 2 } else { 1 };
        let sizes = [Some(self.size), self.growing];
        if self.version > VERSION {
            Some(format!("written by a newer version of ZOS ({})", self.version))
        } else if self.cipher != CIPHER {
            Some("of an unknown cipher".to_owned())
        } else if sizes.iter().flatten().any(|s| s.0 == 0 || !s.0.is_multiple_of(GRAIN)) {
            Some(format!("of an impossible size ({})", self.size.0))
        } else if self.legs.len() != legs || self.legs.first() == self.legs.get(1) {
            Some(format!("on {} pools, and it takes {legs}", self.legs.len()))
        } else {
            None
        }
    }

    /// The size that is set aside for it.
    pub fn set_aside(&self) -> Bytes {
        self.growing.unwrap_or(self.size).max(self.size)
    }

    /// Whether this pool's data has all that was written.
    pub fn is_whole(&self, pool: &str) -> bool {
        self.legs.iter().any(|leg| leg == pool) && !self.stale.iter().any(|leg| leg == pool)
    }
}

/// A volume as it was. Its key is the volume's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shot {
    /// Version of this form.
    pub version: u32,
    /// Whose it is.
    pub twin: TwinId,
    /// The volume.
    pub volume: WorkloadName,
    /// Which volume of that name.
    pub of: String,
    /// Its own name.
    pub name: Name,
    /// The volume's size then.
    pub size: Bytes,
    /// The volume's class.
    pub class: Class,
    /// The volume's integrity.
    pub integrity: Integrity,
    /// Whether the volume had never been handed out.
    #[serde(default)]
    pub fresh: bool,
    /// When it was taken.
    pub taken: Timestamp,
    /// The pools that it lies on.
    pub legs: Vec<String>,
}

impl Shot {
    /// As others see it.
    pub fn shown(&self) -> Snapshot {
        Snapshot {
            twin: self.twin,
            volume: self.volume.clone(),
            name: self.name.clone(),
            size: self.size,
            class: self.class,
            pool: self.legs.first().cloned().unwrap_or_default(),
            taken: self.taken,
        }
    }
}

/// What a volume's records come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// This record counts.
    Leads(Box<Record>),
    /// It can't be used before something comes, in words.
    Waits(String),
    /// It can't be used, in words.
    Broken(String),
    /// It is being destroyed.
    Dying(Box<Record>),
}

/// Judges the records of one volume, by pool.
pub fn lead(copies: &BTreeMap<String, Record>) -> Standing {
    if let Some(record) = copies.values().find(|record| record.deleting) {
        return Standing::Dying(Box::new(record.clone()));
    }
    let ids = copies.values().map(|record| &record.id).collect::<std::collections::BTreeSet<_>>();
    if ids.len() > 1 {
        return Standing::Broken("different volumes of one name on different pools".to_owned());
    }
    // One that left counts no more; the one that it left for does, whole from then on.
    let left = copies.values().filter_map(|record| record.left_for.as_ref());
    for heir in left {
        match copies.get(heir) {
            Some(record) => {
                let record = Record { arriving: false, ..record.clone() };
                return Standing::Leads(Box::new(record));
            }
            None if copies.values().all(|record| record.left_for.is_some()) => {
                return Standing::Waits(format!("it moved to pool {heir}, which is not here"));
            }
            None => {}
        }
    }
    let counting: Vec<(&String, &Record)> =
        copies.iter().filter(|(_, r)| !r.arriving && r.left_for.is_none()).collect();
    let mut fallen = Vec::new();
    for (pool, record) in &counting {
        // Those that this one was used without. One that is no leg of theirs has nothing to say.
        for (other, theirs) in counting.iter().filter(|(other, _)| record.stale.contains(*other)) {
            if other == pool || !theirs.legs.contains(*pool) {
                continue;
            }
            if theirs.stale.contains(*pool) || theirs.sequence > record.sequence {
                return used_apart();
            }
            fallen.push(*other);
        }
    }
    let standing = || counting.iter().filter(|(pool, _)| !fallen.contains(pool));
    let Some((_, first)) = standing().max_by_key(|(_, record)| record.sequence) else {
        return Standing::Waits("the pool that it was being moved from is not here".to_owned());
    };
    if standing().any(|(_, r)| r.sequence == first.sequence && r != first) {
        return used_apart();
    }
    Standing::Leads(Box::new((*first).clone()))
}

fn used_apart() -> Standing {
    Standing::Broken("each of its copies was used without the other".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, legs: &str, stale: &str) -> Record {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let twin = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap();
        Record {
            sequence,
            legs: words(legs),
            stale: words(stale),
            ..Record::new(twin, "web/data".parse().unwrap(), Bytes(1 << 20), Class::Ssd)
        }
    }

    /// Who leads: a pool's sequence, or a word.
    fn judge(copies: &[(&str, Record)]) -> String {
        let copies = copies.iter().map(|(pool, r)| ((*pool).to_owned(), r.clone())).collect();
        match lead(&copies) {
            Standing::Leads(record) => format!("{} stale {:?}", record.sequence, record.stale),
            Standing::Waits(_) => "waits".into(),
            Standing::Broken(_) => "broken".into(),
            Standing::Dying(_) => "dying".into(),
        }
    }

    #[test]
    fn the_newer_record_leads() {
        let ab = |sequence, stale| record(sequence, "a b", stale);
        let check = |copies: &[(&str, Record)], expected: &str| {
            assert_eq!(judge(copies), expected, "{copies:?}");
        };
        check(&[("a", ab(3, ""))], "3 stale []");
        check(&[("a", ab(3, "")), ("b", ab(3, ""))], "3 stale []");
        check(&[("a", ab(4, "")), ("b", ab(3, ""))], "4 stale []");
        // used without b, which is back
        check(&[("a", ab(4, "b")), ("b", ab(3, ""))], "4 stale [\"b\"]");
        check(&[("a", ab(9, "b")), ("b", ab(3, ""))], "9 stale [\"b\"]");
        // and without a after that: nobody knows which to believe
        check(&[("a", ab(4, "b")), ("b", ab(4, "a"))], "broken");
        check(&[("a", ab(4, "b")), ("b", ab(9, "a"))], "broken");
        check(&[("a", ab(9, "b")), ("b", ab(4, "a"))], "broken");
        check(&[("a", ab(9, "")), ("b", ab(4, "a"))], "broken");
        // a's record was cut short of b's, and b was used alone then
        check(&[("a", ab(4, "")), ("b", ab(4, "a"))], "4 stale [\"a\"]");
        // two writers
        check(&[("a", ab(4, "")), ("b", record(4, "a c", ""))], "broken");
        // b alone knows that it is stale
        check(&[("b", ab(4, "b"))], "4 stale [\"b\"]");
        // b came in c's place; a says so
        check(&[("a", record(5, "a b", "b")), ("c", record(4, "a c", ""))], "5 stale [\"b\"]");
        check(&[("a", Record { deleting: true, ..ab(5, "") }), ("b", ab(7, ""))], "dying");
        let other = Record { id: "x".into(), ..ab(9, "") };
        check(&[("a", ab(4, "")), ("b", other)], "broken");
    }

    /// Each cut of a move: exactly one leads, whichever pools are here.
    #[test]
    fn a_volume_that_moves_has_one_place() {
        let from = |sequence| record(sequence, "a", "");
        let to = |sequence| Record { arriving: true, ..record(sequence, "b", "") };
        let left = |sequence| Record { left_for: Some("b".into()), ..from(sequence) };
        let check = |copies: &[(&str, Record)], both: &str, alone: &[&str]| {
            assert_eq!(judge(copies), both, "{copies:?}");
            for (copy, expected) in copies.iter().zip(alone) {
                assert_eq!(judge(std::slice::from_ref(copy)), *expected, "{copy:?}");
            }
        };
        check(&[("a", from(3)), ("b", to(4))], "3 stale []", &["3 stale []", "waits"]);
        check(&[("a", left(5)), ("b", to(4))], "4 stale []", &["waits", "waits"]);
        let arrived = record(6, "b", "");
        check(&[("a", left(5)), ("b", arrived)], "6 stale []", &["waits", "6 stale []"]);
    }

    #[test]
    fn what_a_disk_may_not_say() {
        let check = |change: fn(&mut Record), flawed: bool| {
            let mut changed = record(1, "a", "");
            change(&mut changed);
            assert_eq!(changed.flaw().is_some(), flawed, "{changed:?}");
        };
        check(|_| (), false);
        check(|r| r.version = 3, true);
        check(|r| r.cipher = "null 00 0 7:0 0\n0 1 error".into(), true);
        check(|r| r.size = Bytes(0), true);
        check(|r| r.size = Bytes(4097), true);
        check(|r| r.growing = Some(Bytes(1)), true);
        check(|r| r.legs.clear(), true);
        check(|r| r.integrity = Integrity::Repair, true);
        check(
            |r| {
                r.integrity = Integrity::Repair;
                r.legs.push("b".into());
            },
            false,
        );
        check(
            |r| {
                r.integrity = Integrity::Repair;
                r.legs.push("a".into());
            },
            true,
        );
    }
}

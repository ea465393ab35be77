//! What a new version may not change of a workload that it keeps. Pure.
//!
//! ```text
//!  the version before ──▶ broken     a volume may grow; class, integrity, key and origin stay, and its type
//!  what storaged has ───▶ unlike     the same, for a volume that the book knows less of than the disks
//!  a clone's origin ────▶ unlike_origin    it shares blocks: as large at least, and of the same make
//! ```
//! What is to be otherwise takes another name.

use zos_api::local::storage;
use zos_types::deployment::{Class, Content, Integrity, KeyHolder, Volume};
use zos_types::{Bytes, Deployment, FieldError, Name, Workload};

/// The fields of `new` that change what must stay.
pub fn broken(old: &Deployment, new: &Deployment) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, workload) in &new.workloads {
        let mut stays = |field: &str, broken: bool, was: String| {
            if broken {
                errors.push(FieldError::new(format!("/workloads/{name}/{field}"), otherwise(&was)));
            }
        };
        match (old.workloads.get(name), workload) {
            (None, _) | (Some(Workload::Vm(_)), Workload::Vm(_)) => {}
            (Some(Workload::Volume(was)), Workload::Volume(now))
            | (Some(Workload::Share(was)), Workload::Share(now)) => {
                let word = was.from.as_ref().map_or("absent".into(), |from| format!("`{from}`"));
                stays("from", was.from != now.from, word);
                errors.extend(compared(name, now, &Make::of(was)));
            }
            (Some(was), _) => stays("type", true, format!("`{}`", was.kind())),
        }
    }
    errors
}

/// What of a volume is found to be otherwise than storaged has it.
pub fn unlike(
    name: &Name,
    (wanted, holds): (&Volume, Content),
    there: &storage::Volume,
) -> Vec<FieldError> {
    let storage::Volume { size, class, integrity, key, .. } = *there;
    let make = Make { size, class, integrity, key };
    let mut errors = compared(name, wanted, &make);
    if holds != there.holds {
        let was = if there.holds == Content::Share { "`share`" } else { "`volume`" };
        errors.push(FieldError::new(format!("/workloads/{name}/type"), otherwise(was)));
    }
    errors
}

/// What of a clone does not go with its origin: the volume, or `size` when it is a snapshot of it.
pub fn unlike_origin(
    name: &Name,
    (wanted, holds): (&Volume, Content),
    origin: &storage::Volume,
    size: Bytes,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut rule = |broken: bool, field: &str, rule: String| {
        if broken {
            errors.push(FieldError::new(format!("/workloads/{name}/{field}"), rule));
        }
    };
    rule(wanted.size < size, "size", format!("at least {size}, as large as its origin"));
    let as_origin = |word: String| format!("`{word}`, as its origin");
    rule(wanted.class != origin.class, "class", as_origin(origin.class.to_string()));
    let differs = wanted.integrity != origin.integrity;
    rule(differs, "integrity", as_origin(word(&origin.integrity)));
    rule(wanted.key != origin.key, "key", as_origin(word(&origin.key)));
    let kinds = "a volume is made from a volume, a share from a share";
    rule(holds != origin.holds, "from", kinds.to_owned());
    errors
}

/// What a volume is, once it is made.
struct Make {
    size: Bytes,
    class: Class,
    integrity: Integrity,
    key: KeyHolder,
}

impl Make {
    fn of(&Volume { size, class, integrity, key, .. }: &Volume) -> Self {
        Self { size, class, integrity, key }
    }
}

fn compared(name: &Name, wanted: &Volume, was: &Make) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut rule = |broken: bool, field: &str, rule: String| {
        if broken {
            errors.push(FieldError::new(format!("/workloads/{name}/{field}"), rule));
        }
    };
    let smaller = wanted.size < was.size;
    rule(smaller, "size", format!("at least {}, which it has: a volume does not shrink", was.size));
    rule(wanted.class != was.class, "class", otherwise(&format!("`{}`", was.class)));
    let differs = wanted.integrity != was.integrity;
    rule(differs, "integrity", otherwise(&format!("`{}`", word(&was.integrity))));
    rule(wanted.key != was.key, "key", otherwise(&format!("`{}`", word(&was.key))));
    errors
}

fn otherwise(was: &str) -> String {
    format!("stays {was}; what is to be otherwise takes another name")
}

/// A unit variant as JSON writes it.
fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay() {
        let read = |workloads: &str| {
            let text = format!(r#"{{"version": 1, "workloads": {{{workloads}}}}}"#);
            Deployment::from_json(text.as_bytes()).unwrap()
        };
        const VOLUME: &str = r#""d": {"type": "volume", "size": "1GiB"}"#;
        const VM: &str =
            r#""a": {"type": "vm", "cpu": 1, "memory": "64MiB", "image": "builtin:hello"}"#;
        let check = |old: &str, new: &str, pointers: &[&str]| {
            let errors = broken(&read(old), &read(new));
            let found: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
            assert_eq!(found, pointers, "{old} / {new}");
        };
        check(VOLUME, VOLUME, &[]);
        check(VOLUME, "", &[]);
        check("", VOLUME, &[]);
        check(VOLUME, &VOLUME.replace("1GiB", "2GiB"), &[]);
        check(&VOLUME.replace("1GiB", "2GiB"), VOLUME, &["/workloads/d/size"]);
        check(
            VOLUME,
            &VOLUME.replace("1GiB\"", "1GiB\", \"class\": \"hdd\""),
            &["/workloads/d/class"],
        );
        check(
            VOLUME,
            &VOLUME.replace("1GiB\"", "1GiB\", \"key\": \"twin\""),
            &["/workloads/d/key"],
        );
        let from = |of: &str| VOLUME.replace("1GiB\"", &format!("1GiB\", \"from\": \"{of}\""));
        check(VOLUME, &from("e"), &["/workloads/d/from"]);
        check(&from("e"), &from("e@monday"), &["/workloads/d/from"]);
        check(&from("e"), &from("e"), &[]);
        check(VM, &VM.replace("64MiB", "128MiB"), &[]);
        check(VM, &VOLUME.replace("\"d\"", "\"a\""), &["/workloads/a/type"]);
        let share = VOLUME.replace("volume", "share");
        check(VOLUME, &share, &["/workloads/d/type"]);
        check(&share, VOLUME, &["/workloads/d/type"]);
        check(&share, &share.replace("1GiB", "512MiB"), &["/workloads/d/size"]);
    }

    fn wanted(text: &str) -> Volume {
        serde_json::from_str(text).unwrap()
    }

    /// A volume of 1 GiB on SSD as storaged has it.
    fn there() -> storage::Volume {
        let twin = crate::plan::tests::twin();
        let name = "web/d".parse().unwrap();
        storage::Volume::new(twin, name, Bytes(1 << 30), Class::Ssd, "p")
    }

    #[test]
    fn what_is_on_disk_counts_more_than_the_book() {
        let check = |text: &str, holds, pointers: &[&str]| {
            let errors = unlike(&"d".parse().unwrap(), (&wanted(text), holds), &there());
            let found: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
            assert_eq!(found, pointers, "{text}");
        };
        check(r#"{"size": "1GiB"}"#, Content::Disk, &[]);
        check(r#"{"size": "2GiB"}"#, Content::Disk, &[]);
        check(r#"{"size": "512MiB"}"#, Content::Disk, &["/workloads/d/size"]);
        let other = r#"{"size": "1GiB", "class": "hdd", "integrity": "detect", "key": "twin"}"#;
        let all = ["class", "integrity", "key", "type"].map(|f| format!("/workloads/d/{f}"));
        check(other, Content::Share, &all.each_ref().map(String::as_str));
    }

    #[test]
    fn a_clone_is_as_its_origin_and_may_be_larger() {
        let check = |text: &str, holds, size: u64, pointers: &[&str]| {
            let name = "e".parse().unwrap();
            let errors = unlike_origin(&name, (&wanted(text), holds), &there(), Bytes(size));
            let found: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
            assert_eq!(found, pointers, "{text}");
        };
        let from = |rest: &str| format!(r#"{{"size": "1GiB", "from": "d"{rest}}}"#);
        check(&from(""), Content::Disk, 1 << 30, &[]);
        check(&from(""), Content::Disk, 1 << 29, &[]);
        check(&from(""), Content::Disk, 1 << 31, &["/workloads/e/size"]);
        check(&from(r#", "class": "hdd""#), Content::Disk, 1 << 30, &["/workloads/e/class"]);
        let repair = from(r#", "integrity": "repair", "key": "twin""#);
        check(&repair, Content::Disk, 1, &["/workloads/e/integrity", "/workloads/e/key"]);
        check(&from(""), Content::Share, 1, &["/workloads/e/from"]);
    }
}

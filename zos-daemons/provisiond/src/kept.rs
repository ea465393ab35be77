//! What a new version may not change of a workload that it keeps. Pure.
//!
//! A volume's data stays where and as it is, so its size, class, integrity and key stay; a
//! workload keeps its type. What is to be otherwise takes another name.

use zos_types::{Deployment, FieldError, Workload};

/// The fields of `new` that change what must stay.
pub fn broken(old: &Deployment, new: &Deployment) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, workload) in &new.workloads {
        let mut stays = |field: &str, broken: bool, was: String| {
            if broken {
                let rule = format!("stays {was}; what is to be otherwise takes another name");
                errors.push(FieldError::new(format!("/workloads/{name}/{field}"), rule));
            }
        };
        match (old.workloads.get(name), workload) {
            (None, _) | (Some(Workload::Vm(_)), Workload::Vm(_)) => {}
            (Some(Workload::Volume(was)), Workload::Volume(now))
            | (Some(Workload::Share(was)), Workload::Share(now)) => {
                stays("size", was.size != now.size, was.size.to_string());
                stays("class", was.class != now.class, format!("`{}`", was.class));
                let word = format!("{:?}", was.integrity).to_lowercase();
                stays("integrity", was.integrity != now.integrity, format!("`{word}`"));
                let word = format!("{:?}", was.key).to_lowercase();
                stays("key", was.key != now.key, format!("`{word}`"));
                let word = was.from.as_ref().map_or("absent".into(), |from| format!("`{from}`"));
                stays("from", was.from != now.from, word);
            }
            (Some(was), _) => stays("type", true, format!("`{}`", was.kind())),
        }
    }
    errors
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
        check(VOLUME, &VOLUME.replace("1GiB", "2GiB"), &["/workloads/d/size"]);
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
        check(&share, &share.replace("1GiB", "2GiB"), &["/workloads/d/size"]);
    }
}

//! The record and the crashes, on a folder.

use super::*;

#[test]
fn what_a_boot_is_told_of_the_run_before() {
    let run = |boot: &str, end| Some(Run { boot: boot.to_owned(), end });
    for (record, expect) in [
        (None, Some(Some(Action::Poweroff))),
        (run("before", None), Some(None)),
        (run("before", Some(Action::Reboot)), Some(Some(Action::Reboot))),
        // A storaged that was started again has told it.
        (run("this", None), None),
        (run("this", Some(Action::Poweroff)), None),
        // A damaged record.
        (run("", None), Some(None)),
    ] {
        assert_eq!(last_end(record.as_ref(), "this"), expect, "{record:?}");
    }
}

#[test]
fn a_record_comes_back_and_a_damaged_one_never_ended() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_run(dir.path()).unwrap(), None);
    let run = Run { boot: "a".to_owned(), end: Some(Action::Halt) };
    write_run(dir.path(), &run).unwrap();
    assert_eq!(read_run(dir.path()).unwrap(), Some(run));
    for damaged in ["", "{", "[]"] {
        fs::write(dir.path().join("last-run.json"), damaged).unwrap();
        let found = read_run(dir.path()).unwrap().unwrap();
        assert_eq!(found.end, None, "{damaged}");
    }
    assert!(read_run(&dir.path().join("last-run.json")).is_err());
}

#[test]
fn the_newest_eight_crashes_are_kept_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("crashes");
    assert!(read_crashes(&folder).unwrap().is_empty());
    let crash = |text: String| Crash { name: "dmesg-ramoops-0/..".to_owned(), text };
    for number in 0..11 {
        // A clock that goes backwards.
        let now = Timestamp::from_second(1_800_000_000 - number * 86_400).unwrap();
        keep_crashes(&folder, &[crash(format!("words {number}"))], now).unwrap();
    }
    fs::write(folder.join("000099.x.new"), "cut off").unwrap();
    fs::write(folder.join("notes"), "a farmer's").unwrap();
    let found = read_crashes(&folder).unwrap();
    let texts: Vec<&str> = found.iter().map(|crash| crash.text.as_str()).collect();
    let expect: Vec<String> = (3..11).rev().map(|number| format!("words {number}")).collect();
    assert_eq!(texts, expect);
    assert_eq!(found[0].name, "000011.20270105T080000Z.dmesg-ramoops-0___");
    assert!(folder.join("notes").exists());

    keep_crashes(&folder, &[crash("é".repeat(LIMIT))], Timestamp::UNIX_EPOCH).unwrap();
    let found = read_crashes(&folder).unwrap();
    assert!(found[0].text.len() <= LIMIT && found[0].text.len() > LIMIT - 4);
}

//! Answers of disks: those of QEMU's as smartctl wrote them in a node, those of real ones in its form.

use proptest::prelude::*;

use super::*;

macro_rules! said {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/smartctl/", $name, ".json"))
    };
}

#[test]
fn answers() {
    use Verdict::{Failing, Good, Unknown, Warning};
    // what was said, exit status; verdict, temperature, hours, percent used, media errors, reasons
    type Row<'a> =
        (&'a [u8], i32, Verdict, Option<i16>, Option<u64>, Option<u16>, Option<u64>, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (said!("nvme"), 0, Good, Some(50), Some(0), Some(0), Some(0), &[]),
        (said!("sata"), 0, Good, Some(31), Some(1), None, None, &[]),
        (said!("virtio-scsi"), 0, Unknown, None, None, None, None, &[]),
        (said!("virtio"), 1, Unknown, None, None, None, None, &[]),
        (said!("usb-unknown-bridge"), 1, Unknown, None, None, None, None, &[]),
        (said!("usb-sat"), 0, Good, Some(30), Some(900), None, None, &[]),
        (
            said!("nvme-failing"),
            8,
            Failing,
            Some(41),
            Some(15211),
            Some(117),
            Some(12),
            &[
                "it says that it fails",
                "its spare blocks run out",
                "it is no longer reliable",
                "it could not read 12 blocks",
                "117 % of its life is used up",
            ],
        ),
        (
            said!("sata-failing"),
            24,
            Failing,
            Some(36),
            Some(34812),
            None,
            Some(1288),
            &[
                "it says that it fails",
                "its attribute 5 is below what its maker allows",
                "43352 blocks were replaced",
                "1288 blocks can't be read for now",
                "it could not read 1288 blocks",
            ],
        ),
        (
            said!("sata-pending"),
            0,
            Warning,
            Some(36),
            Some(34812),
            None,
            Some(0),
            &["8 blocks can't be read for now"],
        ),
        (
            said!("sata-ssd-worn"),
            0,
            Warning,
            Some(29),
            Some(21000),
            Some(104),
            None,
            &["104 % of its life is used up"],
        ),
        (
            said!("sas"),
            0,
            Warning,
            Some(38),
            Some(40123),
            None,
            Some(3),
            &["it could not read 3 blocks", "it replaced 3 bad blocks"],
        ),
    ];
    for (text, exit, verdict, temperature, hours, used, media_errors, reasons) in rows {
        let health = read(text, Some(*exit)).unwrap();
        let expected = Health {
            verdict: *verdict,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            temperature: *temperature,
            hours: *hours,
            used: *used,
            media_errors: *media_errors,
            standby: false,
        };
        assert_eq!(health, expected);
    }
    let asleep = read(said!("standby"), Some(5)).unwrap();
    assert_eq!(asleep, Health { standby: true, ..unknown() });
}

/// Each bit of the exit status (smartctl(8), "EXIT STATUS") over an answer that is well otherwise.
#[test]
fn exits() {
    let check = |exit, expected: Result<Verdict, &str>| {
        let got = read(said!("sata"), exit).map(|health| health.verdict);
        assert_eq!(
            got.map_err(|error| error.to_string()),
            expected.map_err(str::to_owned),
            "{exit:?}"
        );
    };
    check(Some(0), Ok(Verdict::Good));
    check(Some(1), Ok(Verdict::Unknown));
    check(Some(2), Err("the disk does not answer: no reason given"));
    check(Some(4), Ok(Verdict::Good));
    check(Some(8), Ok(Verdict::Failing));
    check(Some(16 + 32 + 64 + 128), Ok(Verdict::Good));
    check(Some(256), Err("its answer makes no sense: it was ended"));
    check(Some(-1), Err("its answer makes no sense: it was ended"));
    check(None, Err("its answer makes no sense: it was ended"));
    let gone = read(said!("gone"), Some(2)).unwrap_err();
    assert_eq!(
        gone,
        SmartError::Silent("Smartctl open device: /dev/sdb failed: No such device".into())
    );
    assert!(is_unknown_bridge(said!("usb-unknown-bridge")) && !is_unknown_bridge(said!("virtio")));
}

#[test]
fn nonsense() {
    for text in ["", "{", "null", "[]", "{}", "\"x\"", r#"{"smartctl":{}}"#, "\u{0}", "😀"] {
        assert!(matches!(read(text.as_bytes(), Some(0)), Err(SmartError::Garbled(_))), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(read(deep.as_bytes(), Some(0)), Err(SmartError::Garbled(_))));
    // Numbers that no disk has, and words where numbers belong.
    let odd = r#"{"smartctl":{"version":[7,4]},"temperature":{"current":-9223372036854775808},
        "power_on_time":{"hours":-1},"smart_status":{"passed":"yes"},
        "nvme_smart_health_information_log":{"percentage_used":18446744073709551615,
        "media_errors":1e300,"critical_warning":"all"},
        "ata_smart_attributes":{"table":[{},{"id":5,"raw":{"value":281474976710656}},7,{"id":197}]},
        "scsi_error_counter_log":{"read":{"total_uncorrected_errors":18446744073709551615},
        "write":{"total_uncorrected_errors":1}}}"#;
    let health = read(odd.as_bytes(), Some(0)).unwrap();
    assert_eq!((health.temperature, health.hours, health.used), (None, None, Some(u16::MAX)));
    assert_eq!((health.verdict, health.media_errors), (Verdict::Warning, Some(u64::MAX)));
}

/// Any JSON at the places that are looked at.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let keys = [
            "smartctl",
            "version",
            "messages",
            "string",
            "smart_status",
            "passed",
            "temperature",
            "current",
            "drive_trip",
            "ata_smart_attributes",
            "table",
            "id",
            "raw",
            "value",
            "flags",
            "prefailure",
            "when_failed",
            "nvme_smart_health_information_log",
            "critical_warning",
            "media_errors",
            "percentage_used",
            "ata_device_statistics",
            "pages",
            "name",
            "scsi_error_counter_log",
            "read",
            "total_uncorrected_errors",
            "power_on_time",
            "hours",
        ];
        let key = prop::sample::select(keys.to_vec()).prop_map(str::to_owned);
        let pairs = prop::collection::btree_map(key, inner.clone(), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            pairs.prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, exit: Option<i32>) {
        let _ = (read(&bytes, exit), is_unknown_bridge(&bytes));
    }

    #[test]
    fn any_answer_is_read_and_what_is_wrong_has_a_reason(mut said in json(), exit in 0..256i32) {
        if let Value::Object(fields) = &mut said {
            fields.insert("smartctl".to_owned(), serde_json::json!({"version": [7, 4]}));
        }
        if let Ok(health) = read(said.to_string().as_bytes(), Some(exit)) {
            let wrong = matches!(health.verdict, Verdict::Warning | Verdict::Failing);
            prop_assert_eq!(wrong, !health.reasons.is_empty());
            prop_assert!(health.temperature.is_none_or(|now| (-60..=200).contains(&now)));
        }
    }

    #[test]
    fn a_torn_answer_is_no_health(cut in 0..2000usize) {
        let whole: &[u8] = said!("sata");
        let torn = &whole[..cut.min(whole.len() - 2)];
        prop_assert!(matches!(read(torn, Some(0)), Err(SmartError::Garbled(_))));
    }
}

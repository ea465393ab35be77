use proptest::prelude::*;

use super::*;

fn check(line: &str, conf: Option<&str>, expect: &[(&str, &str)], notes: &[&str]) {
    let settings = Settings::parse(line, conf);
    let values: Vec<(&str, &str)> =
        settings.values().iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(values, expect, "{line} + {conf:?}");
    let shown: Vec<String> = settings.notes().iter().map(ToString::to_string).collect();
    assert_eq!(shown, notes, "{line} + {conf:?}");
}

#[test]
fn command_lines() {
    check("console=ttyS0 quiet", None, &[], &[]);
    check("zos.farm=a zos.farm=b\n", None, &[("farm", "b")], &[]);
    check("zos.nic=\"a b\" \"zos.ip=c d\"", None, &[("ip", "c d"), ("nic", "a b")], &[]);
    check("zos.debug", None, &[("debug", "1")], &[]);
    check("zos.debug=off", None, &[("debug", "0")], &[]);
    check("zos.disk.adopt=none -- zos.farm=x", None, &[("disk.adopt", "none")], &[]);
    check("zos.dns=1.1.1.1,a=b", None, &[("dns", "1.1.1.1,a=b")], &[]);
}

#[test]
fn aliases() {
    check("farmer_id=12 runmode=qa", None, &[("farm", "12"), ("mode", "test")], &[]);
    check("vlan:priv=12 vlan:pub=34", None, &[("vlan", "priv:12,pub:34")], &[]);
    check("", Some("farmer_id = 3\nvlan:priv = 9"), &[("farm", "3"), ("vlan", "priv:9")], &[]);
}

#[test]
fn conf_files() {
    check(
        "",
        Some("# mine\n\nfarm = abc # here\r\nzos.mode=dev\n"),
        &[("farm", "abc"), ("mode", "dev")],
        &[],
    );
    check("zos.farm=line", Some("farm = file"), &[("farm", "line")], &[]);
    check("", Some("\u{feff}farm = \"a # b\""), &[("farm", "a # b")], &[]);
    check("", Some("farm"), &[], &["zos.conf line 1: expected `key = value`"]);
}

#[test]
fn notes_help() {
    check(
        "zos.fram=1",
        None,
        &[],
        &["kernel command line: unknown key zos.fram; did you mean zos.farm?"],
    );
    check("zos.efi zos.farm=x", None, &[("farm", "x")], &[]);
    check("zos.xyzzy=1", None, &[], &["kernel command line: unknown key zos.xyzzy"]);
    check(
        "",
        Some("\nmode = fast"),
        &[],
        &["zos.conf line 2: zos.mode=fast is not one of prod, test, dev"],
    );
    check(
        "zos.debug=maybe",
        None,
        &[],
        &["kernel command line: zos.debug=maybe is not one of 0, 1"],
    );
}

#[test]
fn distances() {
    for (a, b, expect) in [("", "", 0), ("a", "", 1), ("farm", "fram", 1), ("nic", "nics", 1)] {
        assert_eq!(distance(a, b), expect, "{a} {b}");
        assert_eq!(distance(b, a), expect, "{b} {a}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken(line in ".{0,200}", conf in "(?s).{0,200}") {
        let settings = Settings::parse(&line, Some(&conf));
        for key in settings.values().keys() {
            prop_assert!(KNOWN.iter().any(|(known, _)| known == key));
        }
    }

    #[test]
    fn a_quoted_value_survives(value in "[^\"\\x00]{0,40}") {
        let settings = Settings::parse(&format!("a zos.farm=\"{value}\" b"), None);
        prop_assert_eq!(settings.get("farm"), Some(value.as_str()));
    }

    #[test]
    fn the_command_line_wins(value in "[a-z0-9]{1,20}", other in "[a-z0-9]{1,20}") {
        let settings = Settings::parse(&format!("zos.farm={value}"), Some(&format!("farm = {other}")));
        prop_assert_eq!(settings.get("farm"), Some(value.as_str()));
    }
}

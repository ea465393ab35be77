use std::fs;

use proptest::prelude::*;
use zos_host::user;

use super::*;

const GOOD: &str = "exec = [\"/bin/a\", \"x\"]\nuser = \"net\"\n";

fn check(text: &str, expect: &[&str]) {
    let problems = match service::parse("a.toml", "a", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(problems, expect, "{text}");
}

#[test]
fn a_whole_service() {
    let text = format!(
        "{GOOD}requires = [\"b\"]\nafter = [\"c\"]\nsocket = \"/run/zos/net.sock\"\nready = \"fd\"\n\
         ready-timeout = \"2min\"\nrestart = \"on-failure\"\nstop-signal = \"INT\"\nstop-timeout = \"1500ms\"\n\
         capabilities = [\"NET_ADMIN\"]\ndevices = [\"/dev/net/tun\"]\n[env]\nA = \"b\"\nN = 3\n"
    );
    let service = service::parse("a.toml", "a", &text).unwrap();
    assert_eq!((service.user, service.exec.len(), service.env["N"].as_str()), (112, 2, "3"));
    let rules = service.rules;
    assert_eq!(
        (rules.after, rules.requires),
        (vec!["c".to_owned(), "b".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!((rules.ready, rules.ready_timeout), (Ready::Told, 120_000));
    assert_eq!(
        (rules.restart, rules.stop_signal, rules.stop_timeout),
        (Restart::OnFailure, 2, 1500)
    );
    check(GOOD, &[]);
}

#[test]
fn each_kind_of_mistake_has_its_line() {
    check("exec = [\"/bin/a\"]", &["a.toml: `user` is missing; write `root` if it must be root"]);
    check(
        "user = \"net\"",
        &["a.toml: `exec` is missing: a list of the program and its arguments"],
    );
    check(
        &format!("{GOOD}require = []\n"),
        &["a.toml:3: unknown key `require`; did you mean `requires`?"],
    );
    let known = "exec, env, user, dir, socket, ready-socket, requires, after, oneshot, ready, ready-timeout, restart, \
                 backoff, crash-budget, retry, watchdog, vital, liveness, stop-signal, stop-timeout, drains, log, cgroup, \
                 capabilities, devices, sandbox";
    check(
        &format!("{GOOD}\nxyzzy = 1\n"),
        &[&format!("a.toml:4: unknown key `xyzzy`; known are {known}")],
    );
    check(
        &format!("{GOOD}ready = \"now\"\n"),
        &["a.toml:3: `ready` = \"now\" is not one of none, fd, socket"],
    );
    check(
        &format!("{GOOD}after = \"b\"\n"),
        &["a.toml:3: `after` is a string, not a list of texts"],
    );
    check(
        &format!("{GOOD}after = [\"b\",\n 3]\n"),
        &["a.toml:4: `after` holds a integer, not a text"],
    );
    check(
        &format!("{GOOD}stop-timeout = \"5\"\nstop-signal = \"TREM\"\n"),
        &[
            "a.toml:3: `stop-timeout` = \"5\": write \"500ms\", \"90s\" or \"2min\"",
            "a.toml:4: `stop-signal`: unknown signal TREM",
        ],
    );
    check(
        &format!("{GOOD}capabilities = [\"NET_ADMIM\"]\n"),
        &["a.toml:3: unknown capability NET_ADMIM; did you mean NET_ADMIN?"],
    );
    check(&format!("{GOOD}devices = [\"/etc/x\"]\n"), &["a.toml:3: /etc/x is not below /dev"]);
    check("exec = [\"a\"]\nuser = \"root\"\n", &["a.toml:1: `exec`: a is not an absolute path"]);
    assert!(service::parse("a.toml", "a", "exec = [\n\n").unwrap_err()[0].line > 0);
}

#[test]
fn each_new_key() {
    let rules = |more: &str| match service::parse("a.toml", "a", &format!("{GOOD}{more}\n")) {
        Ok(service) => service.rules,
        Err(problems) => panic!("{more}: {problems:?}"),
    };
    let known = || Rules::default();
    let check = Liveness { every: 30_000, timeout: 5_000, failures: 3 };
    let socket = "ready = \"socket\"\nready-socket = \"/run/a.sock\"";
    for (more, expect) in [
        ("", known()),
        ("oneshot = true", Rules { ready: Ready::Ended, ..known() }),
        ("oneshot = false", known()),
        (socket, Rules { ready: Ready::Socket, ..known() }),
        (
            "backoff = { first = \"1s\", longest = \"5min\" }",
            Rules { backoff: Backoff { first: 1_000, longest: 300_000 }, ..known() },
        ),
        (
            "backoff.first = \"1min\"",
            Rules { backoff: Backoff { first: 60_000, longest: 60_000 }, ..known() },
        ),
        (
            "crash-budget = { crashes = 3, within = \"1h\" }",
            Rules { budget: Budget { crashes: 3, within: 3_600_000 }, ..known() },
        ),
        ("retry = \"90s\"", Rules { retry: Some(90_000), ..known() }),
        ("retry = \"never\"", Rules { retry: None, ..known() }),
        ("watchdog = \"60s\"", Rules { watchdog: Some(60_000), ..known() }),
        ("vital = true", Rules { vital: true, ..known() }),
        ("liveness = { exec = [\"/bin/c\"] }", Rules { liveness: Some(check), ..known() }),
        (
            "[liveness]\nexec = [\"/bin/c\"]\nevery = \"1s\"\ntimeout = \"2s\"\nfailures = 9",
            Rules {
                liveness: Some(Liveness { every: 1_000, timeout: 2_000, failures: 9 }),
                ..known()
            },
        ),
        ("socket = \"/a\"\ndrains = true", Rules { drains: true, ..known() }),
    ] {
        assert_eq!(rules(more), expect, "{more}");
    }
    let text = format!(
        "{GOOD}dir = \"/var\"\n{socket}\nliveness = {{ exec = [\"/bin/c\", \"x\"] }}\n\
         log = {{ ring = \"64KiB\", console = true, burst = 9, rate = 3 }}\n\
         cgroup = {{ memory-max = \"64MiB\", memory-high = 1000, memory-min = \"1GiB\", oom-group = false, \
         cpu-weight = 7, cpu-max = \"250%\", pids-max = 64, io-weight = 10000 }}\n"
    );
    let service = service::parse("a.toml", "a", &text).unwrap();
    assert_eq!((service.dir.as_str(), service.check.len()), ("/var", 2));
    assert_eq!(service.ready_socket.as_deref(), Some("/run/a.sock"));
    let log = crate::journal::Rules { ring: 64 << 10, console: true, burst: 9, rate: 3 };
    assert_eq!(service.log, log);
    let cgroup = Resources {
        memory_max: Some(64 << 20),
        memory_high: Some(1_000),
        memory_min: Some(1 << 30),
        oom_group: false,
        cpu_weight: Some(7),
        cpu_max: Some(250),
        pids_max: Some(64),
        io_weight: Some(10_000),
    };
    assert_eq!(service.cgroup, cgroup);
}

#[test]
fn each_kind_of_mistake_in_the_new_keys() {
    for (more, expect) in [
        ("oneshot = \"yes\"", "3: `oneshot` must be true or false"),
        (
            "oneshot = true\nready = \"fd\"",
            " `ready` and `oneshot`: a oneshot is ready when it has ended",
        ),
        (
            "oneshot = true\nwatchdog = \"9s\"",
            " `watchdog` and `oneshot`: a oneshot is ready when it has ended",
        ),
        (
            "ready = \"socket\"",
            " `ready` = \"socket\" needs `ready-socket`, the path that it binds",
        ),
        ("\nready-socket = \"/a\"", "4: `ready-socket` means nothing without `ready` = \"socket\""),
        ("dir = \"var\"", "3: `dir`: var is not an absolute path"),
        ("drains = true", " `drains` needs a `socket`, where it is asked"),
        ("backoff = \"1s\"", "3: `backoff` is a string, not a table"),
        (
            "backoff = { frist = \"1s\" }",
            "3: unknown key `backoff.frist`; did you mean `backoff.first`?",
        ),
        (
            "\n[backoff]\nfirst = \"9s\"\nlongest = \"1s\"",
            "4: `backoff`: `longest` is shorter than `first`",
        ),
        ("backoff.first = \"0s\"", "3: `backoff.first` must be longer than 0"),
        ("crash-budget = { crashes = 0 }", "3: `crash-budget.crashes` must be a number, 1 to 1000"),
        ("[crash-budget]\n\nwithin = 3", "5: `crash-budget.within` is a integer, not a text"),
        (
            "retry = \"nevre\"",
            "3: `retry` = \"nevre\": write \"500ms\", \"90s\" or \"2min\" or \"never\"",
        ),
        ("watchdog = \"0ms\"", "3: `watchdog` must be longer than 0"),
        (
            "liveness = { every = \"9s\" }",
            "3: `liveness.exec` is missing: a list of the program and its arguments",
        ),
        ("[liveness]\nexec = [\"c\"]\n", "4: `liveness.exec`: c is not an absolute path"),
        (
            "[liveness]\nexec = [\"/c\"]\nxyzzy = 1",
            "5: unknown key `liveness.xyzzy`; known are exec, every, timeout, failures",
        ),
        ("log = { ring = \"64KB\" }", "3: `log.ring`: write \"64MiB\" or a number of bytes"),
        ("log = { console = 1 }", "3: `log.console` must be true or false"),
        ("log = { rate = -1 }", "3: `log.rate` must be a number, 0 or more"),
        (
            "[cgroup]\nmemory_max = 1",
            "4: unknown key `cgroup.memory_max`; did you mean `cgroup.memory-max`?",
        ),
        (
            "[cgroup]\nmemory-max = \"99999999TiB\"",
            "4: `cgroup.memory-max`: write \"64MiB\" or a number of bytes",
        ),
        ("[cgroup]\ncpu-weight = 0", "4: `cgroup.cpu-weight` must be a number, 1 to 10000"),
        (
            "[cgroup]\ncpu-max = \"half\"",
            "4: `cgroup.cpu-max` = \"half\": write \"50%\"; \"200%\" is two processors",
        ),
        ("[cgroup]\npids-max = true", "4: `cgroup.pids-max` must be a number, 1 to 4194304"),
    ] {
        check(&format!("{GOOD}{more}\n"), &[&format!("a.toml:{expect}")]);
    }
}

/// The keys that a problem with an unknown one names.
fn known(text: &str) -> Vec<String> {
    let problems = service::parse("a.toml", "a", text).unwrap_err();
    let what = &problems[0].what;
    let (_, known) = what.split_once("; known are ").expect(what);
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_documents_table_is_ours() {
    let text = include_str!("../../../../docs/units.md");
    let table = text.split("<!-- keys -->").nth(1).unwrap();
    let table = table.split("<!-- /keys -->").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let mut keys: Vec<&str> = rows.iter().map(|row| row.split('`').nth(1).unwrap()).collect();
    keys.sort_unstable();
    let mut ours = known(&format!("{GOOD}\nxyzzy = 1\n"));
    ours.sort_unstable();
    assert_eq!(keys, ours);
    for table in ["backoff", "crash-budget", "liveness", "log", "cgroup", "sandbox"] {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{table}`"))).unwrap();
        let exec = if table == "liveness" { "exec = [\"/c\"]\n" } else { "" };
        for key in known(&format!("{GOOD}[{table}]\n{exec}xyzzyx = 1\n")) {
            assert!(row.contains(&format!("`{key}`")), "{table}.{key}");
        }
    }
}

#[test]
fn templates() {
    let text =
        "exec = [\"/bin/v\"]\nnamespaces = [\"mount\"]\nfirst-user = 20000\n[limits]\nfiles = 9\n";
    let template = template::parse("vm.toml", "vm", text).unwrap();
    assert_eq!((template.first_user, template.slots, template.empty_root), (20_000, 10_000, true));
    assert_eq!(template.limits, [(Resource::Files, 9)]);
    let bad = |text: &str| template::parse("vm.toml", "vm", text).unwrap_err()[0].to_string();
    assert_eq!(
        bad(&text.replace("[\"mount\"]", "[]")),
        "vm.toml: `root` = \"empty\" or \"proc\" needs the namespace mount"
    );
    assert_eq!(bad(&text.replace("20000", "0")), "vm.toml: `first-user` must be 1000 or more");
    assert!(bad(&text.replace("files", "file")).starts_with("vm.toml:5: `limits.file`"));
    assert!(
        bad(&text.replace("\"mount\"", "\"mount\", \"user\"")).contains("unknown namespace user")
    );
    assert_eq!(template.oom_score, 0);
    assert!(bad(&format!("oom-score = 1001\n{text}")).starts_with("vm.toml:1: `oom-score`"));
    // Each key of a template stands in the documents.
    let told = include_str!("../../../../docs/units.md");
    let told = told.split("template-keys -->").nth(1).unwrap();
    let unknown = bad(&format!("xyzzy = 1\n{text}"));
    let known = unknown.split(" known are ").nth(1).unwrap_or_default();
    assert!(!known.is_empty(), "{unknown}");
    for key in known.split(", ") {
        assert!(told.contains(&format!("`{key}`")), "{key}");
    }
}

fn service(name: &str, after: &[&str], requires: &[&str]) -> Service {
    let list = |names: &[&str]| format!("{names:?}");
    let text = format!("{GOOD}after = {}\nrequires = {}\n", list(after), list(requires));
    service::parse("x.toml", name, &text).unwrap()
}

fn ordered(services: Vec<Service>) -> (Vec<String>, Vec<String>) {
    let (services, problems) = graph::order(services);
    (
        services.into_iter().map(|service| service.name).collect(),
        problems.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn the_graph() {
    let (names, problems) =
        ordered(vec![service("c", &["b"], &[]), service("b", &[], &["a"]), service("a", &[], &[])]);
    assert_eq!((names, problems), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec![]));

    let (names, problems) = ordered(vec![
        service("a", &["b"], &[]),
        service("b", &["c"], &[]),
        service("c", &["a"], &[]),
        service("d", &["a"], &[]),
    ]);
    assert_eq!(names, ["d"]);
    assert_eq!(
        problems,
        [
            "a.toml: each waits for the next: a -> b -> c -> a",
            "d.toml: starts after a, which is not there"
        ]
    );

    let (names, problems) = ordered(vec![
        service("a", &[], &["b"]),
        service("b", &[], &["gone"]),
        service("c", &["a"], &[]),
    ]);
    assert_eq!(names, ["c"]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[0], "b.toml: requires gone, which is not there");

    let (names, problems) = ordered(vec![service("a", &["a"], &[])]);
    assert_eq!(
        (names.len(), problems),
        (0, vec!["a.toml: each waits for the next: a -> a".to_owned()])
    );
}

#[test]
fn the_units_of_the_image_are_good() {
    let units = load_committed();
    assert_eq!(units.problems, []);
    let names: Vec<&str> = units.services.iter().map(|service| service.name.as_str()).collect();
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap();
    for (earlier, later) in [
        ("storaged", "identityd"),
        ("identityd", "netd"),
        ("netd", "capacityd"),
        ("capacityd", "vmd"),
        ("vmd", "provisiond"),
        ("identityd", "apid"),
    ] {
        assert!(place(earlier) < place(later), "{names:?}");
    }
    let vm = &units.templates["vm"];
    assert_eq!((vm.first_user, vm.slots, vm.empty_root, vm.proc), (20_000, 10_000, true, false));
    let share = &units.templates["virtiofsd"];
    assert_eq!((share.first_user, share.slots, share.proc), (100_000, 80_000, true));
    assert_eq!((share.owned.as_deref(), vm.owned.as_deref()), (Some("folder"), None));
    use Namespace::{Cgroup, Ipc, Mount, Net, Pid, Uts};
    assert_eq!(vm.namespaces, [Mount, Pid, Net, Ipc, Uts, Cgroup]);
    let limit = |resource| vm.limits.iter().find(|(r, _)| *r == resource).map(|(_, limit)| *limit);
    assert_eq!(limit(Resource::Core), Some(0));
    assert!(limit(Resource::LockedMemory).is_some_and(|most| most <= 4 << 20));
    assert!(limit(Resource::Processes).is_some() && limit(Resource::Files).is_some());
    assert!(vm.oom_score > 0 && vm.open_arguments == 0);
    for service in &units.services {
        let user = user::name(service.user).unwrap();
        assert_eq!(service.name, format!("{user}d"));
        if let Some(socket) = &service.socket {
            assert_eq!(*socket, format!("/run/zos/{user}.sock"));
        }
    }
}

/// The committed files lie one folder above this crate, as `units` and `templates`.
fn load_committed() -> Units {
    load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")))
}

#[test]
fn a_broken_file_costs_only_its_unit() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("units")).unwrap();
    fs::write(dir.path().join("units/good.toml"), GOOD).unwrap();
    fs::write(dir.path().join("units/bad.toml"), "exec = 3").unwrap();
    fs::write(dir.path().join("units/README"), "not a unit").unwrap();
    let units = load(dir.path());
    assert_eq!(units.services.len(), 1);
    assert!(units.problems.iter().any(|problem| problem.file == "bad.toml" && problem.line == 1));
    assert!(units.problems.iter().any(|problem| problem.file.ends_with("templates")));
}

proptest! {
    #[test]
    fn any_text_is_taken(text in "(?s).{0,200}") {
        let _ = service::parse("a.toml", "a", &text);
        let _ = template::parse("a.toml", "a", &text);
    }

    #[test]
    fn any_graph_is_ordered(edges in proptest::collection::vec((0..9_usize, 0..10_usize, any::<bool>()), 0..25)) {
        let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
        let mut services: Vec<Service> = names[..9].iter().map(|name| service(name, &[], &[])).collect();
        for (from, to, needs) in edges {
            let rules = &mut services[from].rules;
            rules.after.push(names[to].clone());
            if needs {
                rules.requires.push(names[to].clone());
            }
        }
        let (services, _) = graph::order(services);
        for (at, service) in services.iter().enumerate() {
            for before in &service.rules.after {
                let place = services.iter().position(|other| other.name == *before);
                prop_assert!(place.is_some_and(|place| place < at));
            }
        }
    }
}

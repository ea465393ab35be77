//! The farmer's commands, over real TLS before a node in memory: what they say, ask and survive.

mod place;

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use apid::fake::{FakeNode, Run};
use nix::pty::openpty;
use place::{Ended, Place, run};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;
use zos_api::local::init::Action;
use zos_types::disk::Role;

/// A node whose farmer has the key, and a run of its API.
async fn start() -> (Place, Run) {
    let (node, folder) = (FakeNode::new(9), tempfile::tempdir().unwrap());
    let key = folder.path().join("key");
    let made = run(None, &key, folder.path(), &["key", "new"]).await;
    node.set_farmer(made.text().trim());
    let run = node.run(([127, 0, 0, 1], 0).into()).await.unwrap();
    (Place { address: run.address.to_string(), node, folder }, run)
}

/// Runs the program with a terminal as its input, on which somebody answers.
async fn answered(place: &Place, arguments: &[&str], answer: &str) -> Ended {
    let pty = openpty(None, None).unwrap();
    File::from(pty.master.try_clone().unwrap()).write_all(answer.as_bytes()).unwrap();
    let output = place.command(arguments).stdin(Stdio::from(pty.slave)).output();
    let output = timeout(Duration::from_secs(20), output).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

#[tokio::test]
async fn services_are_shown_and_restarted() {
    let (place, _run) = start().await;
    let restarted = place.zos(&["service", "restart", "storaged"]).await;
    assert_eq!(restarted.code, 0, "{restarted:?}");
    assert!(restarted.text().contains("storaged is being restarted"), "{restarted:?}");
    let list = place.zos(&["service", "list"]).await.text();
    assert!(list.starts_with("SERVICE   STATE    SINCE"), "{list}");
    assert!(
        list.contains("storaged  running") && list.contains("1         ended by SIGTERM"),
        "{list}"
    );
    assert!(list.ends_with("\n1 program runs for twins\n"), "{list}");
    let json = place.zos(&["service", "list", "--json"]).await.json();
    assert_eq!((&json["services"][1]["restarts"], &json["transient"]), (&1.into(), &1.into()));

    let status = place.zos(&["service", "status", "storaged"]).await.text();
    for part in ["running since ", "ended by SIGTERM", "5 MiB, at most 6 MiB", "1.250 s", "0 B; "] {
        assert!(status.contains(part), "{part} in {status}");
    }
    let json = place.zos(&["service", "status", "storaged", "--json"]).await.json();
    assert_eq!((&json["usage"]["pids"], &json["name"]), (&3.into(), &"storaged".into()));
    let absent = place.zos(&["service", "status", "none"]).await;
    assert_eq!(absent.code, 4, "{absent:?}");
    assert!(absent.stderr.contains("there is no service `none`"), "{absent:?}");
}

#[tokio::test]
async fn who_is_not_the_farmer_is_told_so() {
    let (place, _run) = start().await;
    let other = place.path("other");
    run(None, &other, place.folder.path(), &["key", "new"]).await;
    let node = format!("{}@{}", place.node.id(), place.address);
    let check = async |node: &str, arguments: &[&str], said: &str| {
        let refused = run(Some(node), &other, place.folder.path(), arguments).await;
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    };
    check(&node, &["service", "list"], "`zos key show` shows which key you sign with").await;
    check(&node, &["service", "logs", "apid", "-f"], "only the farmer may do this").await;
    check(&node, &["node", "reboot", "--yes"], "only the farmer may do this").await;
    let unset = FakeNode::new(9);
    let node = format!("{}@{}", unset.id(), unset.serve().await.unwrap());
    check(&node, &["node", "metrics"], "zos.farmer=<id>").await;
    assert_eq!(place.node.shut_down(), []);
}

#[tokio::test]
async fn a_node_is_stopped_only_by_a_clear_yes() {
    let (place, _run) = start().await;
    let silent = place.zos(&["node", "reboot"]).await;
    assert_eq!(silent.code, 2, "{silent:?}");
    assert!(silent.stderr.contains("--yes"), "{silent:?}");
    for answer in ["n\n", "\n", "\u{4}"] {
        let refused = answered(&place, &["node", "poweroff"], answer).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("holds 0 deployments with 0 VMs. Switch off the node?"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("nothing was done"), "{refused:?}");
    }
    assert_eq!(place.node.shut_down(), []);
    let agreed = answered(&place, &["node", "poweroff"], "y\n").await;
    assert_eq!(agreed.code, 0, "{agreed:?}");
    assert!(agreed.text().contains("the node is going down, to switch off"), "{agreed:?}");
    let reboot = place.zos(&["node", "reboot", "--yes", "--json"]).await;
    assert_eq!(reboot.json()["action"], "reboot");
    assert_eq!(place.node.shut_down(), [Action::Poweroff, Action::Reboot]);
    let kexec = place.zos(&["node", "reboot", "--kexec", "--yes"]).await;
    assert_eq!(kexec.code, 3, "{kexec:?}");
    assert!(kexec.stderr.contains("no kernel is loaded"), "{kexec:?}");
    // what runs may be unknown: provisiond is silent, and the farmer reboots because of that
    place.node.set_silent(true);
    let unknown = answered(&place, &["node", "reboot"], "yes\n").await;
    assert_eq!(unknown.code, 0, "{unknown:?}");
    assert!(unknown.stderr.contains("is not known: provisiond does not answer"), "{unknown:?}");
}

#[tokio::test]
async fn crashes_and_metrics_are_shown() {
    let (place, _run) = start().await;
    let crashes = place.zos(&["node", "crashes"]).await;
    let both = "== dmesg-ramoops-0\nKernel panic\n\\u{1b}[2J\n\n== dmesg-ramoops-1\nolder\n";
    assert_eq!((crashes.text().as_str(), crashes.stderr.as_str()), (both, ""));
    place.node.set_storage_silent(true);
    let found = place.zos(&["node", "crashes"]).await;
    assert!(
        found.stderr.contains("storaged is silent") && !found.text().contains("older"),
        "{found:?}"
    );
    let json = place.zos(&["node", "crashes", "--json"]).await.json();
    assert_eq!(json["crashes"][0]["text"], "Kernel panic\n\u{1b}[2J\n");
    let metrics = place.zos(&["node", "metrics"]).await.text();
    assert!(metrics.contains("zos_scrape_ok{daemon=\"storaged\"} 0\n"), "{metrics}");
    assert!(
        metrics.contains("zos_init_unit_up{unit=\"apid\"} 1\n") && metrics.ends_with("# EOF\n")
    );
    let json = place.zos(&["node", "metrics", "--json"]).await.json();
    assert!(json["text"].as_str().unwrap().ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_boot_and_the_watchdog_are_told() {
    let (place, _run) = start().await;
    let node = place.zos(&["node", "show"]).await.text();
    assert!(node.contains("booted    after power loss, "), "{node}");
    assert!(
        node.contains("watchdog  i6300ESB timer: boots a node that hangs again after 30 s"),
        "{node}"
    );
}

#[tokio::test]
async fn logs_are_for_people_and_for_programs() {
    let (place, _run) = start().await;
    place.node.print("apid", 6, r#"{"msg":"up","target":"apid","port":8443}"#);
    place.node.print("apid", 4, r#"{"msg":"odd\u001b[2J","why":"no reason"}"#);
    place.node.print("apid", 3, "raw \u{1b}]0;x\u{7}");
    let lines = async |arguments: &[&str]| -> Vec<String> {
        let ended = place.zos(&[&["service", "logs", "apid"], arguments].concat()).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.text().lines().map(str::to_owned).collect()
    };
    let all = lines(&[]).await;
    assert!(all[0].ends_with("Z info    up port=8443"), "{all:?}");
    assert!(all[1].ends_with("Z warning odd\\u{1b}[2J why=\"no reason\""), "{all:?}");
    assert!(all[2].ends_with("Z error   raw \\u{1b}]0;x\\u{7}"), "{all:?}");
    assert_eq!(all.len(), 3);
    assert_eq!(lines(&["--level", "warning"]).await.len(), 2);
    assert_eq!(lines(&["--level", "err"]).await.len(), 1);
    assert_eq!(lines(&["--since", "1d"]).await.len(), 3);
    let json = lines(&["--json"]).await;
    let third: serde_json::Value = serde_json::from_str(&json[2]).unwrap();
    assert_eq!((&third["level"], &third["text"]), (&3.into(), &"raw \u{1b}]0;x\u{7}".into()));
    place.node.forget_lines("apid", 1);
    assert_eq!(lines(&[]).await[0], "-- 2 lines are no longer there --");
    assert_eq!(lines(&["--since", "10min"]).await.len(), 1);
    for wrong in [&["--level", "loud"], &["--since", "10"]] {
        let ended = place.zos(&[&["service", "logs", "apid"][..], wrong].concat()).await;
        assert_eq!(ended.code, 2, "{ended:?}");
    }
}

/// A program that follows a log.
struct Follower {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Follower {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command(&[&["service", "logs"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, child }
    }

    async fn next(&mut self) -> String {
        let line = timeout(Duration::from_secs(20), self.lines.next_line()).await;
        line.expect("a line comes").unwrap().expect("it goes on")
    }
}

#[tokio::test]
async fn following_goes_on_over_restarts_without_losing_a_line() {
    let (place, mut api) = start().await;
    let address = api.address;
    let mut follower = Follower::start(&place, &["storaged", "-f"]);
    let mut told = 0;
    for round in 1..=3 {
        for _ in 0..20 {
            told += 1;
            place.node.print("storaged", 6, &format!("line {told}"));
        }
        for count in told - 19..=told {
            assert!(follower.next().await.ends_with(&format!("info    line {count}")), "{round}");
        }
        api.stop().await;
        told += 1;
        place.node.print("storaged", 6, &format!("line {told}")); // while nobody listens
        api = place.node.run(address).await.unwrap();
        assert!(follower.next().await.ends_with(&format!("info    line {told}")), "{round}");
    }
    api.stop().await;
    place.node.reboot();
    place.node.print("storaged", 6, "of the new boot");
    let _api = place.node.run(address).await.unwrap();
    assert_eq!(follower.next().await, "-- the node was booted; the log begins anew --");
    assert!(follower.next().await.ends_with("of the new boot"));
    follower.child.kill().await.unwrap();
    let mut said = String::new();
    let mut stderr = follower.child.stderr.take().unwrap();
    tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut said).await.unwrap();
    assert_eq!(said.matches("the log broke off").count(), 4, "{said}");
}

/// What can't heal ends it: another farmer was named meanwhile.
#[tokio::test]
async fn following_ends_with_a_refusal() {
    let (place, api) = start().await;
    let address = api.address;
    let mut follower = Follower::start(&place, &["apid", "--follow", "--json"]);
    place.node.print("apid", 6, "x");
    assert!(follower.next().await.contains(r#""text":"x""#));
    api.stop().await;
    place.node.set_farmer(&place.node.id().to_string());
    let _api = place.node.run(address).await.unwrap();
    let status = timeout(Duration::from_secs(20), follower.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn a_disk_is_adopted_when_its_serial_is_typed() {
    let (place, _run) = start().await;
    let list = place.zos(&["disk", "list"]).await.text();
    assert!(list.starts_with("DISK     ROLE     SIZE"), "{list}");
    assert!(list.contains("sda      foreign  100 GiB") && list.contains("FAKE-sda"), "{list}");

    let nobody = place.zos(&["disk", "adopt", "sda"]).await;
    assert_eq!(nobody.code, 2, "{nobody:?}");
    assert!(nobody.stderr.contains("--plan HASH"), "{nobody:?}");
    for no in ["y\n", "\n", "sda\n", "fake-sda\n"] {
        let refused = answered(&place, &["disk", "adopt", "sda"], no).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("nothing was done"), "{refused:?}");
        assert!(refused.stderr.contains("Lost for good:\n  - a Linux file system “photos”"));
    }
    assert_eq!(place.zos(&["disk", "show", "sda", "--json"]).await.json()["role"], "foreign");
    let adopted = answered(&place, &["disk", "adopt", "sda"], "FAKE-sda\n").await;
    assert_eq!(adopted.code, 0, "{adopted:?}");
    assert!(adopted.text().contains("ours: pool"), "{adopted:?}");
    let twice = answered(&place, &["disk", "adopt", "sda"], "FAKE-sda\n").await;
    assert_eq!(twice.code, 3, "{twice:?}");
    assert_eq!(place.zos(&["disk", "show", "sdx"]).await.code, 4);
}

#[tokio::test]
async fn a_plan_that_is_out_of_date_is_refused() {
    let (place, _run) = start().await;
    let plan = place.zos(&["disk", "adopt", "sda", "--dry-run", "--json"]).await.json();
    let hash = plan["hash"].as_str().unwrap();
    place.node.touch_disk("sda");
    let stale = place.zos(&["disk", "adopt", "sda", "--plan", hash]).await;
    assert_eq!(stale.code, 3, "{stale:?}");
    assert!(stale.stderr.contains("has changed since that plan"), "{stale:?}");
    let plan = place.zos(&["disk", "adopt", "sda", "--dry-run"]).await.text();
    let hash = plan.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(place.zos(&["disk", "adopt", "sda", "--plan", &hash]).await.code, 0);
}

#[tokio::test]
async fn a_release_is_followed_until_the_disk_can_go() {
    let (place, _run) = start().await;
    let pools = place.zos(&["pool", "list"]).await.text();
    assert!(pools.contains("nvme0n1  ssd    95 GiB  90 GiB  ready"), "{pools}");
    let scrub = place.zos(&["pool", "scrub", "00000000000000aa"]).await;
    assert!(scrub.text().contains("is being looked through"), "{scrub:?}");
    assert_eq!(place.zos(&["pool", "scrub", "aa"]).await.code, 4);
    let plan = place.zos(&["disk", "release", "nvme0n1", "--dry-run", "--json"]).await.json();
    let hash = plan["hash"].as_str().unwrap().to_owned();
    let node = place.node.clone();
    let release = tokio::spawn(async move {
        let released = place.zos(&["disk", "release", "nvme0n1", "--plan", &hash, "--wait"]).await;
        (released, place)
    });
    let leaving = async |node: &FakeNode| {
        use apid::backend::Disks;
        node.disks().await.unwrap()[0].role == Role::Leaving
    };
    while !leaving(&node).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.set_disk("nvme0n1", Role::Empty, "released: it can be taken out");
    let (released, _place) = timeout(Duration::from_secs(20), release).await.unwrap().unwrap();
    assert_eq!(released.code, 0, "{released:?}");
    assert!(released.stderr.contains("nvme0n1: it is being emptied"), "{released:?}");
    assert!(released.text().contains("empty: released: it can be taken out"), "{released:?}");
}

//! The program itself, over real TLS, before a node in memory: output, exit codes, what it says.

mod place;

use apid::fake::{FakeNode, LOG, TICK};
use place::{Place, run};

impl Place {
    pub(crate) async fn new() -> Self {
        let node = FakeNode::new(9);
        let socket = node.serve().await.unwrap();
        let place =
            Self { address: socket.to_string(), node, folder: tempfile::tempdir().unwrap() };
        assert_eq!(place.zos(&["key", "new"]).await.code, 0);
        place
    }
}

const HELLO: &str = include_str!("../../../docs/examples/hello.toml");

#[tokio::test]
async fn the_sample_goes_its_way() {
    let place = Place::new().await;
    let file = place.path("hello.toml");
    std::fs::write(&file, HELLO).unwrap();

    let dry = place.zos(&["apply", "-f", "hello.toml", "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(dry.text().starts_with("would create hello version 1; it uses 0.25 CU"), "{dry:?}");
    assert_eq!(place.zos(&["list"]).await.text(), "NAME  VERSION  WORKLOADS\n");

    let applied = place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "10"]).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.stderr.contains("created hello version 1"), "{applied:?}");
    assert!(applied.stderr.contains("hello/hello: running"), "{applied:?}");
    assert!(applied.text().contains("10.1.0.2"), "{applied:?}");
    let again = place.zos(&["apply", "-f", "hello.toml", "--json"]).await.json();
    assert_eq!(again["change"], "unchanged");

    let list = place.zos(&["list"]).await.text();
    assert!(list.contains("hello  1        1 ready, 1 running"), "{list}");
    assert_eq!(place.zos(&["show", "hello", "--json"]).await.json()["deployment"]["version"], 1);
    assert_eq!(place.zos(&["logs", "hello/hello"]).await.stdout, LOG);

    std::fs::write(&file, HELLO.replace("256MiB", "512MiB")).unwrap();
    let conflict = place.zos(&["apply", "-f", "hello.toml"]).await;
    assert_eq!(conflict.code, 3, "{conflict:?}");
    assert!(conflict.stderr.contains("Write `version = 2`"), "{conflict:?}");

    let deleted = place.zos(&["delete", "hello"]).await;
    assert!(deleted.text().contains("next version of this name is 2"), "{deleted:?}");
    assert_eq!(place.zos(&["show", "hello"]).await.code, 4);
}

#[tokio::test]
async fn snapshots_are_made_shown_gone_back_to_and_destroyed() {
    let place = Place::new().await;
    std::fs::write(place.path("hello.toml"), HELLO).unwrap();
    assert_eq!(place.zos(&["apply", "-f", "hello.toml"]).await.code, 0);
    let made = place.zos(&["snapshot", "create", "hello/data@monday"]).await;
    assert!(made.text().starts_with("hello/data@monday: 1 GiB as of "), "{made:?}");
    let named = place.zos(&["snapshot", "create", "hello/data", "--json"]).await.json();
    let name = named["name"].as_str().unwrap();
    assert!(name.starts_with("20") && name.len() == 15, "{name}");
    for list in [vec!["snapshot", "list"], vec!["snapshot", "list", "hello/data"]] {
        let list = place.zos(&list).await.text();
        let lines: Vec<&str> = list.lines().collect();
        assert!(lines.len() == 3 && lines[1].starts_with("hello/data@monday"), "{list}");
    }
    let shown = place.zos(&["show", "hello"]).await.text();
    assert!(shown.contains("hello/data\n  size       1 GiB of ssd\n"), "{shown}");
    assert!(shown.contains("  snapshot   monday: 1 GiB as of "), "{shown}");

    // What can't be undone is never done unasked; nobody is at this terminal.
    for command in ["restore", "delete"] {
        let unasked = place.zos(&["snapshot", command, "hello/data@monday"]).await;
        assert_eq!(unasked.code, 2, "{unasked:?}");
        assert!(unasked.stderr.contains("say --yes"), "{unasked:?}");
        let unnamed = place.zos(&["snapshot", command, "hello/data", "--yes"]).await;
        assert_eq!(unnamed.code, 2, "{unnamed:?}");
        let unknown = place.zos(&["snapshot", command, "hello/data@friday", "--yes"]).await;
        assert_eq!(unknown.code, 4, "{unknown:?}");
    }
    let back = place.zos(&["snapshot", "restore", "hello/data@monday", "--yes"]).await;
    assert!(back.text().starts_with("hello/data is as it was at "), "{back:?}");
    let gone = place.zos(&["snapshot", "delete", "hello/data@monday", "--yes"]).await;
    assert_eq!((gone.code, gone.stderr.as_str()), (0, "deleted hello/data@monday\n"));
    let list = place.zos(&["snapshot", "list", "--json"]).await.json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(list["snapshots"][0]["volume"], "hello/data");
}

#[tokio::test]
async fn waiting_ends_and_says_what_is_late() {
    let place = Place::new().await;
    place.node.set_stuck(true);
    std::fs::write(place.path("hello.toml"), HELLO).unwrap();
    let late = place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "1"]).await;
    assert_eq!(late.code, 6, "{late:?}");
    assert!(late.stderr.contains("hello/hello: degraded /dev/kvm is absent"), "{late:?}");
    assert!(
        late.stderr.contains("after 1 s hello/hello is degraded; `zos show hello`"),
        "{late:?}"
    );
    assert!(place.zos(&["show", "hello"]).await.text().contains("/dev/kvm is absent"));
}

#[tokio::test]
async fn without_a_version_the_one_that_is_due_is_taken() {
    let place = Place::new().await;
    let apply = async |text: &str| {
        let text = text.replace("version = 1\n", "");
        std::fs::write(place.path("hello.toml"), text).unwrap();
        let json = place.zos(&["apply", "-f", "hello.toml", "--json"]).await.json();
        (
            json["change"].as_str().unwrap().to_owned(),
            json["status"]["deployment"]["version"].clone(),
        )
    };
    assert_eq!(apply(HELLO).await, ("created".into(), 1.into()));
    assert_eq!(apply(HELLO).await, ("unchanged".into(), 1.into()));
    assert_eq!(apply(&HELLO.replace("256MiB", "512MiB")).await, ("updated".into(), 2.into()));
    place.zos(&["delete", "hello"]).await;
    assert_eq!(apply(HELLO).await, ("created".into(), 3.into()));
}

#[tokio::test]
async fn a_faulty_file_is_told_field_by_field() {
    let place = Place::new().await;
    let apply = async |text: String, code: i32, said: &str| {
        std::fs::write(place.path("web.toml"), text).unwrap();
        let ended = place.zos(&["apply", "-f", "web.toml"]).await;
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    };
    apply(HELLO.replace("cpu = 1", "cpu = 0"), 3, "workloads.hello.cpu: from 1 to 128").await;
    apply(HELLO.replace("cpu = 1", "cpus = 1"), 3, "workloads.hello.cpus: unknown field").await;
    apply(HELLO.replace("cpu = 1", "cpu = "), 1, "line 9").await;
    let name = place.zos(&["apply", "-f", "web.toml", "--name", "Web"]).await;
    assert_eq!(name.code, 2, "{name:?}");
    assert_eq!(place.zos(&["apply", "-f", "absent.toml"]).await.code, 1);
}

#[tokio::test]
async fn the_node_is_shown_also_without_its_id_and_then_with_a_warning() {
    let place = Place::new().await;
    let id = place.node.id().to_string();
    let pinned = place.zos(&["node", "show"]).await;
    assert_eq!((pinned.code, pinned.stderr.as_str()), (0, ""), "{pinned:?}");
    assert!(pinned.text().contains(&id) && pinned.text().contains("storage.foreign-disk:sda"));

    let key = place.path("key");
    let bare = async |arguments: &[&str]| {
        run(Some(&place.address), &key, place.folder.path(), arguments).await
    };
    let shown = bare(&["node", "show", "--json"]).await;
    assert_eq!((shown.code, shown.json()["id"].as_str()), (0, Some(id.as_str())));
    assert!(shown.stderr.contains("not verified") && shown.stderr.contains(&format!("{id}@127.0")));
    let refused = bare(&["capacity"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("zos node show --node 127.0.0.1"), "{refused:?}");
}

#[tokio::test]
async fn capacity_is_a_table_or_json() {
    let place = Place::new().await;
    let text = place.zos(&["capacity"]).await.text();
    assert!(text.contains("MRU (memory)   33 GiB    1 GiB"), "{text}");
    assert!(text.contains("offers 7.75 CU and 4 SU"), "{text}");
    assert_eq!(place.zos(&["--json", "capacity"]).await.json()["capacity"]["cru"]["free"], 8);
}

#[tokio::test]
async fn keys_are_made_once() {
    let place = Place::new().await;
    let shown = place.zos(&["key", "show"]).await.text();
    assert_eq!(place.zos(&["key", "show", "--json"]).await.json()["id"], shown.trim());
    let again = place.zos(&["key", "new"]).await;
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("never replaced"), "{again:?}");
    assert_eq!(place.zos(&["key", "show"]).await.text(), shown);

    let node = format!("{}@{}", place.node.id(), place.address);
    let keyless = run(Some(&node), &place.path("none"), place.folder.path(), &["list"]).await;
    assert_eq!(keyless.code, 2, "{keyless:?}");
    assert!(keyless.stderr.contains("zos key new"), "{keyless:?}");
}

#[tokio::test]
async fn who_does_not_answer_or_is_another_node_is_told_apart() {
    let place = Place::new().await;
    let key = place.path("key");
    let at = async |node: String| run(Some(&node), &key, place.folder.path(), &["list"]).await;
    let gone = at(format!("{}@127.0.0.1:1", place.node.id())).await;
    assert_eq!(gone.code, 5, "{gone:?}");
    assert!(gone.stderr.contains("Is the node on"), "{gone:?}");
    let other = at(format!("{}@{}", FakeNode::new(10).id(), place.address)).await;
    assert_eq!(other.code, 5, "{other:?}");
    assert!(other.stderr.contains("Nothing was sent"), "{other:?}");
    assert_eq!(at("nobody@127.0.0.1".into()).await.code, 2);
    place.node.set_silent(true);
    let silent = place.zos(&["list"]).await;
    assert_eq!(silent.code, 1, "{silent:?}");
    assert!(silent.stderr.contains("Try again"), "{silent:?}");
}

#[tokio::test]
async fn wrong_usage_has_its_code() {
    let place = Place::new().await;
    for arguments in [&["bogus"][..], &[], &["show", "Web"], &["logs", "web"], &["apply"]] {
        assert_eq!(place.zos(arguments).await.code, 2, "{arguments:?}");
    }
    let help = place.zos(&["--help"]).await;
    assert_eq!(help.code, 0);
    assert!(help.text().contains("Exit codes:") && help.text().contains("Examples:"));
}

/// Each byte of a console is the same one whoever asks, so what comes over three runs of the API is the log.
#[tokio::test]
async fn a_console_is_followed_over_restarts_byte_by_byte() {
    use tokio::io::AsyncReadExt;
    let node = FakeNode::new(9);
    let mut api = node.run(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = api.address;
    let place = Place { address: address.to_string(), node, folder: tempfile::tempdir().unwrap() };
    place.zos(&["key", "new"]).await;
    std::fs::write(place.path("hello.toml"), HELLO).unwrap();
    assert_eq!(place.zos(&["apply", "-f", "hello.toml"]).await.code, 0);
    let mut command = place.command(&["logs", "hello/hello", "-f"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    for round in 1..=4 {
        while seen.len() < LOG.len() + 12 * round {
            let read = stdout.read_buf(&mut seen);
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
            assert!(read.unwrap().unwrap() > 0, "it goes on");
        }
        if round < 4 {
            api.stop().await;
            api = place.node.run(address).await.unwrap();
        }
    }
    assert!(seen.starts_with(LOG));
    let ticks = seen[LOG.len()..].chunks(TICK.len());
    assert!(ticks.into_iter().all(|tick| TICK.starts_with(tick)), "{seen:?}");
    // the VM goes, and so does the follower
    assert_eq!(place.zos(&["delete", "hello"]).await.code, 0);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    api.stop().await;
}

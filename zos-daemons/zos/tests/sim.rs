//! The program against a whole node without a machine: the real daemons, from a twin's file to a VM's
//! console, and what its farmer does meanwhile.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use zos_sim::{Fleet, Options};

const HELLO: &str = include_str!("../../../docs/examples/hello.toml");

/// A node whose farmer is the twin.
struct Place {
    fleet: Fleet,
    node: String,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hello.toml"), HELLO).unwrap();
        let (code, key) = run("", folder.path(), &["key", "new", "--json"]).await;
        assert_eq!(code, 0, "{key}");
        let id = serde_json::from_str::<Value>(&key).unwrap()["id"].as_str().unwrap().to_owned();
        let options = Options { farmer: Some(id.parse().unwrap()), ..Options::local() };
        let fleet = Fleet::start(&options).await.unwrap();
        let node = format!("{}@{}", fleet.nodes()[0].id, fleet.nodes()[0].address);
        Self { fleet, node, folder }
    }

    /// What the program prints when all goes well.
    async fn zos(&self, arguments: &[&str]) -> String {
        let (code, text) = run(&self.node, self.folder.path(), arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.zos(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Repeats until the text holds these words.
    async fn until(&self, arguments: &[&str], words: &str) -> String {
        let mut text = String::new();
        for _ in 0..200 {
            text = run(&self.node, self.folder.path(), arguments).await.1;
            if text.contains(words) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{arguments:?} never says `{words}`: {text}");
    }
}

/// Exit code, and what was printed on both outputs.
async fn run(node: &str, folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zos"));
    command.args(arguments).current_dir(folder).env("ZOS_KEY", folder.join("key"));
    command.env("ZOS_NODE", node);
    if node.is_empty() {
        command.env_remove("ZOS_NODE");
    }
    let output = command.output().await.unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_sample_goes_its_whole_way() {
    let place = Place::new().await;
    let dry = place.zos(&["apply", "-f", "hello.toml", "--dry-run"]).await;
    assert!(dry.starts_with("would create hello version 1; it uses 0.25 CU"), "{dry}");
    place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    let list = place.zos(&["list"]).await;
    assert!(list.contains("hello  1        1 ready, 1 running"), "{list}");
    let shown = place.json(&["show", "hello"]).await;
    let address = shown["workloads"]["hello"]["address"].as_str().expect("an address").to_owned();
    let log = place.until(&["logs", "hello/hello"], "hello 2: ").await;
    assert!(log.contains("cpus 1, memory 256 MiB, vda 1024 MiB boots: 1"), "{log}");
    assert!(log.contains(&format!("eth0 {address}/16")), "{log}");
    assert_eq!(place.json(&["capacity"]).await["vms"], 1);

    // Another version: the VM starts anew with what it had.
    let changed = HELLO.replace("version = 1", "version = 2").replace("256MiB", "512MiB");
    std::fs::write(place.folder.path().join("hello.toml"), changed).unwrap();
    place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    place.until(&["logs", "hello/hello"], "memory 512 MiB, vda 1024 MiB boots: 2").await;
    assert_eq!(place.json(&["show", "hello"]).await["deployment"]["version"], 2);
    // What was, can't be applied again.
    std::fs::write(place.folder.path().join("hello.toml"), HELLO).unwrap();
    let (code, said) = run(&place.node, place.folder.path(), &["apply", "-f", "hello.toml"]).await;
    assert_eq!(code, 3, "{said}");

    let deleted = place.zos(&["delete", "hello"]).await;
    assert!(deleted.contains("the next version of this name is 3"), "{deleted}");
    let (code, _) = run(&place.node, place.folder.path(), &["show", "hello"]).await;
    assert_eq!(code, 4);
    assert_eq!(place.zos(&["list"]).await, "NAME  VERSION  WORKLOADS\n");
    place.fleet.end().await.unwrap();
}

#[tokio::test]
async fn a_farmer_restarts_daemons_and_the_node_and_nothing_is_lost() {
    let place = Place::new().await;
    place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    for name in ["provisiond", "vmd", "storaged", "netd"] {
        place.zos(&["service", "restart", name]).await;
        place.until(&["service", "status", name, "--json"], "\"state\": \"running\"").await;
    }
    let shown = place.json(&["show", "hello"]).await;
    assert_eq!(shown["workloads"]["hello"]["restarts"], 0, "{shown}");
    let listed = place.zos(&["service", "list"]).await;
    assert!(listed.contains("provisiond"), "{listed}");
    let logs = place.until(&["service", "logs", "provisiond"], "hello").await;
    assert!(logs.contains("version 1"), "{logs}");
    let metrics = place.zos(&["node", "metrics"]).await;
    assert!(metrics.contains("zos_provision"), "{metrics}");

    place.zos(&["node", "reboot", "--yes"]).await;
    place.until(&["node", "show", "--json"], "\"boot_reason\": \"reboot\"").await;
    place.until(&["show", "hello"], "running").await;
    place.until(&["logs", "hello/hello"], "boots: 2").await;

    let mut fleet = place.fleet;
    let (node, folder) = (place.node, place.folder);
    let (code, said) = run(&node, folder.path(), &["node", "poweroff", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    tokio::time::timeout(Duration::from_secs(30), fleet.all_off()).await.unwrap().unwrap();
    let (code, _) = run(&node, folder.path(), &["node", "show"]).await;
    assert_eq!(code, 5);
}

#[tokio::test]
async fn a_volume_is_kept_gone_back_to_cloned_and_grown() {
    let place = Place::new().await;
    place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    place.until(&["logs", "hello/hello"], "boots: 1").await;
    let made = place.zos(&["snapshot", "create", "hello/data@first"]).await;
    assert!(made.starts_with("hello/data@first: 1 GiB as of "), "{made}");

    // The guest counts its boots on its disk.
    let write =
        |name: &str, text: &str| std::fs::write(place.folder.path().join(name), text).unwrap();
    let second = HELLO.replace("version = 1", "version = 2").replace("256MiB", "512MiB");
    write("hello.toml", &second);
    place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    place.until(&["logs", "hello/hello"], "memory 512 MiB, vda 1024 MiB boots: 2").await;
    place.zos(&["snapshot", "create", "hello/data@second"]).await;

    // Back to the first: the VM stops, and counts on from there.
    let back = place.zos(&["snapshot", "restore", "hello/data@first", "--yes"]).await;
    assert!(back.starts_with("hello/data is as it was at "), "{back}");
    place.until(&["list"], "1 ready, 1 running").await;
    place.until(&["logs", "hello/hello"], "memory 512 MiB, vda 1024 MiB boots: 2").await;
    let shown = place.zos(&["show", "hello"]).await;
    assert!(shown.contains("snapshot   first: 1 GiB as of "), "{shown}");
    let listed = place.zos(&["snapshot", "list", "hello/data"]).await;
    assert_eq!(listed.lines().count(), 3, "{listed}");

    // Another deployment's disk is made from the second one, larger; the first deployment's grows.
    let clone = HELLO
        .replace(r#"size = "1GiB""#, "size = \"2GiB\"\nfrom = \"hello/data@second\"")
        .replace("256MiB", "128MiB");
    write("copy.toml", &clone);
    place.zos(&["apply", "-f", "copy.toml", "--wait", "--timeout", "30"]).await;
    place.until(&["logs", "copy/hello"], "memory 128 MiB, vda 2048 MiB boots: 3").await;
    let third = second.replace("version = 2", "version = 3").replace("1GiB", "3GiB");
    write("hello.toml", &third);
    let used = place.zos(&["apply", "-f", "hello.toml", "--wait", "--timeout", "30"]).await;
    assert!(used.contains("size       3 GiB of ssd"), "{used}");
    let smaller = third.replace("version = 3", "version = 4").replace("3GiB", "2GiB");
    write("hello.toml", &smaller);
    let (code, said) = run(&place.node, place.folder.path(), &["apply", "-f", "hello.toml"]).await;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("workloads.data.size: at least 3 GiB"), "{said}");

    place.zos(&["snapshot", "delete", "hello/data@second", "--yes"]).await;
    // The clone is a volume of its own: what goes with the other's deployment does not touch it.
    write("volumes.toml", include_str!("../../../docs/examples/volumes.toml"));
    place.zos(&["apply", "-f", "volumes.toml", "--wait", "--timeout", "30"]).await;
    let shown = place.zos(&["show", "volumes"]).await;
    assert!(shown.contains("integrity  detect: a corrupt block is an error"), "{shown}");
    let metrics = place.zos(&["node", "metrics"]).await;
    for line in ["zos_provisiond_volumes 4.0", "zos_provisiond_snapshots 1.0"] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert!(metrics.contains("zos_provisiond_storage_reserved_bytes{class=\"ssd\"} "), "{metrics}");

    place.zos(&["delete", "hello"]).await;
    place.until(&["snapshot", "list", "--json"], "\"snapshots\": []").await;
    assert!(place.zos(&["list"]).await.contains("copy     1        1 ready, 1 running"));
    place.fleet.end().await.unwrap();
}

const SECRET: &str = "version = 1
[workloads.hello]
type = \"vm\"
cpu = 1
memory = \"256MiB\"
image = \"builtin:hello\"
disks = [{ volume = \"mine\" }]
networks = [{ network = \"nat\" }]
[workloads.mine]
type = \"volume\"
size = \"64MiB\"
key = \"twin\"
";

#[tokio::test]
async fn a_volume_whose_twin_holds_the_key_waits_for_it_after_each_boot() {
    let place = Place::new().await;
    std::fs::write(place.folder.path().join("web.toml"), SECRET).unwrap();
    let words: Vec<u8> = (0..64).collect();
    std::fs::write(place.folder.path().join("own.key"), &words).unwrap();
    std::fs::write(place.folder.path().join("bad.key"), &words[1..]).unwrap();
    let refused = async |arguments: &[&str], code: i32, expected: &str| {
        let (ended, said) = run(&place.node, place.folder.path(), arguments).await;
        assert!(ended == code && said.contains(expected), "{arguments:?} {ended} {said}");
    };

    // A new one has no key; what to do is told.
    place.zos(&["apply", "-f", "web.toml"]).await;
    let shown = place.until(&["show", "web"], "zos unlock web/mine").await;
    assert!(shown.contains("volume mine: it waits for its twin's key"), "{shown}");
    refused(&["logs", "web/hello"], 4, "web/hello").await;
    refused(&["unlock", "web/mine", "--key-file", "bad.key"], 2, "exactly 64 bytes").await;
    let opened = place.zos(&["unlock", "web/mine"]).await;
    assert_eq!(opened, "opened web/mine; this is its key from now on\n");
    place.until(&["show", "web"], "running").await;
    place.until(&["logs", "web/hello"], "boots: 1").await;
    refused(&["unlock", "web/mine", "--key-file", "own.key"], 3, "is not the key of volume").await;

    // Daemons that are started again find it open.
    for name in ["storaged", "identityd", "provisiond", "vmd"] {
        place.zos(&["service", "restart", name]).await;
        place.until(&["service", "status", name, "--json"], "\"state\": \"running\"").await;
    }
    place.until(&["show", "web"], "running").await;
    let shown = place.json(&["show", "web"]).await;
    assert_eq!(shown["workloads"]["mine"]["state"], "ready", "{shown}");
    assert_eq!(shown["workloads"]["hello"]["restarts"], 0, "{shown}");

    // After a boot it waits, and its VM with it; another key is refused and changes nothing.
    place.zos(&["node", "reboot", "--yes"]).await;
    place.until(&["node", "show", "--json"], "\"boot_reason\": \"reboot\"").await;
    place.until(&["show", "web"], "zos unlock web/mine").await;
    refused(&["unlock", "web/mine", "--key-file", "own.key"], 3, "is not the key of volume").await;
    place.until(&["show", "web"], "zos unlock web/mine").await;
    assert_eq!(place.zos(&["unlock", "web/mine"]).await, "opened web/mine\n");
    place.until(&["show", "web"], "running").await;
    place.until(&["logs", "web/hello"], "boots: 2").await;

    // Waiting opens it as well.
    place.zos(&["node", "reboot", "--yes"]).await;
    place.until(&["show", "web"], "zos unlock web/mine").await;
    place.zos(&["apply", "-f", "web.toml", "--wait", "--timeout", "60"]).await;
    place.until(&["logs", "web/hello"], "boots: 3").await;
    place.zos(&["delete", "web"]).await;
    place.fleet.end().await.unwrap();
}

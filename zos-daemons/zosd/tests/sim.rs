//! `zosd sim` as a program: many nodes, what lasts, how it ends, what it says when it can't.
#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zos_api::client::{Address, Client};
use zos_types::NodeId;
use zos_types::machine::BootReason;
use zos_types::status::State;

/// A running `zosd sim`, on free ports.
struct Sim {
    child: Child,
    nodes: Vec<Value>,
    /// Where it makes its temporary folder: one that is killed leaves it.
    _folder: tempfile::TempDir,
}

impl Sim {
    async fn start(arguments: &[&str]) -> Self {
        Self::of(command(arguments)).await
    }

    async fn of(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        command.args(["--port", "0", "--json"]).env("TMPDIR", folder.path());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
        let mut told: Value = serde_json::from_str(&line.expect("addresses")).unwrap();
        let nodes = std::mem::take(told["nodes"].as_array_mut().unwrap());
        Self { child, nodes, _folder: folder }
    }

    fn client(&self, node: usize) -> Client {
        let address: Address = self.nodes[node]["address"].as_str().unwrap().parse().unwrap();
        Client::new(address, Some(SigningKey::from_bytes(&[7; 32])))
    }

    fn id(&self, node: usize) -> NodeId {
        self.nodes[node]["id"].as_str().unwrap().parse().unwrap()
    }

    fn process(&self) -> rustix::process::Pid {
        let id = self.child.id().unwrap().cast_signed();
        rustix::process::Pid::from_raw(id).unwrap()
    }

    /// Bytes of memory that the process has of its own.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process().as_raw_nonzero());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    async fn end(mut self, signal: rustix::process::Signal) -> Option<i32> {
        rustix::process::kill_process(self.process(), signal).unwrap();
        timeout(Duration::from_secs(60), self.child.wait()).await.unwrap().unwrap().code()
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zosd"));
    command.arg("sim").args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// Exit code and what is said on stderr of one that can't start.
async fn fails(mut command: Command) -> (i32, String) {
    let output = timeout(Duration::from_secs(60), command.stderr(Stdio::piped()).output()).await;
    let output = output.unwrap().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_hundred_nodes_are_a_hundred_different_ones() {
    let start = Instant::now();
    let sim = Sim::start(&["--nodes", "100"]).await;
    let up = start.elapsed();
    let mut asked = JoinSet::new();
    for number in 0..100 {
        let (client, id) = (sim.client(number), sim.id(number));
        asked.spawn(async move {
            let node = client.node().await.unwrap();
            assert_eq!((node.id, node.faults), (id, vec![]));
            id
        });
    }
    let mut ids = BTreeSet::new();
    while let Some(id) = asked.join_next().await {
        ids.insert(id.unwrap());
    }
    assert_eq!(ids.len(), 100);
    let memory = sim.memory() / 100;
    println!("up in {up:?}, answered after {:?}, {} KiB a node", start.elapsed(), memory >> 10);
    assert!(up < Duration::from_secs(120), "{up:?}");
    assert!(memory < 5 << 20, "{memory} bytes a node");
    let folder = Path::new(sim.nodes[0]["sockets"].as_str().unwrap()).to_owned();
    assert!(folder.join("init.sock").exists());
    assert_eq!(sim.end(rustix::process::Signal::TERM).await, Some(0));
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[tokio::test]
async fn the_same_state_is_the_same_node_with_its_deployments() {
    let state = tempfile::tempdir().unwrap();
    let with = ["--state", state.path().to_str().unwrap(), "--nodes", "2"];
    let web = "web".parse().unwrap();
    let running = async |sim: &Sim| {
        for _ in 0..200 {
            if let Ok(status) = sim.client(0).get(&web).await
                && status.workloads.values().any(|w| w.state == State::Running)
            {
                return status.workloads[&"hello".parse().unwrap()].address;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not run: {:?}", sim.client(0).get(&web).await);
    };
    let log = async |sim: &Sim| {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let mut log = sim.client(0).log(&"web/hello".parse().unwrap(), false).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = log.next().await {
            text.extend(piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    };

    let sim = Sim::start(&with).await;
    let first = [sim.id(0), sim.id(1)];
    assert_ne!(first[0], first[1]);
    let vm = json!({
        "type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello",
        "disks": [{ "volume": "data" }], "networks": [{ "network": "nat" }],
    });
    let data = json!({ "type": "volume", "size": "1GiB" });
    let body = json!({ "version": 1, "workloads": { "hello": vm, "data": data } }).to_string();
    sim.client(0).put(&web, body.as_bytes(), false).await.unwrap();
    let address = running(&sim).await;
    assert!(address.is_some() && log(&sim).await.contains("boots: 1"));

    // The state is one simulation's.
    let (code, said) = fails(command(&[&with[..], &["--port", "0"]].concat())).await;
    assert!(code == 1 && said.contains("in use by another simulation"), "{said}");

    // Ended in good order: the next boot is a cold one.
    assert_eq!(sim.end(rustix::process::Signal::INT).await, Some(0));
    let sim = Sim::start(&with).await;
    assert_eq!([sim.id(0), sim.id(1)], first);
    assert_eq!(running(&sim).await, address);
    assert!(log(&sim).await.contains("boots: 2"));
    assert_eq!(sim.client(0).node().await.unwrap().boot_reason, BootReason::Cold);

    // Killed: for the nodes that is a loss of power.
    assert_eq!(sim.end(rustix::process::Signal::KILL).await, None);
    let sim = Sim::start(&with).await;
    assert_eq!([sim.id(0), sim.id(1)], first);
    assert_eq!(running(&sim).await, address);
    assert_eq!(sim.client(0).node().await.unwrap().boot_reason, BootReason::PowerLoss);
    assert_eq!(sim.end(rustix::process::Signal::TERM).await, Some(0));
}

/// As who has no rights at all, if the test itself has some.
#[tokio::test]
async fn it_needs_no_rights() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("zosd");
    // Where it was built may be out of reach for others.
    std::fs::copy(env!("CARGO_BIN_EXE_zosd"), &program).unwrap();
    let mut command = Command::new(program);
    command.arg("sim").stdout(Stdio::piped()).kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let sim = Sim::of(command).await;
    let body =
        json!({ "version": 1, "workloads": { "data": { "type": "volume", "size": "1GiB" } } });
    let (client, web) = (sim.client(0), "web".parse().unwrap());
    client.put(&web, body.to_string().as_bytes(), false).await.unwrap();
    assert_eq!(client.node().await.unwrap().faults, []);
    assert_eq!(sim.end(rustix::process::Signal::TERM).await, Some(0));
}

#[tokio::test]
async fn a_seed_draws_the_same_keys_again() {
    let ids = async |seed: &str| {
        let sim = Sim::start(&["--nodes", "2", "--seed", seed]).await;
        [sim.id(0), sim.id(1)]
    };
    let first = ids("1").await;
    assert_eq!(ids("1").await, first);
    let other = ids("2").await;
    assert!(first[0] != first[1] && !other.contains(&first[0]));
}

#[tokio::test]
async fn what_can_not_be_is_said_with_what_to_do() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let check = async |arguments: &[&str], code: i32, words: &str| {
        let (ended, said) = fails(command(arguments)).await;
        assert!(ended == code && said.contains(words), "{ended} {said}");
    };
    check(&["--port", &port], 1, &format!("listen on 127.0.0.1:{port}: is another node")).await;
    check(&["--port", "65500", "--nodes", "100"], 1, "say a lower --port").await;
    check(&["--nodes", "0"], 2, "--nodes").await;
    check(&["--fault", "bogus"], 2, "there is no fault `bogus`").await;
    check(&["--listen", "203.0.113.1"], 1, "listen on 203.0.113.1").await;

    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    for (place, words) in [(&long, "TMPDIR says where"), (&long.join("absent"), "TMPDIR says")] {
        let mut elsewhere = command(&["--port", "0"]);
        elsewhere.env("TMPDIR", place);
        let (code, said) = fails(elsewhere).await;
        assert!(code == 1 && said.contains(words), "{said}");
    }

    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 512; exec \"$0\" sim --nodes 100", env!("CARGO_BIN_EXE_zosd")]);
    let (code, said) = fails(few).await;
    assert!(
        code == 1 && said.contains("open files, and this system allows 512: start at most 4"),
        "{said}"
    );
}

//! The local sockets, spoken to by somebody else's client: systemd's `varlinkctl`, from its Debian package.
//!
//! It reads our interface texts with its own parser, and knows how an error, a stream and a
//! call without an answer have to look.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::Machine;
use qemu_tests::peers::Peers;
use qemu_tests::{Node, scene};
use serde_json::Value;

const INIT: &str = "/run/zos/init.sock";
const STORAGE: &str = "/run/zos/storage.sock";

/// `varlinkctl` inside the node.
struct Client<'a> {
    node: &'a mut Machine,
    command: Vec<String>,
}

impl Client<'_> {
    /// Runs it: exit code and what it printed.
    fn run(&mut self, words: &[&str]) -> Result<(i64, String)> {
        let mut command = self.command.clone();
        command.extend(words.iter().map(|word| (*word).to_owned()));
        let done = self.node.probe()?.run(&command)?;
        let output = done["output"].as_str().unwrap_or_default().to_owned();
        println!("varlinkctl {}: {}\n{output}", words.join(" "), done["code"]);
        Ok((done["code"].as_i64().context("varlinkctl was killed")?, output))
    }

    /// Runs it to success.
    fn says(&mut self, words: &[&str]) -> Result<String> {
        let (code, output) = self.run(words)?;
        ensure!(code == 0, "varlinkctl {} ended with {code}: {output}", words.join(" "));
        Ok(output)
    }

    /// The parameters of a reply.
    fn call(&mut self, socket: &str, method: &str, parameters: &str) -> Result<Value> {
        let output = self.says(&["--json=short", "call", socket, method, parameters])?;
        serde_json::from_str(&output).with_context(|| format!("read {method}'s reply: {output}"))
    }

    /// A call that is refused, with an error whose name and parameters hold these words.
    fn refused(&mut self, socket: &str, method: &str, given: &str, words: &[&str]) -> Result<()> {
        let (code, output) = self.run(&["--json=short", "call", socket, method, given])?;
        ensure!(code != 0, "{method} {given} is not refused: {output}");
        for word in words {
            ensure!(output.contains(word), "{method} {given}: no `{word}` in {output}");
        }
        Ok(())
    }
}

#[test]
fn systemds_client_reads_calls_and_follows_our_services() {
    scene("varlink", |scene| {
        let peers = Peers::pinned(&["varlinkctl"])?;
        let files = peers.files()?;
        let mut node = scene.start(&Node { files, ..Node::default() }.with_probe())?;
        node.wait_ready()?;
        let command = peers.command("varlinkctl");
        let mut client = Client { node: &mut node, command };
        described(&mut client)?;
        called(&mut client)?;
        followed(&mut client)?;
        told_no(&mut client)?;
        node.power_off()
    });
}

/// What a service says of itself. Each text passes the client's own parser.
fn described(client: &mut Client<'_>) -> Result<()> {
    for (socket, product, ours) in [
        (INIT, "zos-init", &["org.zos.Init"][..]),
        (STORAGE, "org.zos.Storage", &["org.zos.Storage", "org.zos.Service"]),
    ] {
        let info: Value = serde_json::from_str(&client.says(&["-j", "info", socket])?)?;
        ensure!(info["vendor"] == "ZOS" && info["product"] == product, "{socket} says {info}");
        for interface in ours.iter().chain(&["org.varlink.service"]) {
            let listed =
                info["interfaces"].as_array().is_some_and(|all| all.contains(&(*interface).into()));
            ensure!(listed, "{socket} doesn't name {interface}: {info}");
            let text = client.says(&["introspect", socket, interface])?;
            ensure!(text.contains(&format!("interface {interface}")), "{interface} is {text}");
        }
    }
    let methods = client.says(&["list-methods", INIT])?;
    for method in ["Describe", "ReadLog", "WatchEvents", "RestartUnit", "Shutdown"] {
        ensure!(methods.contains(&format!("org.zos.Init.{method}")), "no {method} in {methods}");
    }
    Ok(())
}

fn called(client: &mut Client<'_>) -> Result<()> {
    let boot = client.call(INIT, "org.zos.Init.Describe", "{}")?;
    ensure!(boot["image"].as_str().is_some_and(|hash| hash.len() == 64), "no image in {boot}");
    let unit = client.call(INIT, "org.zos.Init.DescribeUnit", r#"{"unit":"storaged"}"#)?;
    ensure!(unit["unit"]["state"] == "running", "storaged is {unit}");
    for count in ["memory", "memory_peak", "cpu_usec", "pids"] {
        let counted = unit["usage"][count].as_u64().is_some_and(|number| number > 0);
        ensure!(counted, "storaged has no {count}: {unit}");
    }
    let log = client.call(INIT, "org.zos.Init.ReadLog", r#"{"unit":"storaged","after":0}"#)?;
    let entries = log["entries"].as_array().context("a log has entries")?;
    ensure!(entries.first().is_some_and(|entry| entry["cursor"] == 1), "storaged's log: {log}");
    ensure!(log["missed"] == 0, "storaged's log has lost lines: {log}");
    let faults = client.call(STORAGE, "org.zos.Service.ListFaults", "{}")?;
    ensure!(faults["faults"].is_array(), "storaged's faults: {faults}");
    // A call that wants no answer gets none, and is done all the same.
    let parameters = r#"{"unit":"capacityd","signal":"TERM"}"#;
    client.says(&["--oneway", "call", INIT, "org.zos.Init.KillUnit", parameters])?;
    let again = |client: &mut Client<'_>| -> Result<bool> {
        let unit = r#"{"unit":"capacityd"}"#;
        let found = client.call(INIT, "org.zos.Init.DescribeUnit", unit)?;
        Ok(found["unit"]["restarts"] == 1 && found["unit"]["state"] == "running")
    };
    for _ in 0..50 {
        if again(client)? {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    anyhow::bail!("capacityd did not come again after SIGTERM")
}

/// Streams have no end, so the client is told to give up on them.
fn followed(client: &mut Client<'_>) -> Result<()> {
    for (method, parameters, word) in [
        ("org.zos.Init.WatchUnits", "{}", r#""name":"storaged""#),
        ("org.zos.Init.ReadLog", r#"{"unit":"netd","after":0}"#, r#""cursor":1"#),
        ("org.zos.Init.WatchEvents", r#"{"after":0}"#, r#""unit":"capacityd""#),
    ] {
        let words = ["--json=short", "--more", "--timeout=2", "call", INIT, method, parameters];
        let (_, output) = client.run(&words)?;
        ensure!(output.contains(word), "{method} did not tell {word}: {output}");
    }
    Ok(())
}

fn told_no(client: &mut Client<'_>) -> Result<()> {
    const SERVICE: &str = "org.varlink.service";
    let unit = r#"{"unit":"nobody"}"#;
    for (method, given, words) in [
        ("org.zos.Init.DescribeUnit", unit, ["org.zos.Error.NotFound", "nobody"]),
        ("org.zos.Init.DescribeUnit", "{}", ["InvalidParameter", "unit"]),
        ("org.zos.Init.DescribeUnit", r#"{"unit":7}"#, ["InvalidParameter", "unit"]),
        ("org.zos.Init.ListUnits", r#"{"all":true}"#, ["InvalidParameter", "all"]),
        ("org.zos.Init.Shutdown", r#"{"action":"explode"}"#, ["InvalidParameter", "action"]),
        ("org.zos.Init.Shutdown", r#"{"action":"kexec"}"#, ["org.zos.Error.Conflict", "kernel"]),
        ("org.zos.Init.WatchUnits", "{}", [SERVICE, "ExpectedMore"]),
        ("org.zos.Init.Explode", "{}", ["MethodNotFound", "org.zos.Init.Explode"]),
        ("org.zos.Other.Explode", "{}", ["InterfaceNotFound", "org.zos.Other"]),
    ] {
        client.refused(INIT, method, given, &words)?;
    }
    client.refused(STORAGE, "org.zos.Storage.Explode", "{}", &["MethodNotFound"])?;
    client.refused(STORAGE, "org.zos.Other.Explode", "{}", &["InterfaceNotFound"])
}

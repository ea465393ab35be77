//! `zos node show|crashes|metrics`, `zos capacity`

use std::io::{self, Write};

use zos_api::client::Client;
use zos_api::node::NodeCapacity;
use zos_types::machine::{BootReason, Node, Watchdog};
use zos_types::{Amount, Bytes};

use crate::cli::Global;
use crate::exit::Usage;
use crate::output::{Output, escaped, milli, plain, table};

pub(super) async fn show(global: &Global, output: Output) -> anyhow::Result<()> {
    let address = global.node.clone().ok_or_else(|| {
        Usage("which node? Say it with --node ID@HOST, or --node HOST to learn its id".into())
    })?;
    let client = Client::new(address.clone(), None);
    let node = client.node().await?;
    if address.id.is_none() {
        eprintln!(
            "zos: the id was not verified. Compare it with the node's screen, then use:\n  \
             export ZOS_NODE={}@{address}",
            node.id
        );
    }
    output.show(&node, || text(&node))
}

fn text(node: &Node) -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), plain(&value)]);
    row("id", node.id.to_string());
    if node.ephemeral {
        row("", "lost with the next boot: no disk keeps it".to_owned());
    }
    row("farm", node.farm.clone().unwrap_or_else(|| "none".to_owned()));
    row("version", node.version.clone());
    row("image", node.image.clone());
    row("booted", format!("{}, {} s ago", booted(node.boot_reason), node.uptime));
    row("watchdog", watchdog(node.watchdog.as_ref()));
    row("time", format!("{} ({})", node.time, word(&node.time_quality)));
    for link in &node.network.links {
        let addresses = link.addresses.join(" ");
        row(&link.name, format!("{addresses} {}", link.detail).trim_start().to_owned());
    }
    if let Some(gateway) = node.network.gateway {
        row("gateway", gateway.to_string());
    }
    let mut text = table(["", ""], &rows);

    let services =
        node.services.iter().map(|s| [plain(&s.name), plain(&s.state), s.restarts.to_string()]);
    text.push('\n');
    text.push_str(&table(["SERVICE", "STATE", "RESTARTS"], &services.collect::<Vec<_>>()));
    if node.faults.is_empty() {
        text.push_str("\nno faults\n");
    } else {
        let faults = node.faults.iter().map(|f| [plain(&f.id), plain(&f.detail)]);
        text.push('\n');
        text.push_str(&table(["FAULT", "DETAIL"], &faults.collect::<Vec<_>>()));
    }
    text
}

/// Why the node booted, as the end of "booted …".
fn booted(reason: BootReason) -> &'static str {
    match reason {
        BootReason::Cold => "after it was switched on",
        BootReason::Reboot => "after it was told to reboot",
        BootReason::Kexec => "by the kernel before, without the firmware",
        BootReason::Watchdog => "by the watchdog: it had hung",
        BootReason::Panic => "after its kernel died; `zos node crashes` shows the last words",
        BootReason::PowerLoss => "after power loss",
        BootReason::Reset => "after a reset",
        BootReason::Unknown => "for a reason that nothing tells",
    }
}

fn watchdog(watchdog: Option<&Watchdog>) -> String {
    match watchdog {
        None => "none: a node that hangs stays so".to_owned(),
        Some(Watchdog { identity, timeout, hardware: true }) => {
            format!("{identity}: boots a node that hangs again after {timeout} s")
        }
        Some(Watchdog { identity, timeout, hardware: false }) => {
            format!("{identity}: after {timeout} s, by the kernel itself, not by the machine")
        }
    }
}

pub(super) async fn crashes(client: &Client, output: Output) -> anyhow::Result<()> {
    let list = client.crashes().await?;
    if !list.earlier {
        eprintln!("zos: storaged is silent: crashes of earlier boots are not among these");
    }
    output.show(&list, || {
        let kept = list.crashes.iter().map(|crash| {
            let lines: Vec<String> = crash.text.lines().map(|line| escaped(line) + "\n").collect();
            format!("== {}\n{}", escaped(&crash.name), lines.concat())
        });
        let text = kept.collect::<Vec<_>>().join("\n");
        if text.is_empty() { "no crashes\n".to_owned() } else { text }
    })
}

/// The text as it is; in JSON, `{"text": …}`.
pub(super) async fn metrics(client: &Client, output: Output) -> anyhow::Result<()> {
    let text = client.metrics().await?;
    if output.json {
        return output.show(&serde_json::json!({ "text": text }), String::new);
    }
    let lines: Vec<String> = text.lines().map(|line| escaped(line) + "\n").collect();
    io::stdout().lock().write_all(lines.concat().as_bytes())?;
    Ok(())
}

pub(super) async fn capacity(client: &Client, output: Output) -> anyhow::Result<()> {
    let capacity = client.capacity().await?;
    output.show(&capacity, || capacity_text(&capacity))
}

fn capacity_text(node: &NodeCapacity) -> String {
    let NodeCapacity { processor, capacity, offered, deployments, vms } = node;
    let count = |n: u64| n.to_string();
    let bytes = |n: u64| Bytes(n).to_string();
    let row = |name: &str, amount: &Amount, write: &dyn Fn(u64) -> String| {
        let Amount { total, reserved, used, free } = *amount;
        [name.to_owned(), write(total), write(reserved), write(used), write(free)]
    };
    let rows = [
        row("CRU (threads)", &capacity.cru, &count),
        row("MRU (memory)", &capacity.mru, &bytes),
        row("SRU (SSD)", &capacity.sru, &bytes),
        row("HRU (HDD)", &capacity.hru, &bytes),
        row("public IPv4", &capacity.ipv4, &count),
    ];
    let table = table(["RESOURCE", "TOTAL", "RESERVED", "USED", "FREE"], &rows);
    let (cu, su) = (milli(offered.cu), milli(offered.su));
    format!(
        "{}\n\n{table}\noffers {cu} CU and {su} SU; holds {deployments} deployments with {vms} VMs\n",
        plain(processor)
    )
}

/// A word as JSON writes it.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

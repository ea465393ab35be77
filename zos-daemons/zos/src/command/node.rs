//! `zos node show`, `zos capacity`

use zos_api::client::Client;
use zos_api::node::NodeCapacity;
use zos_types::machine::Node;
use zos_types::{Amount, Bytes};

use crate::cli::Global;
use crate::exit::Usage;
use crate::output::{Output, milli, plain, table};

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
    row("booted", format!("{}, {} s ago", node.boot_reason, node.uptime));
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

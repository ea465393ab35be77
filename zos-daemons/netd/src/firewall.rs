//! The firewall as a pure function of what the node knows: `ruleset(&State)` is nft's JSON
//! (libnftables-json(5)), loaded as one transaction that replaces our two tables and no others.
//!
//! ```text
//!            uplinks                            VMs (zvm0)
//!   in    8443, ICMP, replies             DHCP, DNS at the gateway's address, replies
//!   out   everything                      everything: the node may open connections to VMs
//!   through   uplink → VM: replies only   VM → uplink: all but `blocked`;  VM → VM: nothing
//!
//!   bridge    a tap's frames carry its own hardware and IP address, IPv4 and ARP only
//! ```
//! `blocked` is what only the farmer's LAN or the node can mean: private, shared, link-local,
//! loopback, multicast and reserved blocks, and each network that an uplink is on. It is looked at
//! before any other rule, so also a connection that was allowed ends when its network turns out to be
//! on-link. VMs have no IPv6 in this network: nothing of it passes.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::links::mac_text;
use crate::vm::{BRIDGE, subnet};

/// Where the node's API listens.
const API: u16 = 8443;

/// What the rules depend on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct State {
    /// Names of the uplinks.
    pub uplinks: BTreeSet<String>,
    /// The networks that uplinks are on.
    pub on_link: BTreeSet<Ipv4Net>,
    /// The VMs' network.
    pub subnet: Option<Ipv4Net>,
    /// The taps with the addresses that they are pinned to.
    pub taps: Vec<Pin>,
}

/// A tap and the addresses of its VM.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pin {
    /// The interface.
    pub device: String,
    /// The hardware address.
    pub mac: [u8; 6],
    /// The address.
    pub address: std::net::Ipv4Addr,
}

/// Blocks that aren't the Internet (RFC 6890, RFC 5771, RFC 1112). Those for documentation may pass:
/// nobody is there, and tests put their Internet into them.
const NOT_GLOBAL: [(&str, u8); 11] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];

/// Everything that `nft -j -f -` is to load.
pub fn ruleset(state: &State) -> Value {
    let mut commands = Vec::new();
    for (family, tables) in [("inet", inet(state)), ("bridge", bridge(state))] {
        let table = json!({"family": family, "name": "zos"});
        // Deleting a table that isn't there would fail, so it is made first.
        commands.push(json!({"add": {"table": table}}));
        commands.push(json!({"delete": {"table": table}}));
        commands.push(json!({"add": {"table": table}}));
        commands.extend(tables.into_iter().map(|(kind, mut object)| {
            object["family"] = json!(family);
            object["table"] = json!("zos");
            json!({"add": {kind: object}})
        }));
    }
    json!({ "nftables": commands })
}

type Object = (&'static str, Value);

fn inet(state: &State) -> Vec<Object> {
    let mut objects = vec![
        set("blocked", json!("ipv4_addr"), &["interval"], blocked(state)),
        set("uplinks", json!("ifname"), &[], state.uplinks.iter().map(|n| json!(n)).collect()),
        hook("input", "filter", "input", 0, "drop"),
        hook("forward", "filter", "forward", 0, "drop"),
        hook("masquerade", "nat", "postrouting", 100, "accept"),
        chain("from-vm"),
    ];
    let mut rule = |chain: &str, mut expr: Vec<Value>, verdict: &str| {
        expr.push(match verdict.strip_prefix("goto ") {
            Some(target) => json!({"goto": {"target": target}}),
            None => json!({verdict: null}),
        });
        objects.push(("rule", json!({"chain": chain, "expr": expr})));
    };
    let from_vm = || matches("==", meta("iifname"), json!(BRIDGE));
    let to_vm = || matches("==", meta("oifname"), json!(BRIDGE));
    let replies = || matches("in", ct("state"), json!(["established", "related"]));

    rule("input", vec![matches("==", meta("iifname"), json!("lo"))], "accept");
    rule("input", vec![matches("in", ct("state"), json!(["invalid"]))], "drop");
    rule("input", vec![from_vm()], "goto from-vm");
    if let Some(net) = state.subnet {
        // The LAN may not reach the gateway's address through the uplink either.
        rule("input", vec![matches("==", ip("daddr"), prefix(net))], "drop");
    }
    rule("input", vec![replies()], "accept");
    let icmp = json!({"set": ["icmp", "ipv6-icmp"]});
    rule("input", vec![matches("==", meta("l4proto"), icmp)], "accept");
    rule("input", vec![matches("==", payload("tcp", "dport"), json!(API))], "accept");

    rule("from-vm", vec![replies()], "accept");
    if let Some(net) = state.subnet {
        let gateway = json!(subnet::gateway(net).addr());
        let everyone = json!({"set": ["255.255.255.255", gateway]});
        let dhcp = vec![
            matches("==", ip("daddr"), everyone),
            matches("==", payload("udp", "sport"), json!(68)),
            matches("==", payload("udp", "dport"), json!(67)),
        ];
        rule("from-vm", dhcp, "accept");
        for transport in ["udp", "tcp"] {
            let dns = vec![
                matches("==", ip("saddr"), prefix(net)),
                matches("==", ip("daddr"), gateway.clone()),
                matches("==", payload(transport, "dport"), json!(53)),
            ];
            rule("from-vm", dns, "accept");
        }
        rule("forward", vec![from_vm(), matches("==", ip("daddr"), json!("@blocked"))], "drop");
        rule("forward", vec![from_vm(), matches("!=", ip("saddr"), prefix(net))], "drop");
        rule(
            "forward",
            vec![
                from_vm(),
                matches("==", meta("nfproto"), json!("ipv4")),
                matches("==", meta("oifname"), json!("@uplinks")),
                matches("in", ct("state"), json!(["new", "established", "related"])),
            ],
            "accept",
        );
        rule(
            "forward",
            vec![matches("==", meta("iifname"), json!("@uplinks")), to_vm(), replies()],
            "accept",
        );
        rule(
            "masquerade",
            vec![
                matches("==", ip("saddr"), prefix(net)),
                matches("==", meta("oifname"), json!("@uplinks")),
            ],
            "masquerade",
        );
    }
    objects
}

fn bridge(state: &State) -> Vec<Object> {
    let mut taps = state.taps.clone();
    taps.sort();
    let macs = taps.iter().map(|t| json!({"concat": [t.device, mac_text(t.mac)]}));
    let pins = taps.iter().map(|t| json!({"concat": [t.device, mac_text(t.mac), t.address]}));
    let (macs, pins) = (macs.collect(), pins.collect());
    let mut objects = vec![
        set("macs", json!(["ifname", "ether_addr"]), &[], macs),
        set("pins", json!(["ifname", "ether_addr", "ipv4_addr"]), &[], pins),
        hook("from-tap", "filter", "prerouting", -300, "drop"),
        hook("between-taps", "filter", "forward", 0, "drop"),
    ];
    let ether = |kind: &str| matches("==", payload("ether", "type"), json!(kind));
    let concat = |parts: &[Value]| json!({ "concat": parts });
    let sender = [meta("iifname"), payload("ether", "saddr")];
    let known = || matches("==", concat(&sender), json!("@macs"));
    let pinned = |mac: Value, address: Value| {
        matches("==", concat(&[meta("iifname"), mac, address]), json!("@pins"))
    };
    let arp_mac = || payload("arp", "saddr ether");
    let mut accept = |mut expr: Vec<Value>| {
        expr.push(json!({"accept": null}));
        objects.push(("rule", json!({"chain": "from-tap", "expr": expr})));
    };
    accept(vec![ether("ip"), pinned(payload("ether", "saddr"), ip("saddr"))]);
    // A guest without an address yet asks for one.
    accept(vec![
        ether("ip"),
        known(),
        matches("==", ip("saddr"), json!("0.0.0.0")),
        matches("==", ip("daddr"), json!("255.255.255.255")),
        matches("==", payload("udp", "sport"), json!(68)),
        matches("==", payload("udp", "dport"), json!(67)),
    ]);
    accept(vec![ether("arp"), known(), pinned(arp_mac(), payload("arp", "saddr ip"))]);
    // It looks whether somebody has its address already (RFC 5227).
    accept(vec![
        ether("arp"),
        known(),
        matches("==", concat(&[meta("iifname"), arp_mac()]), json!("@macs")),
        matches("==", payload("arp", "saddr ip"), json!("0.0.0.0")),
    ]);
    objects
}

/// What VMs may not reach, without overlaps: nft takes no interval twice.
fn blocked(state: &State) -> Vec<Value> {
    let fixed = NOT_GLOBAL
        .iter()
        .filter_map(|(address, length)| Some(Ipv4Net::new_assert(address.parse().ok()?, *length)));
    let all: Vec<Ipv4Net> = fixed.chain(state.on_link.iter().map(Ipv4Net::trunc)).collect();
    Ipv4Net::aggregate(&all).into_iter().map(prefix).collect()
}

fn set(name: &str, kind: Value, flags: &[&str], elements: Vec<Value>) -> Object {
    let mut set = object([("name", json!(name)), ("type", kind)]);
    if !flags.is_empty() {
        set["flags"] = json!(flags);
    }
    if !elements.is_empty() {
        set["elem"] = Value::Array(elements);
    }
    ("set", set)
}

fn hook(name: &str, kind: &str, hook: &str, priority: i32, policy: &str) -> Object {
    let chain =
        json!({"name": name, "type": kind, "hook": hook, "prio": priority, "policy": policy});
    ("chain", chain)
}

fn chain(name: &str) -> Object {
    ("chain", json!({ "name": name }))
}

fn matches(op: &str, left: Value, right: Value) -> Value {
    object([("match", object([("op", json!(op)), ("left", left), ("right", right)]))])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn ct(key: &str) -> Value {
    json!({"ct": {"key": key}})
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn ip(field: &str) -> Value {
    payload("ip", field)
}

fn prefix(net: Ipv4Net) -> Value {
    json!({"prefix": {"addr": net.network(), "len": net.prefix_len()}})
}

#[cfg(test)]
mod tests;

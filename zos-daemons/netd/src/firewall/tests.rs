use super::*;
use proptest::prelude::*;

fn state() -> State {
    State {
        uplinks: ["eth0".to_owned(), "eth1".to_owned()].into(),
        on_link: ["10.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap()].into(),
        subnet: Some("100.64.0.0/16".parse().unwrap()),
        taps: [("t2", 2, "100.64.1.2"), ("t1", 1, "100.64.1.1")]
            .map(|(device, last, address)| Pin {
                device: device.to_owned(),
                mac: [2, 0, 0, 0, 0, last],
                address: address.parse().unwrap(),
            })
            .to_vec(),
    }
}

/// One command a line.
fn text(state: &State) -> String {
    let ruleset = ruleset(state);
    let commands = ruleset["nftables"].as_array().unwrap();
    commands.iter().map(|command| format!("{command}\n")).collect()
}

/// `UPDATE=1 cargo test -p netd` writes what is, to be read before it is committed.
#[test]
fn the_rules_are_as_they_were_read_and_approved() {
    for (name, state) in [("two-vms", state()), ("no-network-yet", State::default())] {
        let path = format!("{}/src/firewall/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let found = text(&state);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let approved = std::fs::read_to_string(&path).unwrap_or_default();
        for (found, approved) in found.lines().zip(approved.lines()) {
            assert_eq!(found, approved, "{name}");
        }
        assert_eq!(found.lines().count(), approved.lines().count(), "{name}");
    }
}

#[test]
fn the_order_in_which_things_are_known_changes_nothing() {
    let mut turned = state();
    turned.taps.reverse();
    assert_eq!(text(&turned), text(&state()));
}

proptest! {
    /// nft refuses a set in which two intervals overlap, and a network that isn't in the set isn't blocked.
    #[test]
    fn every_network_of_an_uplink_is_blocked_once(
        nets in proptest::collection::btree_set((any::<u32>(), 1u8..=32), 0..8),
    ) {
        let nets: BTreeSet<Ipv4Net> =
            nets.into_iter().map(|(a, p)| Ipv4Net::new_assert(a.into(), p)).collect();
        let found: Vec<Ipv4Net> = blocked(&State { on_link: nets.clone(), ..state() })
            .iter()
            .map(|value| {
                let prefix = &value["prefix"];
                format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]).parse().unwrap()
            })
            .collect();
        for net in &nets {
            prop_assert!(found.iter().any(|f| f.contains(&net.network()) && f.contains(&net.broadcast())));
        }
        for (i, a) in found.iter().enumerate() {
            prop_assert!(found[i + 1..].iter().all(|b| !a.contains(b) && !b.contains(a)));
        }
    }
}

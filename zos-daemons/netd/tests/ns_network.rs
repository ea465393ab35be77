//! The daemon against a real kernel, a real DHCP server and real packets, in namespaces of its own.
//!
//! ```text
//!   inet ── 203.0.113.0/24 ── lan (router, dnsmasq) ── 192.168.77.0/24 ── eth0 node zvm0 ─┬─ vm1
//!   .80                       .1                  .1                                      └─ vm2
//! ```
//! A VM is a namespace with a tap, whose frames are carried to and from netd's tap as a VMM would.
//! Needs root, nftables, iproute2, dnsmasq and busybox; says so and passes where one is missing.

mod world;

use std::net::Ipv4Addr;
use std::time::Duration;

use netd::settings::Settings;
use zos_daemon::{CallError, Reader};
use zos_types::machine::Network;

use world::{Vm, World, connects, in_namespace, inside, run, until};

const INET: &str = "203.0.113.80:80";
const LAN: &str = "192.168.77.1:80";

fn eth0() -> Settings {
    Settings { nic: Some("eth0".to_owned()), ..Settings::default() }
}

/// Waits until the node has a way out by IPv4.
fn bound(node: &world::Netd) -> Network {
    let has_way = |network: &Network| network.gateway.is_some_and(|gateway| gateway.is_ipv4());
    until(|| Some(node.describe()).filter(has_way))
}

#[test]
fn vms_reach_the_internet_and_nothing_else() {
    inside("vms_reach_the_internet_and_nothing_else", || {
        let world = World::start();
        let node = world.node("eth0");

        let network = bound(&node);
        assert_eq!(network.gateway, Some([192, 168, 77, 1].into()));
        assert_eq!(network.dns, [Ipv4Addr::new(192, 168, 77, 1)]);
        assert!(network.links[0].addresses[0].starts_with("192.168.77."), "{network:?}");
        assert_eq!(network.links[0].detail, "dhcp: bound");
        assert!(node.faults().is_empty(), "{:?}", node.faults());
        let own: Ipv4Addr =
            network.links[0].addresses[0].split('/').next().unwrap().parse().unwrap();

        let (vm1, vm2) = (Vm::start(&node, "vm1"), Vm::start(&node, "vm2"));
        for vm in [&vm1, &vm2] {
            assert_eq!(vm.dhcp(), vm.tap.address.to_string());
        }

        // out
        until(|| connects("vm1", INET).then_some(()));
        assert!(connects("vm2", INET));
        for server in ["UDP", "TCP"] {
            let answer = vm1.resolve(server == "TCP", "www.zos.test");
            assert_eq!(answer, Some([203, 0, 113, 80].into()), "{server}");
        }

        // not: LAN, node, gateway, each other
        let target = |address: &dyn std::fmt::Display, port: u16| format!("{address}:{port}");
        let _vm2_serves = world.serve("vm2", &target(&vm2.tap.address, 7777));
        let _vm1_serves = world.serve("vm1", &target(&vm1.tap.address, 7777));
        let _api = world.serve_here("0.0.0.0:8443");
        let _ssh = world.serve_here("0.0.0.0:2222");
        assert!(connects("lan", &target(&own, 8443)));
        for closed in [
            LAN.to_owned(),
            target(&own, 8443),
            target(&"100.64.0.1", 8443),
            target(&vm2.tap.address, 7777),
        ] {
            assert!(!connects("vm1", &closed), "{closed}");
        }

        // in: the node may, nobody else
        assert!(connects("", &target(&vm1.tap.address, 7777)));
        assert!(!connects("lan", &target(&own, 2222)));
        run(&format!("ip -n lan route add 100.64.0.0/16 via {own}"));
        run("ip -n inet route add 100.64.0.0/16 via 203.0.113.1");
        assert!(!connects("lan", &target(&vm1.tap.address, 7777)));
        assert!(!connects("inet", &target(&vm1.tap.address, 7777)));
        assert!(!connects("lan", "100.64.0.1:53"));
        assert!(connects("vm1", "100.64.0.1:53"));

        // with addresses that aren't its own
        let says =
            |source: std::net::IpAddr| world::arrives("vm1", source, "inet", "203.0.113.80:9");
        assert!(says(vm1.tap.address));
        for other in ["100.64.200.200".parse().unwrap(), vm2.tap.address] {
            run(&format!("ip -n vm1 addr add {other}/16 dev vm1"));
            assert!(!says(other), "as {other}");
            run(&format!("ip -n vm1 addr del {other}/16 dev vm1"));
        }
        for other in ["02:00:00:00:00:99", &vm2.tap.mac] {
            run(&format!("ip -n vm1 link set vm1 address {other}"));
            assert!(!says(vm1.tap.address), "as {other}");
        }
        run(&format!("ip -n vm1 link set vm1 address {}", vm1.tap.mac));
        assert!(says(vm1.tap.address));
        until(|| connects("vm1", INET).then_some(()));
    });
}

#[test]
fn a_restart_takes_nothing_away() {
    inside("a_restart_takes_nothing_away", || {
        let world = World::start();
        let node = world.node("eth0");
        bound(&node);
        let vm = Vm::start(&node, "vm1");
        assert_eq!(vm.dhcp(), vm.tap.address.to_string());
        until(|| connects("vm1", INET).then_some(()));
        let address = node.describe().links[0].addresses[0].clone();

        node.kill();
        assert!(connects("vm1", INET), "without netd");
        let node = world.node("eth0");
        // From now on, at each moment. A lost first request is repeated after 4 s (RFC 2131, 4.1).
        let (mut bound, mut round) = (false, 0);
        while round < 20 || !bound && round < 200 {
            round += 1;
            assert!(connects("vm1", INET));
            let network = node.describe();
            bound |= network.links.first().is_some_and(|link| {
                assert!(link.addresses.is_empty() || link.addresses[0] == address, "{link:?}");
                link.detail == "dhcp: bound"
            });
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(bound);
        assert!(run("ip -4 addr show dev eth0").contains(&address));
        assert_eq!(node.list(), std::slice::from_ref(&vm.tap));
        assert_eq!(vm.dhcp(), vm.tap.address.to_string());
        assert_eq!(vm.resolve(false, "www.zos.test"), Some([203, 0, 113, 80].into()));

        // The VM starts again: its old tap goes, the new one has the same addresses.
        let error = node.open("vm1").unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        let before = vm.tap.clone();
        drop(vm);
        let vm = until(|| node.open("vm1").ok());
        assert_eq!(vm.0, before);

        // With several queues it is busy all the same, though the kernel would add more.
        drop(vm);
        let (tap, fds) = until(|| node.open_queues("vm1", 4).ok());
        assert_eq!((tap, fds.len()), (before.clone(), 4));
        for queues in [1, 4] {
            let error = node.open_queues("vm1", queues).unwrap_err();
            assert!(error.to_string().contains("in use"), "{error}");
        }
        for queues in [0, 17] {
            assert!(matches!(node.open_queues("vm1", queues), Err(CallError::Invalid { .. })));
        }
        node.close("vm1").unwrap();
        assert!(node.list().is_empty());
        assert!(!std::path::Path::new("/sys/class/net").join(&before.device).exists());
    });
}

#[test]
fn another_network_takes_the_old_address_away() {
    inside("another_network_takes_the_old_address_away", || {
        let world = World::start();
        let node = world.node("eth0");
        bound(&node);
        until(|| {
            node.describe().links[0].addresses.iter().any(|a| a.starts_with("fd77:")).then_some(())
        });
        node.kill();

        run("ip -n lan addr add 192.168.88.1/24 dev lan0");
        run("ip -n lan addr del 192.168.77.1/24 dev lan0");
        world.start_dhcp_in("192.168.88");
        let node = world.node("eth0");
        until(|| {
            node.describe().gateway.filter(|gateway| *gateway == Ipv4Addr::new(192, 168, 88, 1))
        });
        let addresses = node.describe().links[0].addresses.clone();
        assert!(addresses[0].starts_with("192.168.88."), "{addresses:?}");
        assert!(!addresses.iter().any(|a| a.starts_with("192.168.77.")), "{addresses:?}");
    });
}

#[test]
fn an_address_may_be_fixed() {
    inside("an_address_may_be_fixed", || {
        run_fixed(&World::without_dhcp(), "lan0", None, "fixed address");
    });
}

#[test]
fn an_address_may_be_fixed_in_a_vlan() {
    inside("an_address_may_be_fixed_in_a_vlan", || {
        let world = World::without_dhcp();
        let make = "-n lan link add link lan0 name lan0.42 type vlan id 42";
        let made = std::process::Command::new("ip").args(make.split(' ')).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this kernel has no VLANs");
            return;
        }
        run_fixed(&world, "lan0.42", Some("42"), "VLAN 42, fixed address");
    });
}

fn run_fixed(world: &World, router: &str, vlan: Option<&str>, detail: &str) {
    run(&format!("ip -n lan addr add 192.168.99.1/24 dev {router}"));
    run(&format!("ip -n lan link set {router} up"));
    let _router = world.serve("lan", "192.168.99.1:80");
    let said = [
        ("nic", Some("eth0")),
        ("ip", Some("192.168.99.7/24,192.168.99.1")),
        ("dns", Some("192.168.99.1")),
        ("vlan", vlan),
    ];
    let said = said.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.to_owned())));
    let (settings, faults) = Reader::config::<Settings>(&said.collect());
    assert!(faults.is_empty());
    let node = world.node_with(settings);
    let network = bound(&node);
    assert_eq!(network.links[0].detail, detail);
    assert_eq!(network.links[0].addresses[0], "192.168.99.7/24");
    assert_eq!(network.dns, [Ipv4Addr::new(192, 168, 99, 1)]);
    until(|| connects("", "192.168.99.1:80").then_some(()));
    assert!(node.faults().is_empty(), "{:?}", node.faults());
}

#[test]
#[ignore = "a minute: the shortest lease of dnsmasq"]
fn a_lease_is_renewed_by_its_server() {
    inside("a_lease_is_renewed_by_its_server", || {
        let world = World::start();
        let node = world.node("eth0");
        bound(&node);
        std::thread::sleep(Duration::from_secs(62));
        assert_eq!(node.describe().links[0].detail, "dhcp: bound");
        let line = run("ip -4 addr show dev eth0");
        let left: u32 = line
            .split_whitespace()
            .find_map(|word| word.strip_suffix("sec")?.parse().ok())
            .unwrap();
        assert!(left > 90, "{line}");
    });
}

#[test]
fn faults_stand_until_they_heal() {
    inside("faults_stand_until_they_heal", || {
        let world = World::without_dhcp();
        let node = world.node("nothing");
        until(|| node.faults().contains(&"net.no-nic".to_owned()).then_some(()));
        node.kill();

        let node = world.node("eth0");
        until(|| node.faults().contains(&"net.no-dhcp:eth0".to_owned()).then_some(()));
        world.start_dhcp();
        bound(&node);
        until(|| node.faults().is_empty().then_some(()));

        // The cable is pulled: the address stays, the way out is known to be dead.
        in_namespace("lan", || run("ip link set lan0 down"));
        until(|| Some(node.describe()).filter(|net| net.links[0].detail == "no cable"));
        until(|| node.faults().contains(&"net.no-carrier".to_owned()).then_some(()));
        in_namespace("lan", || run("ip link set lan0 up"));
        until(|| Some(node.describe()).filter(|net| net.links[0].detail == "dhcp: bound"));
        until(|| node.faults().is_empty().then_some(()));
    });
}

#[test]
fn the_vm_network_moves_away_from_the_uplinks() {
    inside("the_vm_network_moves_away_from_the_uplinks", || {
        let world = World::start();
        let node = world.node("eth0");
        bound(&node);
        let vm = Vm::start(&node, "vm1");
        assert!(vm.tap.address.to_string().starts_with("100.64."));
        assert_eq!(vm.dhcp(), vm.tap.address.to_string());

        run("ip addr add 100.64.7.7/24 dev eth0");
        let moved =
            until(|| node.list().into_iter().next().filter(|tap| tap.address != vm.tap.address));
        assert!(moved.address.to_string().starts_with("100.107."), "{moved:?}");
        assert_eq!(vm.dhcp(), moved.address.to_string());
        until(|| connects("vm1", INET).then_some(()));
        assert!(!connects("vm1", "100.64.7.7:8443"));
    });
}

#[test]
fn without_nft_no_vm_gets_a_tap() {
    inside("without_nft_no_vm_gets_a_tap", || {
        let world = World::start();
        for place in ["/bin/nft", "/usr/sbin/nft", "/sbin/nft"] {
            if std::path::Path::new(place).exists() {
                run(&format!("mount --bind /bin/false {place}"));
            }
        }
        let node = world.node("eth0");
        bound(&node);
        assert!(node.faults().contains(&"net.firewall".to_owned()));
        let error = node.open("vm1").unwrap_err();
        assert!(error.to_string().contains("firewall"), "{error}");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    });
}

/// With a user and capabilities as in the image: no root, nothing but three capabilities.
#[test]
fn three_capabilities_are_enough() {
    inside("three_capabilities_are_enough", || {
        let _world = World::start();
        run("mount -t tmpfs -o mode=755 tmpfs /dev/net");
        run("mknod -m 600 /dev/net/tun c 10 200");
        run("chown 112:112 /dev/net/tun");
        world::as_user_net("alone_as_user_net");
    });
}

/// What the test above runs as another user; by itself it has nothing to look at.
#[test]
fn alone_as_user_net() {
    if std::env::var_os("ZOS_TEST_USER").is_none() {
        return;
    }
    assert_eq!(rustix::process::geteuid().as_raw(), 112);
    let state = tempfile::tempdir().unwrap();
    let node = world::Netd::start(eth0(), state.path());
    bound(&node);
    let (tap, _fd) = until(|| node.open("vm1").ok());
    assert_eq!(tap.mac.len(), 17);
    assert!(node.faults().is_empty(), "{:?}", node.faults());
    let sysctl = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap();
    assert_eq!(sysctl("ipv4/ip_forward"), "1\n");
    assert_eq!(sysctl("ipv6/conf/eth0/accept_ra"), "2\n");
    assert_eq!(sysctl(&format!("ipv6/conf/{}/disable_ipv6", tap.device)), "1\n");
}

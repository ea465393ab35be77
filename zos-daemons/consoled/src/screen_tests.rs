use std::collections::BTreeMap;

use zos_api::local::capacity::Measured;
use zos_api::local::identity::Identity;
use zos_api::local::init::{Boot, UnitKind};
use zos_api::local::provision::UsageReply;
use zos_types::capacity::Resources;
use zos_types::deployment::Class;
use zos_types::disk::{Disk, Transport};
use zos_types::machine::TimeQuality;
use zos_types::unit::{GIB, MIB};
use zos_types::{CloudUnits, Fault, NodeId};

use super::*;

const SIZE: Size = Size { columns: 80, rows: 25 };

fn unit(name: &str, state: UnitState, detail: &str) -> Unit {
    let (kind, pid, exit) = (UnitKind::Service, None, None);
    Unit {
        name: name.into(),
        kind,
        state,
        pid,
        restarts: 0,
        since_ms: 0,
        exit,
        detail: detail.into(),
    }
}

fn view() -> View {
    // The base point of the curve (RFC 8032, section 5.1): some usable key.
    let mut key = [0x66; 32];
    key[0] = 0x58;
    let boot = Boot {
        version: "0.1.0".into(),
        image: "ab".repeat(32),
        boot_reason: zos_types::machine::BootReason::Cold,
        ending: None,
        watchdog: None,
        time_quality: TimeQuality::Rtc,
        settings: BTreeMap::from([("farm".into(), "7".into())]),
        phases: vec![],
        faults: vec![],
    };
    let link = Link {
        name: "eth0".into(),
        mac: "52:54:00:12:34:56".into(),
        carrier: true,
        addresses: vec![
            "fe80::1/64".into(),
            "fd00::5054:ff:fe12:3456/64".into(),
            "10.0.2.15/24".into(),
        ],
        detail: "dhcp: bound".into(),
    };
    let capacity = Capacity {
        cru: Amount::new(2, 0),
        mru: Amount::new(2 * GIB, 208 * MIB),
        sru: Amount::new(20 * GIB, GIB),
        ..Capacity::default()
    };
    let offered = CloudUnits { cu: 199, su: 76 };
    let used = Resources {
        cru: 1,
        mru: zos_types::Bytes(282 * MIB),
        sru: zos_types::Bytes(GIB),
        ..Default::default()
    };
    let services =
        ["storaged", "identityd", "netd", "capacityd", "vmd", "provisiond", "apid", "consoled"];
    View {
        boot: Some(boot),
        identity: Some(Identity {
            node: NodeId::from_bytes(key).unwrap(),
            ephemeral: false,
            sealing: zos_types::volume::Sealing::Beside,
        }),
        network: Some(Network { links: vec![link], ..Network::default() }),
        measured: Some(Measured { processor: "AMD EPYC Processor".into(), capacity, offered }),
        usage: Some(UsageReply { resources: used, deployments: 1, vms: 1 }),
        vms: Some(vec![]),
        services: services.map(|name| unit(name, UnitState::Running, "")).to_vec(),
        disks: vec![],
        faults: vec![],
    }
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain(79) + "\n").collect()
}

#[test]
fn a_node_that_is_well() {
    let expected = "
 ZOS 0.1.0                                                               farm 7
───────────────────────────────────────────────────────────────────────────────

 Node       mbugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3uy
 Address    10.0.2.15  fd00::5054:ff:fe12:3456
 Reach it   zos node show --node \\
              mbugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3uy@10.0.2.15

 Processor  AMD EPYC Processor
                     all    the node       twins        free
 CPU threads           2           -           1           1
 Memory            2 GiB     208 MiB     282 MiB     1.5 GiB
 SSD              20 GiB       1 GiB       1 GiB      18 GiB
 HDD                   -           -           -           -
 Offers     0.19 CU, 0.07 SU
 VMs        0 of 1 run, in 1 deployment

 Services   all 8 run
 Faults     none
";
    let found = "\n".to_owned() + &text(&screen(&view(), SIZE));
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn a_node_that_knows_nothing_yet() {
    let expected = "
 ZOS                                                  no farm is set: zos.farm=
───────────────────────────────────────────────────────────────────────────────

 Node       is known when the disks have settled
 Address    not known yet

 Capacity   is measured when the disks have settled

 Services   not known yet
 Faults     none
";
    let found = "\n".to_owned() + &text(&screen(&View::default(), SIZE));
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn a_node_in_trouble_says_so_and_what_has_no_room_is_counted() {
    let mut view = view();
    view.network = Some(Network::default());
    view.services[2] = unit("netd", UnitState::Backoff, "ended with code 1");
    view.faults = (0..9)
        .map(|i| Fault::new(format!("storage.foreign-disk:sd{i}"), "it holds data of somebody else and is left alone; `zos disk adopt` shows what could be done"))
        .collect();
    let found = text(&screen(&view, SIZE));
    assert!(found.contains("Address    none (no network card was found)"), "{found}");
    assert!(
        found.contains("Services   7 of 8 run\n            netd backoff (ended with code 1)"),
        "{found}"
    );
    assert!(found.ends_with("more: zos node show\n"), "{found}");
    assert!(found.lines().count() < SIZE.rows, "{found}");
}

fn disk(name: &str, role: Role, reason: &str) -> Disk {
    Disk {
        name: name.into(),
        id: name.into(),
        model: "Disk".into(),
        serial: "1".into(),
        transport: Transport::Sata,
        size: zos_types::Bytes(GIB),
        logical_block: 512,
        physical_block: 512,
        class: Class::Ssd,
        health: None,
        partitions: vec![],
        signatures: vec![],
        role,
        reason: reason.into(),
        pool: None,
    }
}

#[test]
fn disks_are_told_of_when_there_is_something_to_do() {
    let check = |disks: &[Disk], expected: Option<&str>| {
        let view = View { disks: disks.to_vec(), ..view() };
        let found = text(&screen(&view, SIZE));
        let line = found.lines().find(|line| line.starts_with(" Disks"));
        assert_eq!(line, expected, "{found}");
        assert!(found.lines().count() < SIZE.rows, "{found}");
    };
    let ours = disk("nvme0n1", Role::Ours, "pool 1");
    check(&[], None);
    check(&[ours.clone(), disk("sdb", Role::BootMedium, "")], None);
    check(
        &[ours.clone(), disk("sda", Role::Foreign, "it holds NTFS")],
        Some(" Disks      1 in use; 1 is not the node's; zos disk list"),
    );
    check(
        &[ours.clone(), disk("sda", Role::Leaving, "pool 2 is being emptied: 1 of 3")],
        Some(" Disks      1 in use; sda: pool 2 is being emptied: 1 of 3; zos disk list"),
    );
    check(
        &[ours, disk("sda", Role::Empty, "released from pool 2: it can be taken out")],
        Some(" Disks      1 in use; sda can be taken out; zos disk list"),
    );
}

#[test]
fn a_serial_line_gets_the_same_in_short() {
    let expected = "
 ZOS 0.1.0                                                              farm 7
 Node       mbugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3uy
 Address    10.0.2.15  fd00::5054:ff:fe12:3456
 Reach it   zos node show --node \\
              mbugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3uy@10.0.2.15
 Capacity   2 threads, 2 GiB memory, 20 GiB SSD, 0 B HDD
 Offers     0.19 CU, 0.07 SU
 VMs        0 of 1 run, in 1 deployment
 Services   all 8 run
 Faults     none

";
    let found = text(&block(&view()));
    assert_eq!(found, expected, "\n{found}");
}

proptest::proptest! {
    #[test]
    fn every_console_gets_what_fits(columns in 0usize..300, rows in 0usize..100, faults in 0usize..40, detail in ".{0,300}") {
        let mut view = view();
        view.faults = (0..faults).map(|i| Fault::new(format!("x.y:{i}"), detail.clone())).collect();
        let lines = screen(&view, Size { columns, rows });
        proptest::prop_assert!(lines.len() < rows.max(ROWS));
    }
}

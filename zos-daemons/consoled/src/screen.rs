//! The screen as text: 80 columns, ASCII, 24 lines. Pure.

use std::fmt::Write;

use zos_types::Bytes;
use zos_types::capacity::{Amount, Capacity};
use zos_types::machine::Service;

use crate::view::View;

const WIDTH: usize = 78;
/// Faults that fit; the rest is counted.
const FAULTS: usize = 5;

/// The whole screen: [`block`] with a head that changes with time.
pub(crate) fn screen(view: &View) -> String {
    let (days, hours) = (view.uptime / 86_400, view.uptime / 3600 % 24);
    let (minutes, seconds) = (view.uptime / 60 % 60, view.uptime % 60);
    let up = match days {
        0 => format!("up {hours}:{minutes:02}:{seconds:02}"),
        days => format!("up {days} d {hours}:{minutes:02}"),
    };
    let title = format!(" ZOS {}", view.version);
    format!("{title}{up:>rest$}\n{}", block(view), rest = WIDTH - title.len())
}

/// What changes only when something happened.
pub(crate) fn block(view: &View) -> String {
    let mut out = format!(" {}\n", "-".repeat(WIDTH - 1));
    let mut line = |label: &str, text: &str| {
        for (i, part) in wrap(text, WIDTH - 12).iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            let _ = writeln!(out, "  {label:<10}{part}");
        }
    };
    line("Node", &node(view));
    line("Farm", view.farm.as_deref().unwrap_or("none set (zos.farm=<id>): nobody earns here"));
    line("Network", &network(view));
    if let Some(address) = first_address(view) {
        line("Use it", &format!("zos node show --node <node id>@{address}"));
    }
    line("", "");
    match &view.measured {
        None => line("Capacity", "being measured"),
        Some(measured) => {
            let capacity = match &view.used {
                Some(used) => measured.capacity.with_used(used),
                None => measured.capacity,
            };
            for (i, row) in table(&capacity).iter().enumerate() {
                line(if i == 0 { "Capacity" } else { "" }, row);
            }
            let milli = |n: u64| format!("{}.{:03}", n / 1000, n % 1000);
            let (cu, su) = (milli(measured.offered.cu), milli(measured.offered.su));
            line("Offered", &format!("{cu} CU, {su} SU   ({})", measured.processor.trim()));
        }
    }
    line(
        "VMs",
        &match view.vms {
            None => "not known yet".to_owned(),
            Some((_, 0)) => "none".to_owned(),
            Some((running, all)) => format!("{running} of {all} running"),
        },
    );
    line("", "");
    line("Services", &services(&view.services));
    if view.faults.is_empty() {
        line("Faults", "none");
    }
    for (i, fault) in view.faults.iter().take(FAULTS).enumerate() {
        line(if i == 0 { "Faults" } else { "" }, &format!("! {}", fault.detail));
    }
    if view.faults.len() > FAULTS {
        line("", &format!("and {} more: zos node show", view.faults.len() - FAULTS));
    }
    out
}

fn node(view: &View) -> String {
    match &view.identity {
        None => "waiting for its disks".to_owned(),
        Some((id, false)) => id.to_string(),
        Some((id, true)) => format!("{id} until the next boot"),
    }
}

fn network(view: &View) -> String {
    let Some(network) = &view.network else { return "not known yet".to_owned() };
    if network.links.is_empty() {
        return "no wired interface".to_owned();
    }
    let links: Vec<String> = network
        .links
        .iter()
        .map(|link| {
            if link.addresses.is_empty() {
                format!("{} ({})", link.name, link.detail)
            } else {
                format!("{} {}", link.name, link.addresses.join(" "))
            }
        })
        .collect();
    links.join(", ")
}

/// An address that somebody on the LAN would use: IPv4 before IPv6, never a link-local one.
fn first_address(view: &View) -> Option<&str> {
    let all = view.network.iter().flat_map(|n| &n.links).flat_map(|link| &link.addresses);
    let plain = |address: &'_ String| !address.starts_with("fe80");
    let mut usable: Vec<&str> =
        all.filter(|a| plain(a)).filter_map(|a| a.split('/').next()).collect();
    usable.sort_by_key(|address| address.contains(':'));
    usable.first().copied()
}

fn table(capacity: &Capacity) -> Vec<String> {
    let count = |n: u64| n.to_string();
    let size = |n: u64| Bytes(n).to_string();
    let row = |name: &str, amount: &Amount, show: &dyn Fn(u64) -> String| {
        let (free, used) = (show(amount.free), show(amount.used));
        let (kept, total) = (show(amount.reserved), show(amount.total));
        format!("{name:<5}{free:>12}{used:>12}{kept:>14}{total:>12}")
    };
    vec![
        format!("{:<5}{:>12}{:>12}{:>14}{:>12}", "", "free", "used", "for itself", "total"),
        row("CRU", &capacity.cru, &count),
        row("MRU", &capacity.mru, &size),
        row("SRU", &capacity.sru, &size),
        row("HRU", &capacity.hru, &size),
    ]
}

fn services(services: &[Service]) -> String {
    if services.is_empty() {
        return "not known yet".to_owned();
    }
    let bad: Vec<String> = services
        .iter()
        .filter(|service| service.state != "running")
        .map(|service| format!("{} {}", service.name, service.state))
        .collect();
    let running = services.len() - bad.len();
    if bad.is_empty() {
        format!("all {running} running")
    } else {
        format!("{running} of {} running; {}", services.len(), bad.join(", "))
    }
}

/// Breaks a text at spaces; a word longer than a line is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    // A row of a table keeps its spaces.
    if text.chars().count() <= width {
        return vec![printable(text)];
    }
    for word in text.split_whitespace() {
        let word: String = word.chars().take(width).collect();
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            *line = printable(&word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(&printable(&word));
        } else {
            lines.push(printable(&word));
        }
    }
    lines
}

/// What came from elsewhere (a disk's model, a farm's name) may not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use zos_api::local::capacity::Measured;
    use zos_types::machine::{Link, Network};
    use zos_types::unit::GIB;
    use zos_types::{CloudUnits, Fault};

    use super::*;

    fn healthy() -> View {
        let capacity = Capacity {
            cru: Amount::new(4, 0),
            mru: Amount::new(8 * GIB, GIB),
            sru: Amount::new(100 * GIB, GIB),
            ..Capacity::default()
        };
        let service = |name: &str, state: &str| Service {
            name: name.into(),
            state: state.into(),
            restarts: 0,
        };
        View {
            version: "0.1.0".into(),
            farm: Some("7".into()),
            identity: Some((
                "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo".parse().unwrap(),
                false,
            )),
            uptime: 3725,
            network: Some(Network {
                links: vec![Link {
                    name: "eth0".into(),
                    mac: "52:54:00:12:34:56".into(),
                    carrier: true,
                    addresses: vec!["fe80::1/64".into(), "10.0.2.15/24".into()],
                    detail: "dhcp: bound".into(),
                }],
                ..Network::default()
            }),
            measured: Some(Measured {
                processor: "AMD EPYC".into(),
                capacity,
                offered: CloudUnits { cu: 1500, su: 495 },
            }),
            used: Some(Default::default()),
            vms: Some((1, 1)),
            services: vec![service("storaged", "running"), service("netd", "running")],
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_healthy_node() {
        let expected =
            "\x20ZOS 0.1.0                                                          up 1:02:05
 -----------------------------------------------------------------------------
  Node      fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo
  Farm      7
  Network   eth0 fe80::1/64 10.0.2.15/24
  Use it    zos node show --node <node id>@10.0.2.15

  Capacity               free        used    for itself       total
            CRU             4           0             0           4
            MRU         7 GiB         0 B         1 GiB       8 GiB
            SRU        99 GiB         0 B         1 GiB     100 GiB
            HRU           0 B         0 B           0 B         0 B
  Offered   1.500 CU, 0.495 SU   (AMD EPYC)
  VMs       1 of 1 running

  Services  all 2 running
  Faults    none
";
        let trim = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trim(&screen(&healthy())), trim(expected));
    }

    #[test]
    fn every_screen_fits_the_smallest_terminal() {
        let mut view = healthy();
        let long = "a word after a word after a word ".repeat(4);
        view.faults = (0..40).map(|i| Fault::new(format!("a.b:{i}"), long.clone())).collect();
        for view in [&view, &View::default()] {
            let screen = screen(view);
            assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        }
        assert!(screen(&view).contains("and 35 more"));
    }

    #[test]
    fn what_others_named_cannot_steer_the_terminal() {
        let view = View { farm: Some("\x1b[2J\u{9b}31m".into()), ..View::default() };
        assert!(screen(&view).chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()));
    }
}

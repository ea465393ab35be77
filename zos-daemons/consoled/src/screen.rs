//! The screen. Pure: a view and a size in, lines out.
//!
//! ```text
//!  ZOS 0.1.0                                                              farm 7
//!  ─────────────────────────────────────────────────────────────────────────────
//!   who and how to reach it
//!   what it has, what of it is used
//!   services, faults: as many as fit
//! ```

use zos_api::local::init::{Unit, UnitState};
use zos_types::disk::Role;
use zos_types::machine::{Link, Network};
use zos_types::status::State;
use zos_types::{Amount, Bytes, Capacity};

use crate::text::{Line, Style, wrap};
use crate::view::View;

/// Characters before each line's text.
const LABEL: usize = 12;
/// The least rows that a screen is made for.
const ROWS: usize = 25;

/// A console's size in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The screen of a console: as many lines as it has, or fewer.
pub fn screen(view: &View, size: Size) -> Vec<Line> {
    // The last column stays free: some consoles wrap there, others don't.
    let width = size.columns.clamp(60, 100) - 1;
    let rows = size.rows.max(ROWS) - 1;
    let mut lines =
        vec![title(view, width), Line::new(Style::Label, "─".repeat(width)), Line::default()];
    lines.extend(who(view));
    lines.push(Line::default());
    lines.extend(capacity(view));
    lines.push(Line::default());
    lines.extend(services(view, width));
    lines.extend(disks(view, width));
    let left = rows.saturating_sub(lines.len());
    lines.extend(faults(view, width, left));
    lines
}

/// The same for a serial line: no frame, only what changes seldom.
pub fn block(view: &View) -> Vec<Line> {
    const WIDTH: usize = 78;
    let mut lines = vec![Line::default(), title(view, WIDTH)];
    lines.extend(who(view));
    lines.extend(summary(view));
    lines.extend(services(view, WIDTH));
    lines.extend(disks(view, WIDTH));
    lines.extend(faults(view, WIDTH, 40));
    lines.push(Line::default());
    lines
}

/// Whether it is known who the node is, where it is reached, and what it has.
pub fn is_complete(view: &View) -> bool {
    let reachable = view.network.as_ref().is_some_and(|network| !addresses(network).is_empty());
    let running = |unit: &Unit| unit.state == UnitState::Running;
    reachable
        && view.identity.is_some()
        && view.measured.is_some()
        && view.usage.is_some()
        && view.services.iter().all(running)
}

fn labelled(label: &str) -> Line {
    Line::new(Style::Label, format!(" {label:<width$}", width = LABEL - 1))
}

fn title(view: &View, width: usize) -> Line {
    let version = view.boot.as_ref().map_or("", |boot| boot.version.as_str());
    let settings = view.boot.as_ref().map(|boot| &boot.settings);
    let farm = settings.and_then(|settings| settings.get("farm"));
    let left = format!(" ZOS {version}");
    let right = farm.map_or("no farm is set: zos.farm=".to_owned(), |farm| format!("farm {farm}"));
    let space = width.saturating_sub(left.chars().count() + right.chars().count()).max(1);
    Line::new(Style::Strong, left).with(Style::Plain, " ".repeat(space) + &right)
}

fn who(view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(identity) = &view.identity else {
        let waits = "is known when the disks have settled";
        return vec![labelled("Node").with(Style::Plain, waits), address_line(view)];
    };
    lines.push(labelled("Node").with(Style::Strong, identity.node.to_string()));
    if identity.ephemeral {
        let lost = "this identity is lost with the next boot: no disk keeps it";
        lines.push(labelled("").with(Style::Bad, lost));
    }
    lines.push(address_line(view));
    if let Some(address) =
        view.network.as_ref().and_then(|network| addresses(network).into_iter().next())
    {
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        lines.push(labelled("Reach it").with(Style::Plain, "zos node show --node \\"));
        lines.push(labelled("").with(Style::Plain, format!("  {}@{host}", identity.node)));
    }
    lines
}

fn address_line(view: &View) -> Line {
    let line = labelled("Address");
    let Some(network) = &view.network else { return line.with(Style::Plain, "not known yet") };
    let addresses = addresses(network);
    if addresses.is_empty() {
        let why: Vec<String> = network
            .links
            .iter()
            .map(|Link { name, detail, .. }| format!("{name}: {detail}"))
            .collect();
        let why = if why.is_empty() { "no network card was found".into() } else { why.join(", ") };
        return line.with(Style::Bad, format!("none ({why})"));
    }
    line.with(Style::Strong, addresses.join("  "))
}

/// Addresses that others can reach, IPv4 first; link-local ones only when there are no others.
fn addresses(network: &Network) -> Vec<String> {
    let all = network.links.iter().flat_map(|link| &link.addresses);
    let mut all: Vec<&str> = all.map(|a| a.split('/').next().unwrap_or(a)).collect();
    if all.iter().any(|address| !address.starts_with("fe80:")) {
        all.retain(|address| !address.starts_with("fe80:"));
    }
    all.sort_by_key(|address| address.contains(':'));
    all.into_iter().map(str::to_owned).collect()
}

fn used(view: &View) -> Option<Capacity> {
    let measured = view.measured.as_ref()?;
    let used = view.usage.as_ref().map(|usage| usage.resources).unwrap_or_default();
    Some(measured.capacity.with_used(&used))
}

fn capacity(view: &View) -> Vec<Line> {
    let (Some(measured), Some(capacity)) = (&view.measured, used(view)) else {
        return vec![
            labelled("Capacity").with(Style::Plain, "is measured when the disks have settled"),
        ];
    };
    let row = |label: &str, cells: [String; 4]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        labelled(label).with(Style::Plain, cells)
    };
    let amount = |label: &str, amount: Amount, write: fn(u64) -> String| {
        let Amount { total, reserved, used, free } = amount;
        row(
            label,
            [total, reserved, used, free].map(|n| if n == 0 { "-".into() } else { write(n) }),
        )
    };
    let bytes = |n| Bytes(n).to_string();
    let mut lines = vec![
        labelled("Processor").with(Style::Plain, measured.processor.clone()),
        row("", ["all", "the node", "twins", "free"].map(str::to_owned)),
        amount("CPU threads", capacity.cru, |n| n.to_string()),
        amount("Memory", capacity.mru, bytes),
        amount("SSD", capacity.sru, bytes),
        amount("HDD", capacity.hru, bytes),
    ];
    lines.extend(offer(view));
    lines
}

/// What a serial line has room for.
fn summary(view: &View) -> Vec<Line> {
    let Some(capacity) = used(view) else { return Vec::new() };
    let text = format!(
        "{} threads, {} memory, {} SSD, {} HDD",
        capacity.cru.total,
        Bytes(capacity.mru.total),
        Bytes(capacity.sru.total),
        Bytes(capacity.hru.total)
    );
    let mut lines = vec![labelled("Capacity").with(Style::Plain, text)];
    lines.extend(offer(view));
    lines
}

fn offer(view: &View) -> Vec<Line> {
    let parts = |thousandths: u64| format!("{}.{:02}", thousandths / 1000, thousandths / 10 % 100);
    let units = view.measured.as_ref().map(|measured| measured.offered).unwrap_or_default();
    let offers = format!("{} CU, {} SU", parts(units.cu), parts(units.su));
    let mut lines = vec![labelled("Offers").with(Style::Plain, offers)];
    if let (Some(vms), Some(usage)) = (&view.vms, &view.usage) {
        let running = vms.iter().filter(|vm| vm.state == State::Running).count();
        let plural = if usage.deployments == 1 { "" } else { "s" };
        let text =
            format!("{running} of {} run, in {} deployment{plural}", usage.vms, usage.deployments);
        lines.push(labelled("VMs").with(Style::Plain, text));
    }
    lines
}

fn services(view: &View, width: usize) -> Vec<Line> {
    let well = |unit: &&Unit| unit.state == UnitState::Running;
    let running = view.services.iter().filter(well).count();
    let all = view.services.len();
    let line = labelled("Services");
    if all == 0 {
        return vec![line.with(Style::Plain, "not known yet")];
    }
    let mut lines = vec![if running == all {
        line.with(Style::Good, format!("all {all} run"))
    } else {
        line.with(Style::Bad, format!("{running} of {all} run"))
    }];
    for unit in view.services.iter().filter(|unit| !well(unit)) {
        let state = format!("{:?}", unit.state).to_lowercase();
        let detail =
            if unit.detail.is_empty() { String::new() } else { format!(" ({})", unit.detail) };
        let text = format!("{} {state}{detail}", unit.name);
        let text = wrap(&text, width - LABEL).into_iter().next().unwrap_or_default();
        lines.push(labelled("").with(Style::Plain, text));
    }
    lines
}

/// Disks of which the farmer may want to know, in one line; nothing when each does its work. What is wrong with
/// one stands among the faults.
fn disks(view: &View, width: usize) -> Option<Line> {
    let count =
        |roles: &[Role]| view.disks.iter().filter(|disk| roles.contains(&disk.role)).count();
    let mut words = Vec::new();
    for disk in view.disks.iter().filter(|disk| disk.role == Role::Leaving) {
        words.push(format!("{}: {}", disk.name, disk.reason));
    }
    for disk in view.disks.iter().filter(|disk| disk.reason.starts_with("released")) {
        words.push(format!("{} can be taken out", disk.name));
    }
    match count(&[Role::Foreign, Role::OtherNode]) {
        0 => {}
        1 => words.push("1 is not the node's".to_owned()),
        n => words.push(format!("{n} are not the node's")),
    }
    if words.is_empty() {
        return None;
    }
    let text = format!("{} in use; {}; zos disk list", count(&[Role::Ours]), words.join("; "));
    let text = wrap(&text, width - LABEL).into_iter().next().unwrap_or_default();
    Some(labelled("Disks").with(Style::Plain, text))
}

fn faults(view: &View, width: usize, rows: usize) -> Vec<Line> {
    if view.faults.is_empty() {
        return vec![labelled("Faults").with(Style::Good, "none")];
    }
    let mut lines = Vec::new();
    for (i, fault) in view.faults.iter().enumerate() {
        let texts = wrap(&format!("{} {}", fault.id, fault.detail), width - LABEL);
        let others = view.faults.len() - i - 1;
        // The last row tells how many there was no room for.
        let room = rows.saturating_sub(lines.len() + usize::from(others > 0));
        if texts.len() > room && i > 0 {
            let more = format!("and {} more: zos node show", others + 1);
            lines.push(labelled("").with(Style::Bad, more));
            break;
        }
        for (k, text) in texts.into_iter().take(room.max(1)).enumerate() {
            let label = if i == 0 && k == 0 { "Faults" } else { "" };
            lines.push(labelled(label).with(Style::Bad, text));
        }
    }
    lines
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;

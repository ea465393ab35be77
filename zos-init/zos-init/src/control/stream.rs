//! Calls that are answered again and again: what each has told already, and what is new since.

use serde_json::{Map, Value, json};
use zos_host::varlink::{Reply, object};

use crate::run::Node;
use crate::supervise::UnitId;

/// JSON of the lines in one reply, bytes.
pub(super) const PAGE: usize = 64 << 10;

/// What a caller follows, and how far it has been told.
#[derive(Debug)]
pub(crate) enum Stream {
    /// `WatchUnits`: the count of changes at its last snapshot; none: before the first.
    Units { seen: Option<u64> },
    /// `ReadLog`: the last line; `begun`: it was told that there is nothing yet.
    Log { name: String, unit: UnitId, after: u64, begun: bool },
    /// `WatchEvents`: the last event.
    Events { after: u64, begun: bool },
}

/// What `ListUnits` and `WatchUnits` tell.
pub(super) fn units(node: &Node) -> Map<String, Value> {
    object(&json!({ "units": node.status() }))
}

/// What is new; a reply without `continues` is the last.
pub(super) fn news(node: &Node, stream: &mut Stream) -> Option<Reply> {
    match stream {
        Stream::Units { seen } => {
            let now = node.changes;
            (seen.replace(now) != Some(now)).then(|| Reply::continuing(units(node)))
        }
        Stream::Log { name, unit, after, begun } => {
            if node.supervisor.find(name) != Some(*unit) {
                // It was forgotten, and its log with it.
                return Some(Reply::ok(object(&node.journal.after(*unit, *after, PAGE))));
            }
            let newest = node.journal.newest(*unit);
            // One from another boot stands beyond what there is: from here on, then.
            *after = newest.min(*after);
            if *after == newest && std::mem::replace(begun, true) {
                return None;
            }
            *begun = true;
            let page = node.journal.after(*unit, *after, PAGE);
            *after = page.entries.last().map_or(newest, |entry| entry.cursor);
            Some(Reply::continuing(object(&page)))
        }
        Stream::Events { after, begun } => {
            let newest = node.journal.events.newest();
            *after = newest.min(*after);
            if *after == newest && std::mem::replace(begun, true) {
                return None;
            }
            *begun = true;
            let happened = node.journal.events.after(*after);
            *after = newest;
            Some(Reply::continuing(object(&happened)))
        }
    }
}

//! Disks and pools in numbers.

use std::collections::BTreeMap;

use zos_daemon::Metrics;
use zos_daemon::metrics::Labels;
use zos_types::disk::{Pool, Role};

use crate::life::View;

/// Counts what the view shows, whenever somebody asks.
pub(crate) fn count(metrics: &Metrics, view: &View) {
    let disks = view.disks.clone();
    metrics.measure("disks", "Disks, by what they are to the node", move || {
        let mut roles = BTreeMap::<&str, f64>::new();
        for disk in &*disks.borrow() {
            *roles.entry(word(disk.role)).or_default() += 1.0;
        }
        roles.into_iter().map(|(role, count)| (vec![("role", role.to_owned())], count)).collect()
    });
    let bytes = |name, help, of: fn(&Pool) -> u64| {
        let volumes = view.volumes.clone();
        metrics.measure(name, help, move || {
            volumes.pools().iter().map(|pool| sized(pool, of(pool))).collect()
        });
    };
    bytes("pool_size_bytes", "Room in a pool", |pool| pool.size.0);
    bytes("pool_free_bytes", "Room in a pool that no volume has", |pool| pool.free.0);
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes")]
fn sized(pool: &Pool, bytes: u64) -> (Labels, f64) {
    (vec![("pool", pool.id.clone()), ("disk", pool.disk.clone())], bytes as f64)
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Empty => "empty",
        Role::Ours => "ours",
        Role::Foreign => "foreign",
        Role::OtherNode => "other-node",
        Role::Failing => "failing",
        Role::BootMedium => "boot-medium",
        Role::Leaving => "leaving",
    }
}

//! Disks and pools in numbers.

use std::collections::BTreeMap;

use zos_daemon::Metrics;
use zos_daemon::metrics::Labels;
use zos_types::disk::{Health, Pool, Role, Scrub, Verdict};

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
    care(metrics, view);
    let bytes = |name, help, of: fn(&Pool) -> u64| {
        let volumes = view.volumes.clone();
        metrics.measure(name, help, move || {
            volumes.pools().iter().map(|pool| sized(pool, of(pool))).collect()
        });
    };
    bytes("pool_size_bytes", "Room in a pool", |pool| pool.size.0);
    bytes("pool_free_bytes", "Room in a pool that no volume has", |pool| pool.free.0);
}

/// What disks say of themselves, and what scrubs found. Nothing is asked for it: what was told last counts.
fn care(metrics: &Metrics, view: &View) {
    let disks = |name, help, of: fn(&Health) -> Option<f64>| {
        let told = view.care.told.clone();
        metrics.measure(name, help, move || {
            let told = told.borrow();
            let values = told
                .disks
                .iter()
                .filter_map(|(disk, health)| Some((vec![("disk", disk.clone())], of(health)?)));
            values.collect()
        });
    };
    disks("disk_temperature_celsius", "Temperature of a disk", |h| Some(h.temperature?.into()));
    disks("disk_life_used_percent", "What of a disk's life is used up, as it counts", |h| {
        Some(h.used?.into())
    });
    disks("disk_media_errors", "Blocks that a disk could not read", |h| {
        Some(float(h.media_errors?))
    });
    disks("disk_standby", "Whether a disk's motor stands still", |h| Some(h.standby.into()));
    disks("disk_health", "0: it doesn't say, 1: good, 2: it warns, 3: it fails", |h| {
        Some(match h.verdict {
            Verdict::Unknown => 0.0,
            Verdict::Good => 1.0,
            Verdict::Warning => 2.0,
            Verdict::Failing => 3.0,
        })
    });
    let scrubs = |name, help, of: fn(&Scrub) -> f64| {
        let told = view.care.told.clone();
        metrics.measure(name, help, move || {
            let told = told.borrow();
            let values = told.pools.iter().filter_map(|(pool, condition)| {
                Some((vec![("pool", pool.clone())], of(condition.scrub.as_ref()?)))
            });
            values.collect()
        });
    };
    scrubs("scrub_read_bytes", "Read by the last scrub of a pool", |s| float(s.read.0));
    scrubs("scrub_repaired", "Errors that the last scrub repaired", |s| float(s.repaired));
    scrubs("scrub_unrepaired", "Errors that the last scrub could not repair", |s| {
        float(s.unrepaired)
    });
    scrubs("scrub_ended_seconds", "When the last scrub ended, since 1970; 0: it goes on", |s| {
        s.ended.map_or(0.0, |ended| float(u64::try_from(ended.as_second()).unwrap_or(0)))
    });
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(number: u64) -> f64 {
    number as f64
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

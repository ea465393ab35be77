//! What room volumes still need: those that are to be made or to grow. Pure.
//!
//! | A volume                      | needs |
//! |-------------------------------|-------|
//! | that is to be made            | its whole footprint, on any pools of its class |
//! | that is to be made from one   | the same, on the pools of its origin: it shares its blocks |
//! | that is smaller than wanted   | what its footprint grows by, where it lies |
//! | that is as wanted, or missing | nothing |

use std::collections::BTreeMap;

use zos_api::local::storage;
use zos_types::deployment::Volume;
use zos_types::volume::Footprint;
use zos_types::{Name, Workload};

use crate::book::{Book, Owner, workload_key};
use crate::plan::{Desired, Key, origin};
use crate::space::Need;

/// What is there, by key, of which some is in the making.
#[derive(Clone, Copy, Debug)]
pub struct There<'a> {
    /// What storaged has.
    pub volumes: &'a BTreeMap<Key, storage::Volume>,
    /// What is wanted, what was made once, and what is on its way out.
    pub desired: &'a Desired,
}

impl There<'_> {
    /// A volume as storaged has it, unless it is on its way out.
    pub fn volume(&self, key: &Key) -> Option<&storage::Volume> {
        self.volumes.get(key).filter(|_| !self.desired.removals.contains(key))
    }

    /// Whether a volume was made once, and its disk is not there now.
    pub fn is_missing(&self, key: &Key) -> bool {
        let made = self.desired.made.contains(key) && !self.desired.removals.contains(key);
        made && !self.volumes.contains_key(key)
    }

    /// What a volume that is wanted so still needs.
    pub fn need(&self, key: &Key, wanted: &Volume) -> Option<Need> {
        let class = wanted.class;
        let takes = Footprint::of(wanted.size, wanted.integrity);
        if let Some(volume) = self.volume(key) {
            let has = Footprint::of(volume.size, volume.integrity);
            let takes = Footprint { each: takes.each - has.each, ..takes };
            let grows = wanted.size > volume.size;
            return grows.then(|| Need { class, takes, on: volume.pools.clone() });
        }
        if self.is_missing(key) {
            return None;
        }
        let from = origin(key, wanted).and_then(|origin| self.volumes.get(&origin));
        Some(Need { class, takes, on: from.map(|from| from.pools.clone()).unwrap_or_default() })
    }

    /// What all deployments, or all but one, still need.
    pub fn promised(&self, book: &Book, but: Option<&Owner>) -> Vec<Need> {
        let others = book.current().filter(|(other, _)| Some(*other) != but);
        let volumes = others.flat_map(|(owner, deployment)| {
            let volume = |(name, workload): (&Name, &'_ Workload)| {
                let (volume, _) = workload.volume()?;
                self.need(&workload_key(owner, name), volume)
            };
            deployment.workloads.iter().filter_map(volume).collect::<Vec<_>>()
        });
        volumes.collect()
    }

    /// What a deployment's volumes need, by name.
    pub fn needs(&self, owner: &Owner, deployment: &zos_types::Deployment) -> BTreeMap<Name, Need> {
        let volumes = deployment.workloads.iter().filter_map(|(name, workload)| {
            let (volume, _) = workload.volume()?;
            Some((name.clone(), self.need(&workload_key(owner, name), volume)?))
        });
        volumes.collect()
    }
}

#[cfg(test)]
mod tests {
    use zos_types::deployment::Class;
    use zos_types::{Bytes, Deployment};

    use super::*;
    use crate::plan::tests::twin;

    #[test]
    fn what_a_volume_still_needs() {
        const GIB: u64 = 1 << 30;
        let key = |name: &str| (twin(), format!("web/{name}").parse().unwrap());
        let text = r#"{"version": 1, "workloads": {
            "new": {"type": "volume", "size": "1GiB", "class": "hdd"},
            "same": {"type": "volume", "size": "1GiB", "integrity": "repair"},
            "grows": {"type": "volume", "size": "3GiB", "integrity": "repair"},
            "clone": {"type": "volume", "size": "2GiB", "from": "same@monday"},
            "missing": {"type": "volume", "size": "1GiB"},
            "again": {"type": "volume", "size": "1GiB"}}}"#;
        let deployment = Deployment::from_json(text.as_bytes()).unwrap();
        let mut desired = Desired::default();
        desired.made.extend([key("same"), key("grows"), key("missing"), key("again")]);
        desired.removals.insert(key("again"));
        let volumes = ["same", "grows", "again"].map(|name| {
            let (twin, workload) = key(name);
            let volume = storage::Volume::new(twin, workload, Bytes(GIB), Class::Ssd, "p");
            let pools = vec!["p".into(), "q".into()];
            let integrity = zos_types::deployment::Integrity::Repair;
            (key(name), storage::Volume { pools, integrity, ..volume })
        });
        let volumes = volumes.into_iter().collect();
        let there = There { volumes: &volumes, desired: &desired };
        let found: Vec<String> = there
            .needs(&(twin(), "web".parse().unwrap()), &deployment)
            .into_iter()
            .map(|(name, Need { class, takes, on })| {
                let mib = takes.each.0 >> 20;
                format!("{name}: {class} {}x{mib} {}", takes.copies, on.join("+"))
            })
            .collect();
        let expected = [
            "again: ssd 1x1024 ",
            "clone: ssd 1x2048 p+q",
            "grows: ssd 2x2050 p+q",
            "new: hdd 1x1024 ",
        ];
        assert_eq!(found, expected);
    }
}

//! Who has which tap, hardware address and place in the subnet. Pure; the store keeps the rows.
//!
//! ```text
//!  (seed, twin, name, index) ── SHA-256 ──▶ device t…, mac 02:…, first guess of the host number
//!                                                        taken: the next one that is free
//! ```
//! A row keeps the number of the host within the subnet and not its address, so the same VM has
//! the same number also after the subnet had to move.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zos_types::{TwinId, WorkloadName};

use crate::links;

/// The first host number that a VM gets: those below are the node's.
const FIRST: u16 = 16;
/// The last one: 65,535 is the broadcast address of a /16.
const LAST: u16 = 65_534;

/// A VM's place on the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Whose it is.
    pub twin: TwinId,
    /// Which VM.
    pub name: WorkloadName,
    /// Its place among the VM's networks.
    pub index: u32,
    /// The interface on the node.
    pub device: String,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// The number of the host within the subnet.
    pub host: u16,
}

impl Row {
    /// The guest's address.
    pub fn address(&self, subnet: Ipv4Net) -> Ipv4Addr {
        (u32::from(subnet.network()) + u32::from(self.host)).into()
    }

    /// The key that it is stored under.
    pub fn key(&self) -> String {
        key(&self.twin, &self.name, self.index)
    }
}

fn key(twin: &TwinId, name: &WorkloadName, index: u32) -> String {
    format!("{twin}/{}/{index}", name.dotted())
}

/// No place is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the VM network has no free address")]
pub struct Full;

/// Every VM's place.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: BTreeMap<String, Row>,
}

impl Table {
    /// A table of rows that were kept. A row that contradicts an earlier one is left out.
    pub fn new(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut table = Self::default();
        for row in rows {
            if table.free(&row.device, row.mac, row.host) {
                table.rows.insert(row.key(), row);
            }
        }
        table
    }

    /// The rows by twin, name and index.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The row of a hardware address.
    pub fn by_mac(&self, mac: [u8; 6]) -> Option<&Row> {
        self.rows.values().find(|row| row.mac == mac)
    }

    /// The row of a VM's network, if it has one.
    pub fn get(&self, twin: &TwinId, name: &WorkloadName, index: u32) -> Option<&Row> {
        self.rows.get(&key(twin, name, index))
    }

    /// A row for a VM's network: the one that it has, or a new one, which isn't in the table yet.
    pub fn place(
        &self,
        seed: &[u8],
        twin: &TwinId,
        name: &WorkloadName,
        index: u32,
    ) -> Result<Row, Full> {
        if let Some(row) = self.get(twin, name, index) {
            return Ok(row.clone());
        }
        for attempt in 0u8..=255 {
            let hash = Sha256::new()
                .chain_update(seed)
                .chain_update(twin.as_bytes())
                .chain_update(name.dotted())
                .chain_update([0])
                .chain_update(index.to_be_bytes())
                .chain_update([attempt])
                .finalize();
            // locally administered, one host's
            let mac = [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]];
            let device = format!("t{}", hex::encode(&hash[5..12]));
            let guess = u16::from_be_bytes([hash[12], hash[13]]);
            let host = self.free_host(guess).ok_or(Full)?;
            if self.free(&device, mac, host) {
                return Ok(Row { twin: *twin, name: name.clone(), index, device, mac, host });
            }
        }
        Err(Full)
    }

    /// Puts a placed row in.
    pub fn insert(&mut self, row: Row) {
        self.rows.insert(row.key(), row);
    }

    /// Takes a VM's rows out.
    pub fn remove(&mut self, twin: &TwinId, name: &WorkloadName) -> Vec<Row> {
        let (gone, kept) = std::mem::take(&mut self.rows)
            .into_iter()
            .partition(|(_, row)| row.twin == *twin && row.name == *name);
        self.rows = kept;
        let gone: BTreeMap<String, Row> = gone;
        gone.into_values().collect()
    }

    fn free(&self, device: &str, mac: [u8; 6], host: u16) -> bool {
        (FIRST..=LAST).contains(&host)
            && links::parse_mac(&links::mac_text(mac)).is_some()
            && self.rows.values().all(|r| r.device != device && r.mac != mac && r.host != host)
    }

    fn free_host(&self, guess: u16) -> Option<u16> {
        let count = LAST - FIRST + 1;
        let used: std::collections::BTreeSet<u16> = self.rows.values().map(|r| r.host).collect();
        let start = guess % count;
        (0..count)
            .map(|step| {
                FIRST
                    + u16::try_from((u32::from(start) + u32::from(step)) % u32::from(count))
                        .unwrap_or(0)
            })
            .find(|host| !used.contains(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn twin(n: u8) -> TwinId {
        // Not each 32 bytes are a key: take the next that are.
        (0u8..=255)
            .find_map(|salt| TwinId::from_bytes(Sha256::digest([n, salt]).into()).ok())
            .unwrap()
    }

    fn name(n: u8) -> WorkloadName {
        format!("d{}/w{}", n / 16, n % 16).parse().unwrap()
    }

    proptest! {
        #[test]
        fn places_are_unique_stable_and_outlive_a_restart(
            asked in proptest::collection::vec((0u8..6, any::<u8>(), 0u32..3), 1..60),
            seed: [u8; 8],
        ) {
            let mut table = Table::default();
            let mut known = BTreeMap::new();
            for (t, n, index) in asked {
                let row = table.place(&seed, &twin(t), &name(n), index).unwrap();
                let before = known.insert((t, n, index), row.clone());
                prop_assert!(before.is_none_or(|before| before == row));
                table.insert(row);
            }
            let rows: Vec<Row> = table.rows().cloned().collect();
            prop_assert_eq!(rows.len(), known.len());
            let unique = |values: Vec<String>| values.iter().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(unique(rows.iter().map(|r| r.device.clone()).collect()), rows.len());
            prop_assert_eq!(unique(rows.iter().map(|r| format!("{:?}", r.mac)).collect()), rows.len());
            prop_assert_eq!(unique(rows.iter().map(|r| r.host.to_string()).collect()), rows.len());
            for row in &rows {
                prop_assert!(row.device.len() <= 15 && row.mac[0] == 2);
                prop_assert!((FIRST..=LAST).contains(&row.host));
            }
            let again = Table::new(rows.clone());
            prop_assert_eq!(again.rows().cloned().collect::<Vec<_>>(), rows);
        }
    }

    #[test]
    fn a_removed_vm_leaves_nothing_and_comes_back_the_same() {
        let mut table = Table::default();
        let row = table.place(b"s", &twin(1), &name(1), 0).unwrap();
        table.insert(row.clone());
        assert_eq!(table.remove(&twin(1), &name(1)), std::slice::from_ref(&row));
        assert!(table.remove(&twin(1), &name(1)).is_empty());
        assert_eq!(table.place(b"s", &twin(1), &name(1), 0).unwrap(), row);
        assert_ne!(table.place(b"other", &twin(1), &name(1), 0).unwrap().mac, row.mac);
    }

    #[test]
    fn a_contradicting_row_is_left_out() {
        let table = Table::default();
        let row = table.place(b"s", &twin(1), &name(1), 0).unwrap();
        let thief = Row { name: name(2), ..row.clone() };
        let table = Table::new([row.clone(), thief, Row { host: 1, ..row.clone() }]);
        assert_eq!(table.rows().collect::<Vec<_>>(), [&row]);
    }
}

//! What a daemon sees wrong, now. Faults stay until what raised them clears them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use zos_types::Fault;

/// A daemon's faults. Clones share the same board.
#[derive(Clone, Debug, Default)]
pub struct FaultBoard(Arc<Mutex<BTreeMap<String, String>>>);

impl FaultBoard {
    /// Shows a fault, in place of one with the same id. A new one is logged.
    pub fn raise(&self, fault: Fault) {
        let Fault { id, detail } = fault;
        let before = self.with(|faults| faults.insert(id.clone(), detail.clone()));
        if before.as_ref() != Some(&detail) {
            tracing::warn!("fault {id}: {detail}");
        }
    }

    /// Takes a fault away. One that stood is logged as healed.
    pub fn clear(&self, id: &str) {
        if self.with(|faults| faults.remove(id)).is_some() {
            tracing::info!("healed {id}");
        }
    }

    /// Makes the faults whose ids begin with `prefix` these and no others.
    pub fn replace(&self, prefix: &str, faults: impl IntoIterator<Item = Fault>) {
        let faults: Vec<Fault> = faults.into_iter().collect();
        let gone: Vec<String> = self.with(|board| {
            let stays = |id: &String| faults.iter().any(|fault| &fault.id == id);
            board.keys().filter(|id| id.starts_with(prefix) && !stays(id)).cloned().collect()
        });
        for id in gone {
            self.clear(&id);
        }
        for fault in faults {
            self.raise(fault);
        }
    }

    /// The faults that stand, by id.
    pub fn list(&self) -> Vec<Fault> {
        self.with(|faults| faults.iter().map(|(id, detail)| Fault::new(id, detail)).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_and_go() {
        let board = FaultBoard::default();
        let ids = || board.list().into_iter().map(|f| f.id).collect::<Vec<_>>();
        board.raise(Fault::new("net.no-dhcp:eth0", "no answer"));
        board.raise(Fault::new("net.no-nic", "none"));
        board.raise(Fault::new("net.no-nic", "still none"));
        assert_eq!(ids(), ["net.no-dhcp:eth0", "net.no-nic"]);
        assert_eq!(board.list()[1].detail, "still none");
        board.replace("net.no-dhcp:", [Fault::new("net.no-dhcp:eth1", "no answer")]);
        assert_eq!(ids(), ["net.no-dhcp:eth1", "net.no-nic"]);
        board.clear("net.no-nic");
        board.replace("net.", []);
        assert!(ids().is_empty());
    }
}

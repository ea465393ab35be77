//! What vmd must know again when it is started anew while its VMs run: kept in memory-backed files,
//! since a boot ends all VMs.
//!
//! ```text
//!  /run/zos/vm/vms.json     every VM with its slot, written whole and renamed before anything is done
//!  /run/zos/vm/<slot>.ring  each VM's console
//!  /run/zos/vm/<slot>/      each VM's sockets
//!  /run/zos/vm/<twin>.rates what all VMs of a twin share
//! ```

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zos_types::{TwinId, WorkloadName};

use crate::machine::Machine;
use crate::sockets;

/// Slots that PID 1's template has.
pub const SLOTS: u32 = 10_000;

/// Which VM.
pub type Key = (TwinId, WorkloadName);

/// A VM in the notes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// Whose it is.
    pub twin: TwinId,
    /// Which.
    pub name: WorkloadName,
    /// Its number among all VMs; its user is 20,000 more.
    pub slot: u32,
    /// Its address on its first network.
    pub address: Option<IpAddr>,
    /// The VM.
    pub machine: Machine,
}

/// The folder of the notes.
#[derive(Clone, Debug)]
pub struct Notes {
    folder: PathBuf,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    boot: String,
    vms: Vec<Note>,
}

impl Notes {
    /// Notes of this boot in a folder.
    pub fn new(folder: impl Into<PathBuf>, boot: impl Into<String>) -> Self {
        Self { folder: folder.into(), boot: boot.into() }
    }

    /// What an earlier life of vmd noted in this boot. Notes of an earlier boot are wiped, with
    /// its rings.
    pub fn load(&self) -> io::Result<Vec<Note>> {
        let text = match fs::read(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let file: File = serde_json::from_slice(&text)?;
        if file.boot == self.boot {
            return Ok(file.vms);
        }
        for note in file.vms {
            self.forget(note.slot);
            self.forget_twin(&note.twin);
        }
        fs::remove_file(self.path())?;
        Ok(Vec::new())
    }

    /// Writes what is to be known again.
    pub fn save(&self, vms: Vec<Note>) -> io::Result<()> {
        let new = self.folder.join("vms.json.new");
        fs::write(&new, serde_json::to_vec(&File { boot: self.boot.clone(), vms })?)?;
        fs::rename(new, self.path())
    }

    /// Where a VM's console lies.
    pub fn ring(&self, slot: u32) -> PathBuf {
        self.folder.join(format!("{slot}.ring"))
    }

    /// Where a VM's sockets lie.
    pub fn sockets(&self, slot: u32) -> PathBuf {
        self.folder.join(slot.to_string())
    }

    /// Where a twin's buckets lie.
    pub fn rates(&self, twin: &TwinId) -> PathBuf {
        self.folder.join(format!("{twin}.rates"))
    }

    /// Forgets what a twin's VMs shared: it has none any more.
    pub fn forget_twin(&self, twin: &TwinId) {
        if let Err(error) = fs::remove_file(self.rates(twin))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("remove {}: {error}", self.rates(twin).display());
        }
    }

    /// Forgets a VM's console and its sockets.
    pub fn forget(&self, slot: u32) {
        if let Err(error) = sockets::unlink(&self.sockets(slot)) {
            tracing::warn!("remove {}: {error}", self.sockets(slot).display());
        }
        if let Err(error) = fs::remove_file(self.ring(slot))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("remove {}: {error}", self.ring(slot).display());
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("vms.json")
    }
}

/// The lowest slot that none of `taken` has.
pub fn free_slot(taken: impl IntoIterator<Item = u32>) -> Option<u32> {
    let taken: std::collections::BTreeSet<u32> = taken.into_iter().collect();
    (0..SLOTS).find(|slot| !taken.contains(slot))
}

/// Whether files can be made in a folder.
pub fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(".probe");
    let made = fs::write(&probe, b"").is_ok();
    made && fs::remove_file(probe).is_ok()
}

#[cfg(test)]
mod tests {
    use zos_types::deployment::{Image, Vm};
    use zos_types::{Bytes, NodeId};

    use super::*;

    fn twin() -> TwinId {
        // The base point of the curve (RFC 8032, section 5.1): some usable key.
        let mut bytes = [0x66; 32];
        bytes[0] = 0x58;
        NodeId::from_bytes(bytes).unwrap()
    }

    #[test]
    fn notes_are_found_again_in_the_same_boot_only() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::new(folder.path(), "boot-1");
        assert_eq!(notes.load().unwrap(), []);
        let vm = Vm {
            cpu: 1,
            memory: Bytes(1 << 28),
            image: Image::Hello,
            restart: Default::default(),
            disks: vec![],
            networks: vec![],
            shares: vec![],
        };
        let note = Note {
            twin: twin(),
            name: "web/hello".parse().unwrap(),
            slot: 3,
            address: None,
            machine: Machine::new(7, vm),
        };
        notes.save(vec![note]).unwrap();
        crate::ring::open(&notes.ring(3)).unwrap();
        crate::sockets::Socket::Api.bind(&notes.sockets(3)).unwrap();
        let found = notes.load().unwrap();
        assert_eq!((found.len(), found[0].slot, found[0].machine.since), (1, 3, 7));
        assert_eq!(found[0].machine.phase(), &crate::machine::Phase::Unknown);

        let next = Notes::new(folder.path(), "boot-2");
        assert_eq!(next.load().unwrap(), []);
        assert!(!next.ring(3).exists() && !next.sockets(3).exists());
    }

    #[test]
    fn slots() {
        assert_eq!(free_slot([]), Some(0));
        assert_eq!(free_slot([0, 2, 1, 4]), Some(3));
        assert_eq!(free_slot(0..SLOTS), None);
    }
}

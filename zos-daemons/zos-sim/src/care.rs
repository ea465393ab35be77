//! How simulated disks do: well, unless their folder says otherwise.
//!
//! ```text
//!  disks/nvme0n1/smart.json    what `smartctl --json` would say of it; none: it is well
//! ```
//! The answer goes through storaged's own parser, so a developer can see what a node makes of a sick disk.

use std::fs;
use std::path::{Path, PathBuf};

use storaged::care::look::{Errors, Look, PoolLook, Requests};
use storaged::care::port::Hands;
use storaged::care::space::Space;
use storaged::care::{images, smart};
use zos_host::block::Disk;
use zos_host::btrfs::Scrubbed;
use zos_types::disk::{Health, Verdict};

/// Hands on disks that are folders.
#[derive(Debug)]
pub(crate) struct Care {
    /// The disks, a folder each.
    pub(crate) folder: PathBuf,
}

impl Hands for Care {
    fn ask(&self, disk: &Disk) -> Result<Health, String> {
        let Ok(said) = fs::read(self.folder.join(&disk.name).join("smart.json")) else {
            let (verdict, temperature) = (Verdict::Good, Some(35));
            return Ok(Health { verdict, temperature, media_errors: Some(0), ..smart::unknown() });
        };
        let parsed: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let exit = parsed.pointer("/smartctl/exit_status").and_then(serde_json::Value::as_i64);
        let exit = exit.and_then(|exit| i32::try_from(exit).ok());
        smart::read(&said, exit).map_err(|error| error.to_string())
    }

    fn look(&self, disk: &Disk) -> Look {
        let size = disk.size;
        // Nothing but the disks' own sizes is known here: there is always room.
        let space = Space { size, unallocated: size, ..Space::default() };
        let pool = PoolLook { errors: Errors::default(), space, device: 1, size };
        Look { requests: Some(Requests::default()), pool: Some(pool), ..Look::default() }
    }

    fn scrub(&self, _: &Path, _: u64, _: u64, to: u64) -> Result<Scrubbed, String> {
        // A folder has no checksums: all of it is passed over.
        Ok(Scrubbed { last: to, ..Scrubbed::default() })
    }

    fn collect(&self, root: &Path, wanted: u64) -> Result<u64, String> {
        images::collect(root, wanted).map_err(|error| error.to_string())
    }

    fn balance(&self, _: &Path, _: u8) -> Result<(), String> {
        Ok(())
    }

    fn rest(&self, _: &Disk) -> Result<(), String> {
        Ok(())
    }
}

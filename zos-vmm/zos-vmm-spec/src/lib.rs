//! What a VM is made of, as JSON: read by `zos-vmm`, written by `vmd` and by people.
//!
//! ```text
//!  Spec ── cpus, memory, cmdline
//!   ├── kernel, initramfs, console ── Source   {"fd": "kernel"} in the jail
//!   ├── disks ── Disk ── Source                {"path": "/tmp/a.img"} for developers
//!   └── nets ── Net ── Source, Mac             {"tap": "tap0"} for developers
//! ```
//!
//! A spec that came through [`Spec::validate`] holds what its rules say; nobody checks again.
//! Nothing here opens anything: who reads a [`Source`] decides what it may name.
#![forbid(unsafe_code)]

mod units;
mod validate;

pub use units::{Bytes, Mac, ParseError};
pub use validate::{Limits, SpecError};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One VM. Unknown fields are refused, so that a misspelt one isn't silently ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Virtual CPUs, 1 to 128.
    pub cpus: u16,
    /// Memory of the guest in bytes: a multiple of 1 MiB, at least 64 MiB.
    pub memory: Bytes,
    /// Kernel command line, at most 2047 bytes.
    #[serde(default)]
    pub cmdline: String,
    /// Linux kernel: bzImage or ELF on x86_64.
    pub kernel: Source,
    /// Initramfs, handed to the kernel as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<Source>,
    /// virtio-blk devices in the order the guest sees them: `vda`, `vdb` ...
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// virtio-net devices in the order the guest sees them: `eth0`, `eth1` ...
    #[serde(default)]
    pub nets: Vec<Net>,
    /// A virtio-rng device, so that the guest has entropy at once.
    #[serde(default = "yes")]
    pub rng: bool,
    /// Where the serial port's output goes: a console ring. Without one it goes to stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Source>,
}

/// Where something comes from. In the jail only `fd` is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A passed descriptor, by its name in `LISTEN_FDNAMES`.
    Fd(String),
    /// A file or block device (developers).
    Path(PathBuf),
    /// A tap interface by name (developers).
    Tap(String),
}

/// A raw disk; the format is never probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Name within the spec, in the form of a workload's name.
    pub id: String,
    /// A regular file or block device.
    pub source: Source,
    /// Refuse writes; the guest is told so.
    #[serde(default)]
    pub readonly: bool,
    /// What the guest reads as serial number, at most 20 printable ASCII bytes. Default: the id,
    /// cut to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Name within the spec, in the form of a workload's name.
    pub id: String,
    /// A tap: `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub source: Source,
    /// The guest's address: unicast. Default: the guest draws one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Disk {
    /// The serial number that the guest reads: zero-padded, as virtio-blk's `GET_ID` wants it.
    #[must_use]
    pub fn serial_bytes(&self) -> [u8; Limits::SERIAL_BYTES] {
        let mut bytes = [0; Limits::SERIAL_BYTES];
        let serial = self.serial.as_deref().unwrap_or(&self.id).as_bytes();
        let length = serial.len().min(bytes.len());
        bytes[..length].copy_from_slice(&serial[..length]);
        bytes
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_spec_has_defaults() {
        let spec: Spec =
            serde_json::from_str(r#"{"cpus": 1, "memory": 268435456, "kernel": {"fd": "kernel"}}"#)
                .unwrap();
        assert!(spec.rng && spec.disks.is_empty() && spec.nets.is_empty());
        assert_eq!(spec.kernel, Source::Fd("kernel".into()));
        spec.validate().unwrap();
    }

    #[test]
    fn a_full_spec_survives_the_round_trip() {
        let text = r#"{"cpus":2,"memory":134217728,"cmdline":"console=ttyS0","kernel":{"path":"/k"},
            "initramfs":{"fd":"initramfs"},"disks":[{"id":"data","source":{"fd":"disk-data"},
            "readonly":true,"serial":"abc"}],"nets":[{"id":"nat","source":{"tap":"t0"},
            "mac":"52:54:00:12:34:56"}],"rng":false,"console":{"fd":"console"}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        let again: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(spec, again);
        assert_eq!(&spec.disks[0].serial_bytes()[..4], b"abc\0");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"cpus": 1, "memory": 268435456, "kernel": {"fd": "k"}, "cpu": 4}"#;
        assert!(serde_json::from_str::<Spec>(text).unwrap_err().to_string().contains("`cpu`"));
    }
}

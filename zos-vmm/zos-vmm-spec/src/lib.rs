//! What a VM is made of, as JSON: read by `zos-vmm`, written by `vmd` and by people.
//!
//! ```text
//!  Spec ── cpus, memory, cmdline
//!   ├── kernel, initramfs ── Source            {"fd": "kernel"} in the jail
//!   ├── disks ── Disk ── Source, Rate          {"path": "/tmp/a.img"} for developers
//!   ├── nets ── Net ── Source, Mac, Rate       {"tap": "tap0"} for developers
//!   ├── serial, console ── Console             a ring, a socket, a rate
//!   ├── vsock, shares ── Source                Unix sockets
//!   └── rng, balloon
//! ```
//!
//! A spec that came through [`Spec::validate`] holds what its rules say; nobody checks again.
//! Nothing here opens anything: who reads a [`Source`] decides what it may name.
#![forbid(unsafe_code)]

mod devices;
pub mod rates;
mod units;
mod validate;

pub use devices::{Balloon, Bucket, Console, Disk, IoEngine, Net, Rate, Share, Vsock};
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
    /// The serial port: COM1, or PL011. Without it what the guest writes there goes to stdout, and
    /// in the jail nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Console>,
    /// A virtio-console, `hvc0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// A virtio-vsock device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// A virtio-balloon device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// virtio-fs devices: folders of the host, each served by a process of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// How disks are read and written.
    #[serde(default)]
    pub io: IoEngine,
    /// Buckets that all VMs of a twin draw from, a file of shared memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_rates: Option<Source>,
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
            "mac":"52:54:00:12:34:56","queues":2,"addresses":["10.0.0.2","fd00::2"],
            "transmit_rate":{"bytes":{"per_second":1000000,"burst":65536}}}],"rng":false,
            "serial":{"ring":{"fd":"console"},"socket":{"fd":"tty"}},"console":{},
            "vsock":{"cid":3,"socket":{"fd":"vsock"}},"balloon":{"free_page_reporting":true},
            "shares":[{"tag":"home","source":{"fd":"share-0"}}],"io":"sync"}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        spec.validate().unwrap();
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

//! The rules of a spec. Each refusal names the field and the rule.

use crate::{Source, Spec};
use std::collections::BTreeSet;

/// The numbers that the rules speak of.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// Most virtual CPUs of a VM.
    pub const CPUS: u16 = 128;
    /// Smallest memory in bytes: a kernel and its initramfs need room to unpack.
    pub const MEMORY_MIN: u64 = 64 << 20;
    /// Largest memory in bytes: what a 40-bit guest-physical address space holds beside devices.
    pub const MEMORY_MAX: u64 = 512 << 30;
    /// Memory comes in steps of this many bytes.
    pub const MEMORY_STEP: u64 = 1 << 20;
    /// Longest kernel command line in bytes (x86: `COMMAND_LINE_SIZE` less the final zero).
    pub const CMDLINE: usize = 2047;
    /// Most devices: one PCI bus has 32 slots; the host bridge and the rng take two.
    pub const DEVICES: usize = 30;
    /// Length of a disk's serial number (virtio 1.2, 5.2.6: `VIRTIO_BLK_ID_BYTES`).
    pub const SERIAL_BYTES: usize = 20;
    /// Longest id.
    pub const ID: usize = 36;
}

/// A spec that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct SpecError {
    /// Path of the field, like `disks[0].serial`.
    pub field: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Spec {
    /// Checks every rule that needs no machine.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), SpecError> {
        let memory = self.memory.0;
        check("cpus", (1..=Limits::CPUS).contains(&self.cpus), "must be 1 to 128")?;
        check("memory", memory >= Limits::MEMORY_MIN, "must be at least 64 MiB")?;
        check("memory", memory <= Limits::MEMORY_MAX, "must be at most 512 GiB")?;
        check("memory", memory.is_multiple_of(Limits::MEMORY_STEP), "must be a multiple of 1 MiB")?;
        check("cmdline", self.cmdline.len() <= Limits::CMDLINE, "must be at most 2047 bytes")?;
        let printable = self.cmdline.bytes().all(|b| (0x20..0x7f).contains(&b));
        check("cmdline", printable, "must be printable ASCII")?;
        file("kernel", &self.kernel)?;
        for (field, source) in [("initramfs", &self.initramfs), ("console", &self.console)] {
            source.as_ref().map_or(Ok(()), |source| file(field, source))?;
        }
        let devices = self.disks.len() + self.nets.len();
        check("disks", devices <= Limits::DEVICES, "disks and nets must be at most 30 together")?;
        self.validate_disks()?;
        self.validate_nets()
    }

    fn validate_disks(&self) -> Result<(), SpecError> {
        let mut ids = BTreeSet::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let field = |name: &str| format!("disks[{index}].{name}");
            id(&field("id"), &disk.id, &mut ids)?;
            file(&field("source"), &disk.source)?;
            if let Some(serial) = &disk.serial {
                let right = serial.len() <= Limits::SERIAL_BYTES
                    && serial.bytes().all(|b| (0x20..0x7f).contains(&b));
                check(&field("serial"), right, "must be at most 20 printable ASCII bytes")?;
            }
        }
        Ok(())
    }

    fn validate_nets(&self) -> Result<(), SpecError> {
        let mut ids = BTreeSet::new();
        for (index, net) in self.nets.iter().enumerate() {
            let field = |name: &str| format!("nets[{index}].{name}");
            id(&field("id"), &net.id, &mut ids)?;
            let is_tap = matches!(net.source, Source::Fd(_) | Source::Tap(_));
            check(&field("source"), is_tap, "must be a descriptor or a tap")?;
            let unicast = net.mac.is_none_or(super::units::Mac::is_unicast);
            check(&field("mac"), unicast, "must be a unicast address")?;
        }
        Ok(())
    }
}

fn file(field: &str, source: &Source) -> Result<(), SpecError> {
    let is_file = matches!(source, Source::Fd(_) | Source::Path(_));
    check(field, is_file, "must be a descriptor or a path")
}

fn id<'a>(field: &str, id: &'a str, seen: &mut BTreeSet<&'a str>) -> Result<(), SpecError> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = id.as_bytes();
    let right = bytes.len() <= Limits::ID
        && bytes.first().copied().is_some_and(word)
        && bytes.last().copied().is_some_and(word)
        && bytes.iter().all(|b| word(*b) || *b == b'-');
    check(field, right, "must match ^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$")?;
    check(field, seen.insert(id), "must be unique")
}

fn check(field: &str, right: bool, rule: &'static str) -> Result<(), SpecError> {
    if right { Ok(()) } else { Err(SpecError { field: field.to_owned(), rule }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Disk, Mac, Net};

    fn spec() -> Spec {
        let disk = Disk {
            id: "data".into(),
            source: Source::Fd("disk-data".into()),
            readonly: false,
            serial: None,
        };
        let net = Net {
            id: "nat".into(),
            source: Source::Tap("tap0".into()),
            mac: Some(Mac([0x52, 0x54, 0, 1, 2, 3])),
        };
        Spec {
            cpus: 1,
            memory: Bytes(256 << 20),
            cmdline: "console=ttyS0".into(),
            kernel: Source::Path("/vmlinuz".into()),
            initramfs: None,
            disks: vec![disk.clone(), Disk { id: "b".into(), ..disk }],
            nets: vec![net],
            rng: true,
            console: None,
        }
    }

    #[test]
    fn each_rule_names_its_field() {
        type Change = fn(&mut Spec);
        let rows: &[(&str, Change)] = &[
            ("cpus", |s| s.cpus = 0),
            ("cpus", |s| s.cpus = 129),
            ("memory", |s| s.memory = Bytes(32 << 20)),
            ("memory", |s| s.memory = Bytes((64 << 20) + 4096)),
            ("memory", |s| s.memory = Bytes(1 << 40)),
            ("cmdline", |s| s.cmdline = "x".repeat(2048)),
            ("cmdline", |s| s.cmdline = "a\0b".into()),
            ("kernel", |s| s.kernel = Source::Tap("t".into())),
            ("console", |s| s.console = Some(Source::Tap("t".into()))),
            ("disks", |s| s.disks = vec![s.disks[0].clone(); 40]),
            ("disks[1].id", |s| s.disks[1].id = "data".into()),
            ("disks[0].id", |s| s.disks[0].id = "-a".into()),
            ("disks[0].id", |s| s.disks[0].id = String::new()),
            ("disks[0].id", |s| s.disks[0].id = "a".repeat(37)),
            ("disks[0].source", |s| s.disks[0].source = Source::Tap("t".into())),
            ("disks[1].serial", |s| s.disks[1].serial = Some("x".repeat(21))),
            ("nets[0].source", |s| s.nets[0].source = Source::Path("/dev/net/tun".into())),
            ("nets[0].mac", |s| s.nets[0].mac = Some(Mac([1, 0, 0, 0, 0, 0]))),
        ];
        spec().validate().unwrap();
        for (field, change) in rows {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(&spec.validate().unwrap_err().field, field);
        }
    }
}

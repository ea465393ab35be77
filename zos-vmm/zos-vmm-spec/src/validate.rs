//! The rules of a spec. Each refusal names the field and the rule.

use crate::{Rate, Source, Spec};
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
    /// Most devices: one PCI bus has 32 slots, and the host bridge takes one.
    pub const DEVICES: usize = 31;
    /// Most queues of a disk or share, and pairs of queues of a net.
    pub const QUEUES: u16 = 16;
    /// Context ids of guests (virtio 1.2, 5.10.4): 0 to 2 and the last one have a meaning.
    pub const CIDS: std::ops::Range<u64> = 3..0xffff_ffff;
    /// Longest tag of a share (virtio 1.2, 5.11.4).
    pub const TAG: usize = 36;
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
        self.initramfs.as_ref().map_or(Ok(()), |source| file("initramfs", source))?;
        self.twin_rates.as_ref().map_or(Ok(()), |source| file("twin_rates", source))?;
        check("disks", self.devices() <= Limits::DEVICES, "at most 31 devices of all kinds")?;
        self.validate_disks()?;
        self.validate_nets()?;
        self.validate_others()
    }

    /// PCI functions that it needs.
    fn devices(&self) -> usize {
        let single =
            [self.rng, self.console.is_some(), self.vsock.is_some(), self.balloon.is_some()];
        let single = single.into_iter().filter(|there| *there).count();
        self.disks.len() + self.nets.len() + self.shares.len() + single
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
            queues(&field("queues"), disk.queues)?;
            rate(&field("rate"), disk.rate)?;
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
            let held = net.addresses.is_none() || net.mac.is_some();
            check(&field("addresses"), held, "need a `mac`")?;
            queues(&field("queues"), net.queues)?;
            rate(&field("receive_rate"), net.receive_rate)?;
            rate(&field("transmit_rate"), net.transmit_rate)?;
        }
        Ok(())
    }

    fn validate_others(&self) -> Result<(), SpecError> {
        for (name, console) in [("serial", &self.serial), ("console", &self.console)] {
            let Some(console) = console else { continue };
            let sources =
                [("ring", &console.ring), ("socket", &console.socket), ("file", &console.file)];
            for (field, source) in sources {
                let field = format!("{name}.{field}");
                source.as_ref().map_or(Ok(()), |source| file(&field, source))?;
            }
            let kept = console.ring.is_none() || console.file.is_none();
            check(&format!("{name}.file"), kept, "can't stand beside `ring`")?;
            let free = console.ring.is_none() && console.file.is_none() && console.socket.is_none();
            let alone = !console.terminal || free;
            check(&format!("{name}.terminal"), alone, "can't stand beside another place")?;
            rate(&format!("{name}.rate"), console.rate)?;
        }
        let terminal =
            |console: &Option<crate::Console>| console.as_ref().is_some_and(|c| c.terminal);
        let one = !(terminal(&self.serial) && terminal(&self.console));
        check("console.terminal", one, "there is one terminal, and `serial` has it")?;
        if let Some(vsock) = &self.vsock {
            check("vsock.cid", Limits::CIDS.contains(&vsock.cid), "must be 3 to 4294967294")?;
            file("vsock.socket", &vsock.socket)?;
        }
        if let Some(balloon) = self.balloon {
            check("balloon.size", balloon.size < self.memory, "must be below `memory`")?;
        }
        let mut tags = BTreeSet::new();
        for (index, share) in self.shares.iter().enumerate() {
            let field = |name: &str| format!("shares[{index}].{name}");
            let right = (1..=Limits::TAG).contains(&share.tag.len()) && !share.tag.contains('\0');
            check(&field("tag"), right, "must be 1 to 36 bytes without a zero")?;
            check(&field("tag"), tags.insert(&share.tag), "must be unique")?;
            file(&field("source"), &share.source)?;
            queues(&field("queues"), share.queues)?;
        }
        Ok(())
    }
}

fn queues(field: &str, count: u16) -> Result<(), SpecError> {
    check(field, (1..=Limits::QUEUES).contains(&count), "must be 1 to 16")
}

fn rate(field: &str, rate: Option<Rate>) -> Result<(), SpecError> {
    let Some(Rate { bytes, operations }) = rate else { return Ok(()) };
    for (name, bucket) in [("bytes", bytes), ("operations", operations)] {
        let right = bucket.is_none_or(|bucket| bucket.per_second > 0 && bucket.burst > 0);
        check(&format!("{field}.{name}"), right, "per_second and burst must be at least 1")?;
    }
    Ok(())
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
    use crate::{Balloon, Bucket, Bytes, Console, Disk, IoEngine, Mac, Net, Share, Vsock};

    fn spec() -> Spec {
        let disk = Disk {
            id: "data".into(),
            source: Source::Fd("disk-data".into()),
            readonly: false,
            serial: None,
            queues: 1,
            rate: None,
        };
        let net = Net {
            id: "nat".into(),
            source: Source::Tap("tap0".into()),
            mac: Some(Mac([0x52, 0x54, 0, 1, 2, 3])),
            queues: 1,
            addresses: None,
            receive_rate: None,
            transmit_rate: None,
        };
        let fd = |name: &str| Source::Fd(name.into());
        let share = |tag: &str| Share { tag: tag.into(), source: fd("share"), queues: 1 };
        Spec {
            cpus: 1,
            memory: Bytes(256 << 20),
            cmdline: "console=ttyS0".into(),
            kernel: Source::Path("/vmlinuz".into()),
            initramfs: None,
            disks: vec![disk.clone(), Disk { id: "b".into(), ..disk }],
            nets: vec![net],
            rng: true,
            serial: Some(Console { ring: Some(fd("ring")), ..Console::default() }),
            console: Some(Console::default()),
            vsock: Some(Vsock { cid: 3, socket: fd("vsock") }),
            balloon: Some(Balloon::default()),
            shares: vec![share("home"), share("data")],
            io: IoEngine::Auto,
            twin_rates: None,
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
            ("serial.ring", |s| {
                s.serial =
                    Some(Console { ring: Some(Source::Tap("t".into())), ..Console::default() });
            }),
            ("serial.terminal", |s| s.serial.as_mut().unwrap().terminal = true),
            ("serial.file", |s| s.serial.as_mut().unwrap().file = Some(Source::Path("/f".into()))),
            ("console.terminal", |s| {
                let terminal = Some(Console { terminal: true, ..Console::default() });
                (s.serial, s.console) = (terminal.clone(), terminal);
            }),
            ("disks[0].queues", |s| s.disks[0].queues = 0),
            ("disks[0].rate.bytes", |s| {
                let bytes = Some(Bucket { per_second: 0, burst: 1 });
                s.disks[0].rate = Some(Rate { bytes, operations: None });
            }),
            ("nets[0].queues", |s| s.nets[0].queues = 17),
            ("nets[0].addresses", |s| {
                (s.nets[0].mac, s.nets[0].addresses) = (None, Some(Vec::new()));
            }),
            ("vsock.cid", |s| s.vsock.as_mut().unwrap().cid = 2),
            ("balloon.size", |s| s.balloon.as_mut().unwrap().size = s.memory),
            ("shares[1].tag", |s| s.shares[1].tag = "home".into()),
            ("shares[0].tag", |s| s.shares[0].tag = String::new()),
            ("shares[0].queues", |s| s.shares[0].queues = 0),
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

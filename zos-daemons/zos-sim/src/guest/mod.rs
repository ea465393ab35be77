//! A simulated VM: what PID 1 starts from the template `vm` in place of `zos-vmm`.
//!
//! ```text
//!  StartTransient ── spec, disk-0, net-0, ring … ──▶ Vmm ── Guest (decides) ──▶ console ring
//!                                                        │ ▲                      disk: boot counter
//!                                                 Exit ◀─┘ └── button, signals
//! ```
//! It gets the same descriptors as the real one and opens nothing itself.

mod core;
mod ring;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use zos_api::local::init::Exit;
use zos_vmm_spec::{Source, Spec};

pub(crate) use self::core::Event;
use self::core::{Guest, Output, Surroundings};
use self::ring::Ring;
pub(crate) use self::server::Server;
use crate::fault::GuestFault;

/// No spec is longer.
const MAX_SPEC: usize = 64 * 1024;
/// Where `builtin:hello` keeps its boot counter, and how it begins.
const COUNTER_AT: u64 = 4096;
const MAGIC: &[u8; 8] = b"ZOSHELLO";

/// A VM that was handed all it needs.
#[derive(Debug)]
pub(crate) struct Vmm {
    guest: Guest,
    console: Ring,
    /// Held as long as the VM lives, as the real one does.
    _fds: Vec<OwnedFd>,
}

impl Vmm {
    /// Takes up what PID 1 passed. `address` knows the address of a hardware address.
    pub(crate) fn new(
        names: &[String],
        fds: Vec<OwnedFd>,
        fault: Option<GuestFault>,
        address: impl Fn(&str) -> Option<String>,
    ) -> io::Result<Self> {
        let passed = |name: &str| -> io::Result<File> {
            let at = names.iter().position(|known| known == name);
            let missing = || io::Error::other(format!("no descriptor `{name}` was passed"));
            Ok(File::from(at.and_then(|at| fds.get(at)).ok_or_else(missing)?.try_clone()?))
        };
        let source = |source: &Source| match source {
            Source::Fd(name) => passed(name),
            other => Err(io::Error::other(format!("{other:?} is not for a jail"))),
        };
        let spec = read_spec(&passed("spec")?)?;
        let ring = spec.serial.as_ref().and_then(|serial| serial.ring.as_ref());
        let ring = ring.ok_or_else(|| io::Error::other("the serial port has no ring"))?;
        let console = Ring::new(source(ring)?)?;
        let mut sees = Surroundings {
            cpus: spec.cpus,
            memory: spec.memory.0,
            disks: Vec::new(),
            boots: None,
            addresses: Vec::new(),
        };
        for disk in &spec.disks {
            let file = source(&disk.source)?;
            if sees.disks.is_empty() {
                sees.boots = count_boot(&file)?;
            }
            sees.disks.push(file.metadata()?.len());
        }
        for net in &spec.nets {
            source(&net.source)?;
            let mac = net.mac.as_ref().map(ToString::to_string).unwrap_or_default();
            sees.addresses.extend(address(&mac));
        }
        Ok(Self { guest: Guest::new(sees, fault), console, _fds: fds })
    }

    /// Lives until its guest ends.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Exit {
        let start = Instant::now();
        let elapsed = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        loop {
            let alarm = self.guest.alarm().unwrap_or_default();
            let event = tokio::select! {
                event = events.recv() => event.unwrap_or(Event::Kill(9)),
                () = tokio::time::sleep_until(start + Duration::from_millis(alarm)) => Event::Tick,
            };
            for output in self.guest.handle(elapsed(), event) {
                match output {
                    Output::Print(text) => {
                        if let Err(error) = self.console.append(text.as_bytes()) {
                            tracing::warn!("write a console: {error}");
                        }
                    }
                    Output::End(exit) => return exit,
                }
            }
        }
    }
}

fn read_spec(file: &File) -> io::Result<Spec> {
    let mut text = vec![0; MAX_SPEC];
    let mut length = 0;
    loop {
        match file.read_at(&mut text[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    let spec: Spec = serde_json::from_slice(&text[..length])?;
    spec.validate().map_err(io::Error::other)?;
    Ok(spec)
}

/// Counts this start on the disk, as `builtin:hello` does; none when somebody's data stands there.
fn count_boot(disk: &File) -> io::Result<Option<u64>> {
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, COUNTER_AT)?;
    let (head, rest) = sector.split_at_mut(16);
    let (magic, count) = head.split_at_mut(8);
    let before = match (&magic[..], rest.iter().all(|byte| *byte == 0)) {
        (known, true) if known == MAGIC => {
            u64::from_le_bytes((&count[..]).try_into().unwrap_or_default())
        }
        (empty, true) if empty.iter().chain(&count[..]).all(|byte| *byte == 0) => 0,
        _ => return Ok(None),
    };
    let boots = before.saturating_add(1);
    magic.copy_from_slice(MAGIC);
    count.copy_from_slice(&boots.to_le_bytes());
    disk.write_all_at(&sector, COUNTER_AT)?;
    Ok(Some(boots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_are_counted_and_data_is_spared() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(8192).unwrap();
        assert_eq!(count_boot(&disk).unwrap(), Some(1));
        assert_eq!(count_boot(&disk).unwrap(), Some(2));
        disk.write_all_at(b"data", COUNTER_AT + 100).unwrap();
        assert_eq!(count_boot(&disk).unwrap(), None);
        disk.set_len(100).unwrap();
        assert!(count_boot(&disk).is_err());
    }

    #[test]
    fn without_its_descriptors_no_vm_starts() {
        let names = ["spec".to_owned()];
        let error = Vmm::new(&names, Vec::new(), None, |_| None).unwrap_err();
        assert_eq!(error.to_string(), "no descriptor `spec` was passed");
    }
}

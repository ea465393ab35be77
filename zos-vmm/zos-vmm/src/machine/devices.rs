//! From a spec to the devices on the bus, in the order in which the guest finds them.

use super::BuildError;
use super::bus::{Builder, Built};
use crate::jail::{Kind, Seccomp};
use crate::memory::GuestMemory;
use crate::rate::Limiter;
use crate::resources::DeviceEnds;
use crate::virtio::balloon::{Balloon, Options};
use crate::virtio::blk::{self, Blk};
use crate::virtio::console::VirtioConsole;
use crate::virtio::{fs::Fs, net::Net, rng::Rng, vsock::Vsock};
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;
use zos_vmm_spec::Spec;
use zos_vmm_spec::rates::Flow;

/// Makes every device of a valid spec.
pub(super) fn build(
    spec: &Spec,
    ends: DeviceEnds,
    vm: &Arc<VmFd>,
    memory: &GuestMemory,
    seccomp: Seccomp,
) -> Result<Built, BuildError> {
    let DeviceEnds { disks, taps, twin, console, vsock, shares } = ends;
    let calls = vsock.as_ref().is_some_and(|vsock| vsock.calls.is_some());
    let shared = if calls { Kind::Calling } else { Kind::Shared };
    let mut builder = Builder::new(vm, memory, seccomp, shared)?;
    for (disk, file) in spec.disks.iter().zip(disks) {
        let options = blk::Options {
            readonly: disk.readonly,
            serial: disk.serial_bytes(),
            queues: disk.queues,
            engine: spec.io,
            limiter: Limiter::of(disk.rate, twin.as_ref(), Flow::Disk),
        };
        let blk = Blk::new(file, &options)
            .map_err(|source| BuildError::Disk { id: disk.id.clone(), source })?;
        if let Some(why) = blk.fallback() {
            eprintln!("zos-vmm: disk {}: no io_uring ({why}): one request after another", disk.id);
        }
        let (kind, profile) = (blk.kind(), blk.profile());
        builder.large(&disk.id, kind, profile, blk.into_parts())?;
    }
    for (net, taps) in spec.nets.iter().zip(taps) {
        let receive = Limiter::of(net.receive_rate, twin.as_ref(), Flow::Receive);
        let transmit = Limiter::of(net.transmit_rate, twin.as_ref(), Flow::Transmit);
        let device = Net::new(taps, net, receive, transmit);
        let profile = device.profile();
        builder.large(&net.id, Kind::Net, profile, device.into_parts())?;
    }
    if spec.rng {
        let rng = Rng::default();
        builder.small("rng", rng.profile(), Box::new(rng))?;
    }
    if let Some(balloon) = spec.balloon {
        let options = Options {
            target: balloon.size.0,
            deflate_on_oom: balloon.deflate_on_oom,
            reporting: balloon.free_page_reporting,
        };
        let balloon = Balloon::new(options, spec.memory.0).map_err(failed("make the balloon"))?;
        builder.balloon(balloon.handle());
        builder.small("balloon", balloon.profile(), Box::new(balloon))?;
    }
    if let Some(ends) = console {
        let console = VirtioConsole::new(ends);
        builder.small("console", console.profile(), Box::new(console))?;
    }
    if let Some((spec, ends)) = spec.vsock.as_ref().zip(vsock) {
        let vsock = Vsock::new(spec.cid, ends).map_err(failed("make the vsock device"))?;
        builder.small("vsock", vsock.profile(), Box::new(vsock))?;
    }
    // A thread each: a back-end that is slow to answer holds nothing else up.
    for (index, (share, socket)) in spec.shares.iter().zip(shares).enumerate() {
        let fs = Fs::new(&share.tag, share.queues, socket)?;
        let queues = fs.profile().queues.len();
        let name = format!("share{index}");
        builder.large(&name, Kind::Fs, fs.profile(), vec![(queues, Box::new(fs))])?;
    }
    Ok(builder.finish())
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Io { what, source }
}

//! A vCPU's thread: into the guest, out again, who answers?
//!
//! ```text
//!  KVM_RUN ─▶ port       ─▶ Platform
//!          ─▶ MMIO       ─▶ PciBus (ECAM, BARs)
//!          ─▶ shutdown   ─▶ Lifecycle: reboot (a triple fault)
//!          ─▶ error      ─▶ Lifecycle: failed, with words
//! ```

use crate::arch::{Platform, layout};
use crate::lifecycle::{Ending, Lifecycle};
use crate::pci::PciBus;
use crate::stats::{Exit, Stats};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;

/// What a vCPU's exits are answered by.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Ports.
    pub platform: Arc<Platform>,
    /// ECAM and BARs.
    pub pci: Arc<PciBus>,
    /// Who hears of the end.
    pub lifecycle: Arc<Lifecycle>,
    /// Counters.
    pub stats: Arc<Stats>,
}

/// Runs a vCPU until the VM ends.
pub fn run(index: u16, mut vcpu: VcpuFd, devices: &Devices) {
    devices.stats.first_run();
    while devices.lifecycle.ending().is_none() {
        let exit = match vcpu.run() {
            Ok(exit) => handle(exit, devices),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Other),
            Err(error) => Err(Ending::Failed(format!(
                "vCPU {index}: KVM_RUN failed: {error}{}",
                advice(error.errno())
            ))),
        };
        match exit {
            Ok(exit) => devices.stats.count(exit),
            Err(ending) => devices.lifecycle.end(ending),
        }
    }
}

fn handle(exit: VcpuExit<'_>, devices: &Devices) -> Result<Exit, Ending> {
    Ok(match exit {
        VcpuExit::IoIn(port, data) => devices.platform.read(port, data),
        VcpuExit::IoOut(port, data) => devices.platform.write(port, data),
        VcpuExit::MmioRead(address, data) => read(address, data, &devices.pci),
        VcpuExit::MmioWrite(address, data) => write(address, data, &devices.pci),
        VcpuExit::Shutdown => return Err(Ending::Reboot),
        VcpuExit::InternalError => {
            return Err(Ending::Failed(format!("KVM internal error{}", advice(libc::EIO))));
        }
        VcpuExit::FailEntry(reason, cpu) => {
            return Err(Ending::Failed(format!(
                "the processor refused to enter the guest (reason {reason:#x}, host CPU {cpu}){}",
                advice(libc::EIO)
            )));
        }
        _ => Exit::Other,
    })
}

fn advice(errno: i32) -> &'static str {
    match errno {
        libc::EIO | libc::EFAULT | libc::ENOSYS => {
            ": this machine's KVM can't run guests; if it is a VM itself, use a host with full \
             nested virtualization"
        }
        _ => "",
    }
}

fn read(address: u64, data: &mut [u8], pci: &PciBus) -> Exit {
    if let Some(offset) = ecam(address) {
        pci.config_read(offset, data);
        return Exit::PciConfig;
    }
    match u32::try_from(address) {
        Ok(address) => pci.bar_read(address, data),
        Err(_) => data.fill(0xff),
    }
    Exit::Registers
}

fn write(address: u64, data: &[u8], pci: &PciBus) -> Exit {
    if let Some(offset) = ecam(address) {
        pci.config_write(offset, data);
        return Exit::PciConfig;
    }
    if let Ok(address) = u32::try_from(address) {
        pci.bar_write(address, data);
    }
    Exit::Registers
}

fn ecam(address: u64) -> Option<u64> {
    address.checked_sub(layout::ECAM).filter(|offset| *offset < layout::ECAM_BYTES)
}

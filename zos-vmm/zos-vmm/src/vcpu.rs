//! A vCPU of KVM: into the guest, out again, who answers?
//!
//! ```text
//!  KVM_RUN ─▶ MMIO       ─▶ PciBus (ECAM, BARs), Platform
//!          ─▶ shutdown   ─▶ the end: reboot (a triple fault)
//!          ─▶ arch's own ─▶ Platform (ports), the end (PSCI)
//!          ─▶ error      ─▶ the end: failed, with words
//! ```
#![allow(unsafe_code)]

use crate::arch::vcpu::{advice, answer, tell_of_pause};
use crate::arch::{Platform, layout};
use crate::lifecycle::{Ending, Lifecycle};
use crate::machine::{Bell, Cpu};
use crate::memory::GuestMemory;
use crate::pci::PciBus;
use crate::stats::{Exit, Stats};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a vCPU's exits are answered by.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Serial port, power.
    pub platform: Arc<Platform>,
    /// ECAM and BARs.
    pub pci: Arc<PciBus>,
    /// Who hears of the end.
    pub lifecycle: Arc<Lifecycle>,
    /// Counters.
    pub stats: Arc<Stats>,
}

/// A vCPU with what answers it.
#[derive(Debug)]
pub struct KvmCpu {
    index: u16,
    bell: Arc<ImmediateExit>,
    // Before the memory: KVM maps it for as long as the vCPU is there.
    vcpu: VcpuFd,
    devices: Devices,
    _memory: GuestMemory,
}

/// The byte of the page shared with KVM that sends the vCPU back at once; none when it is gone.
#[derive(Debug)]
pub(crate) struct ImmediateExit(Mutex<Option<Address>>);

#[derive(Debug)]
struct Address(*const AtomicU8);

// SAFETY: the byte lies in a mapping of the process, not of a thread, and is accessed atomically.
unsafe impl Send for Address {}

impl KvmCpu {
    /// Puts it together.
    #[must_use]
    pub fn new(index: u16, mut vcpu: VcpuFd, devices: Devices, memory: GuestMemory) -> Self {
        let bell = Arc::new(ImmediateExit::of(&mut vcpu));
        Self { index, bell, vcpu, devices, _memory: memory }
    }
}

impl Cpu for KvmCpu {
    fn run(&mut self) -> Result<Exit, Ending> {
        let Self { index, vcpu, devices, .. } = self;
        devices.stats.first_run();
        match vcpu.run() {
            Ok(exit) => handle(exit, devices),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Other),
            Err(error) => Err(Ending::Failed(format!(
                "vCPU {index}: KVM_RUN failed: {error}{}",
                advice(error.errno())
            ))),
        }
    }

    /// Tells the guest that it stood still, so that its watchdog bears with it.
    fn goes_on(&mut self) {
        tell_of_pause(&self.vcpu);
    }

    fn bell(&mut self) -> Arc<dyn Bell> {
        self.bell.clone()
    }
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        self.bell.forget();
    }
}

impl ImmediateExit {
    /// This vCPU's; it has to be forgotten before the vCPU goes.
    pub(crate) fn of(vcpu: &mut VcpuFd) -> Self {
        let byte = &raw mut vcpu.get_kvm_run().immediate_exit;
        Self(Mutex::new(Some(Address(byte.cast()))))
    }

    /// The page goes with the vCPU: from here on the bell reaches nothing.
    pub(crate) fn forget(&self) {
        self.lock().take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell for ImmediateExit {
    fn set(&self, on: bool) {
        if let Some(Address(byte)) = &*self.lock() {
            // SAFETY: the vCPU's page is mapped: its owner's `drop` takes the address away first, under this
            // lock. KVM only reads the byte, and we write it nowhere else.
            unsafe { &**byte }.store(on.into(), Ordering::SeqCst);
        }
    }
}

fn handle(exit: VcpuExit<'_>, devices: &Devices) -> Result<Exit, Ending> {
    Ok(match exit {
        VcpuExit::MmioRead(address, data) => read(address, data, devices),
        VcpuExit::MmioWrite(address, data) => write(address, data, devices),
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
        other => return answer(other, &devices.platform),
    })
}

fn read(address: u64, data: &mut [u8], devices: &Devices) -> Exit {
    if let Some(offset) = ecam(address) {
        devices.pci.config_read(offset, data);
        return Exit::PciConfig;
    }
    if let Some(exit) = devices.platform.read_memory(address, data) {
        return exit;
    }
    match u32::try_from(address) {
        Ok(address) => devices.pci.bar_read(address, data),
        Err(_) => data.fill(0xff),
    }
    Exit::Registers
}

fn write(address: u64, data: &[u8], devices: &Devices) -> Exit {
    if let Some(offset) = ecam(address) {
        devices.pci.config_write(offset, data);
        return Exit::PciConfig;
    }
    if let Some(exit) = devices.platform.write_memory(address, data) {
        return exit;
    }
    if let Ok(address) = u32::try_from(address) {
        devices.pci.bar_write(address, data);
    }
    Exit::Registers
}

fn ecam(address: u64) -> Option<u64> {
    address.checked_sub(layout::ECAM).filter(|offset| *offset < layout::ECAM_BYTES)
}

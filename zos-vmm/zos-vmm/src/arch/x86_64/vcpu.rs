//! A virtual CPU before its first instruction, and the exits that only this architecture has.
//!
//! CPUID comes first: KVM lets MSRs exist by it (and since Linux 6.13 refuses those that it hides).

mod cpuid;

use super::boot::{Entry, Protocol};
use super::{Platform, layout, tables};
use crate::lifecycle::Ending;
use crate::stats::Exit;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_fpu, kvm_msr_entry, kvm_regs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// MTRRs on, default type write-back: RAM is cached, devices say otherwise in page tables.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;
const RFLAGS_RESERVED: u64 = 2;
const FPU_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;
const LAPIC_LVT0: usize = 0x350;
const LAPIC_LVT1: usize = 0x360;
const DELIVER_EXTINT: u32 = 7 << 8;
const DELIVER_NMI: u32 = 4 << 8;
const LVT_MODE: u32 = 7 << 8;

/// What every vCPU of a VM is made from.
#[derive(Debug)]
pub struct Template {
    cpuid: CpuId,
    cpus: u16,
}

/// Why a vCPU can't be made ready.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refuses.
    #[error("{what} of vCPU {index}")]
    Kvm {
        /// What was being done.
        what: &'static str,
        /// Which one.
        index: u16,
        /// Cause.
        source: kvm_ioctls::Error,
    },
    /// Page tables.
    #[error("lay out the registers of vCPU {0}")]
    Layout(u16),
}

impl Template {
    /// Asks KVM what it can offer.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn new(kvm: &Kvm, _: &VmFd, cpus: u16) -> Result<Self, VcpuError> {
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|source| VcpuError::Kvm { what: "read the CPU features", index: 0, source })?;
        Ok(Self { cpuid, cpus })
    }

    /// Makes a vCPU ready. The first one starts at `entry`; the others wait for it to wake them.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn set_up(&self, vcpu: &VcpuFd, index: u16, entry: Entry) -> Result<(), VcpuError> {
        let failed = |what| move |source| VcpuError::Kvm { what, index, source };
        // Zero asks for the host's rate as it is known now. A KVM that is built into the kernel gives
        // new vCPUs the rate of before the kernel refined it; when the two differ by more than 250
        // ppm and the processor can't scale, that KVM leaves the guest's clock standing still.
        vcpu.set_tsc_khz(0).map_err(failed("set the clock rate"))?;
        let mut cpuid = self.cpuid.clone();
        cpuid::adjust(&mut cpuid, index, self.cpus);
        vcpu.set_cpuid2(&cpuid).map_err(failed("set the CPU features"))?;
        let entry_of = |index, data| kvm_msr_entry { index, data, ..Default::default() };
        let msrs = Msrs::from_entries(&[
            entry_of(MSR_MISC_ENABLE, FAST_STRING),
            entry_of(MSR_MTRR_DEFAULT, MTRR_ON_WRITE_BACK),
        ])
        .map_err(|_| VcpuError::Layout(index))?;
        // How many were taken differs with the processor; neither is vital.
        vcpu.set_msrs(&msrs).map_err(failed("set the model-specific registers"))?;
        self.set_lapic(vcpu).map_err(failed("set the local APIC"))?;
        if index == 0 {
            set_start(vcpu, entry).map_err(failed("set the registers"))?;
        }
        Ok(())
    }

    /// LINT0 takes an 8259's interrupts, LINT1 is the NMI, as firmware leaves them.
    fn set_lapic(&self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        let mut lapic = vcpu.get_lapic()?;
        for (at, mode) in [(LAPIC_LVT0, DELIVER_EXTINT), (LAPIC_LVT1, DELIVER_NMI)] {
            let register = &mut lapic.regs[at..at + 4];
            let bytes = [0, 1, 2, 3].map(|i| register[i].cast_unsigned());
            let value = u32::from_le_bytes(bytes) & !LVT_MODE | mode;
            for (target, byte) in register.iter_mut().zip(value.to_le_bytes()) {
                *target = byte.cast_signed();
            }
        }
        vcpu.set_lapic(&lapic)
    }
}

fn set_start(vcpu: &VcpuFd, entry: Entry) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    tables::set_mode(&mut sregs, entry.protocol);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_fpu(&kvm_fpu { fcw: FPU_CONTROL, mxcsr: MXCSR, ..Default::default() })?;
    let (rsi, rbx) = match entry.protocol {
        Protocol::Linux64 => (layout::BOOT_PARAMS, 0),
        Protocol::Pvh => (0, layout::PVH_START_INFO),
    };
    let rip = entry.instruction;
    vcpu.set_regs(&kvm_regs { rip, rsi, rbx, rflags: RFLAGS_RESERVED, ..Default::default() })
}

/// Answers an exit that only this architecture has: ports.
///
/// # Errors
/// None: what ends a VM here is said by [`Platform`].
#[allow(clippy::needless_pass_by_value)] // it holds the borrow of the vCPU
pub fn answer(exit: VcpuExit<'_>, platform: &Platform) -> Result<Exit, Ending> {
    Ok(match exit {
        VcpuExit::IoIn(port, data) => platform.read(port, data),
        VcpuExit::IoOut(port, data) => platform.write(port, data),
        _ => Exit::Other,
    })
}

/// Words for an error of KVM_RUN.
#[must_use]
pub fn advice(errno: i32) -> &'static str {
    match errno {
        libc::EIO | libc::EFAULT | libc::ENOSYS => {
            ": this machine's KVM can't run guests; if it is a VM itself, use a host with full \
             nested virtualization"
        }
        _ => "",
    }
}

/// Tells the guest that it stood still.
pub fn tell_of_pause(vcpu: &VcpuFd) {
    // A guest that doesn't use KVM's clock has nothing to be told.
    let _ = vcpu.kvmclock_ctrl();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::chip;

    const SIGNATURE: u32 = 0x4000_0000;
    const FEATURES: u32 = 0x4000_0001;
    /// Clock sources of KVM, second form, that stay true over a pause.
    const CLOCK: u32 = 1 << 3 | 1 << 24;

    /// What this machine's KVM offers, as the first and the last of 128 vCPUs get it: KVM takes it,
    /// and says of itself what guests look for.
    #[test]
    fn kvm_takes_what_a_vcpu_says_of_itself() {
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("left out: /dev/kvm can't be used here");
        };
        let vm = chip::new_vm(&kvm).unwrap();
        chip::create(&vm).unwrap();
        let template = Template::new(&kvm, &vm, 128).unwrap();
        let entry = Entry { instruction: layout::KERNEL, protocol: Protocol::Pvh };
        for index in [0, 127] {
            let vcpu = vm.create_vcpu(index.into()).unwrap();
            template.set_up(&vcpu, index, entry).unwrap();
            let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
            let find = |function| cpuid.as_slice().iter().find(|e| e.function == function).unwrap();
            let name = find(SIGNATURE);
            let name = [name.ebx, name.ecx, name.edx].map(u32::to_le_bytes).concat();
            assert_eq!(&name[..], b"KVMKVMKVM\0\0\0");
            assert_eq!(find(FEATURES).eax & CLOCK, CLOCK);
            assert_eq!(find(1).ebx >> 24, u32::from(index));
            if index == 0 {
                let registers = vcpu.get_regs().unwrap();
                assert_eq!(
                    (registers.rip, registers.rbx),
                    (layout::KERNEL, layout::PVH_START_INFO)
                );
            }
        }
    }
}

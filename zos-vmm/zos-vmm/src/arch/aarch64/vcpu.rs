//! A virtual CPU before its first instruction, and the exits that only this architecture has.
//!
//! Left out: performance counters, SVE (the state of a VM would depend on the host's vector length),
//! 32-bit guests, nested virtualization.

use super::Platform;
use super::boot::Entry;
use super::layout;
use crate::lifecycle::Ending;
use crate::stats::Exit;
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    KVM_ARM_VCPU_PTRAUTH_GENERIC, KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG,
    KVM_REG_SIZE_U64, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_regs, kvm_vcpu_init,
    user_pt_regs,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use std::mem::offset_of;

/// EL1 with its own stack pointer; debug, SError, IRQ and FIQ masked.
const PSTATE: u64 = 0x3c5;
/// MPIDR_EL1: op0 3, op1 0, CRn 0, CRm 0, op2 5.
const MPIDR: u64 = system_register(3, 0, 0, 0, 5);
/// Affinity fields 3 and 2 to 0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// What every vCPU of a VM is made from.
#[derive(Debug)]
pub struct Template {
    init: kvm_vcpu_init,
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
    /// The device tree wouldn't be true.
    #[error("KVM calls vCPU {index} {found:#x}, not {wanted:#x}")]
    Affinity {
        /// Which one.
        index: u16,
        /// MPIDR's affinity fields.
        found: u64,
        /// Those of the device tree.
        wanted: u64,
    },
}

impl Template {
    /// Asks KVM what it can offer.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn new(_: &Kvm, vm: &VmFd, _: u16) -> Result<Self, VcpuError> {
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init).map_err(|source| VcpuError::Kvm {
            what: "choose the kind",
            index: 0,
            source,
        })?;
        init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        // Signed pointers: both kinds or none.
        if [Cap::ArmPtrAuthAddress, Cap::ArmPtrAuthGeneric]
            .iter()
            .all(|cap| vm.check_extension(*cap))
        {
            init.features[0] |=
                1 << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1 << KVM_ARM_VCPU_PTRAUTH_GENERIC;
        }
        Ok(Self { init })
    }

    /// Makes a vCPU ready. The first one starts at `entry`; the others wait for PSCI to wake them.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn set_up(&self, vcpu: &VcpuFd, index: u16, entry: Entry) -> Result<(), VcpuError> {
        let failed = |what| move |source| VcpuError::Kvm { what, index, source };
        let mut init = self.init;
        if index > 0 {
            init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        vcpu.vcpu_init(&init).map_err(failed("set the features"))?;
        let mut bytes = [0; 8];
        vcpu.get_one_reg(MPIDR, &mut bytes).map_err(failed("read the affinity"))?;
        let (found, wanted) = (u64::from_le_bytes(bytes) & AFFINITY, layout::affinity(index));
        if found != wanted {
            return Err(VcpuError::Affinity { index, found, wanted });
        }
        if index == 0 {
            for (register, value) in [
                (core_register(offset_of!(user_pt_regs, regs)), entry.device_tree),
                (core_register(offset_of!(user_pt_regs, pc)), entry.instruction),
                (core_register(offset_of!(user_pt_regs, pstate)), PSTATE),
            ] {
                vcpu.set_one_reg(register, &value.to_le_bytes())
                    .map_err(failed("set the registers"))?;
            }
        }
        Ok(())
    }
}

/// The name of a general register, by its place in `user_pt_regs`: KVM counts in words.
const fn core_register(offset: usize) -> u64 {
    let offset = offset_of!(kvm_regs, regs) + offset;
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (offset / 4) as u64
}

const fn system_register(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    let number = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | number
}

/// Answers an exit that only this architecture has: PSCI's power-off and reset.
///
/// # Errors
/// The VM ends.
#[allow(clippy::needless_pass_by_value)] // it holds the borrow of the vCPU
pub fn answer(exit: VcpuExit<'_>, _: &Platform) -> Result<Exit, Ending> {
    match exit {
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => Err(Ending::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Err(Ending::Reboot),
        VcpuExit::SystemEvent(kind, _) => {
            Err(Ending::Failed(format!("KVM tells of an unknown event of the system: {kind}")))
        }
        _ => Ok(Exit::Other),
    }
}

/// Words for an error of KVM_RUN.
#[must_use]
pub fn advice(errno: i32) -> &'static str {
    match errno {
        libc::ENOSYS => {
            ": the guest touched a device with an instruction that the processor doesn't describe \
             (a pair of registers, say)"
        }
        libc::EFAULT => ": the guest ran into a device, or its memory can't be had",
        _ => "",
    }
}

/// There is no way to tell a guest that it stood still: its virtual counter went on.
pub fn tell_of_pause(_: &VcpuFd) {}

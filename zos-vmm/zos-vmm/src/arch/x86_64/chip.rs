//! Interrupt controllers and timers, all in KVM.
//!
//! No PIT: a guest with reduced-hardware ACPI reads its clock from kvm-clock and its timer from
//! the local APIC, whose deadline mode KVM emulates on every processor.

use super::layout;
use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::{Cap, Error, Kvm, VmFd};

/// What to do where /dev/kvm is absent.
pub const WAYS_TO_KVM: &str = "switch on virtualization (VT-x or AMD-V) in the machine's firmware; \
    in a VM, nested virtualization; or load the module kvm_intel or kvm_amd";

/// What KVM must be able to do, with its name for people.
pub const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];

/// A message names its APIC by its address alone.
pub const MESSAGE_FLAGS: u32 = 0;

/// Makes a VM.
///
/// # Errors
/// KVM refuses.
pub fn new_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    let vm = kvm.create_vm()?;
    // Counters tell of neighbours. A KVM that can't switch them off has none in CPUID at least.
    let off = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        args: [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0],
        ..Default::default()
    };
    let _ = vm.enable_cap(&off);
    Ok(vm)
}

/// Makes the interrupt controllers; before the first vCPU.
///
/// # Errors
/// KVM refuses.
pub fn create(vm: &VmFd) -> Result<(), Error> {
    vm.set_identity_map_address(layout::IDENTITY_MAP)?;
    let task_state = usize::try_from(layout::TASK_STATE).unwrap_or(0);
    vm.set_tss_address(task_state)?;
    vm.create_irq_chip()
}

/// Once all vCPUs are there nothing is left to make.
///
/// # Errors
/// None.
pub fn complete(_: &VmFd) -> Result<(), Error> {
    Ok(())
}

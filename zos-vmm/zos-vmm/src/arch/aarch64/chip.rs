//! GICv3 with its ITS, and the VM that holds them, all in KVM (Linux,
//! Documentation/virt/kvm/devices/arm-vgic-v3.rst and arm-vgic-its.rst).

use super::layout::{self, line};
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_MSI_VALID_DEVID, KVM_VGIC_ITS_ADDR_TYPE,
    KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS as VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3 as VGIC_V3,
};
use kvm_ioctls::{Cap, DeviceFd, Error, Kvm, VmFd};

/// What to do where /dev/kvm is absent.
pub const WAYS_TO_KVM: &str = "the kernel must start at EL2 (a VM's host must lend it nested \
    virtualization) and have KVM built in";

/// What KVM must be able to do, with its name for people.
pub const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::OneReg, "KVM_CAP_ONE_REG"),
    (Cap::ArmPsci02, "KVM_CAP_ARM_PSCI_0_2"),
];

/// An ITS finds an interrupt by the requester id of the function that sends the message.
pub const MESSAGE_FLAGS: u32 = KVM_MSI_VALID_DEVID;
/// Bits of a guest-physical address that the layout needs.
const ADDRESS_BITS: u32 = 40;

/// Makes a VM with the address space of the layout, or as much of it as the processor has.
///
/// # Errors
/// KVM refuses.
pub fn new_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    match u32::try_from(kvm.check_extension_int(Cap::ArmVmIPASize)) {
        Ok(bits @ 32..) => kvm.create_vm_with_ipa_size(bits.min(ADDRESS_BITS)),
        _ => kvm.create_vm(),
    }
}

/// Before the first vCPU there is nothing to make.
///
/// # Errors
/// None.
pub fn create(_: &VmFd) -> Result<(), Error> {
    Ok(())
}

/// Makes the GIC, once all vCPUs are there and before a line is connected.
///
/// # Errors
/// KVM refuses.
pub fn complete(vm: &VmFd) -> Result<(), Error> {
    // The devices live as long as the VM; their descriptors aren't needed after this.
    let gic = device(vm, VGIC_V3)?;
    let place = KVM_DEV_ARM_VGIC_GRP_ADDR;
    set(&gic, place, KVM_VGIC_V3_ADDR_TYPE_DIST, Some(&layout::GIC_DISTRIBUTOR))?;
    set(&gic, place, KVM_VGIC_V3_ADDR_TYPE_REDIST, Some(&layout::GIC_REDISTRIBUTORS))?;
    set(&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, Some(&line::COUNT))?;
    set::<u64>(&gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)?;
    let its = device(vm, VGIC_ITS)?;
    set(&its, place, KVM_VGIC_ITS_ADDR_TYPE, Some(&layout::GIC_ITS))?;
    set::<u64>(&its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)
}

fn device(vm: &VmFd, kind: kvm_device_type) -> Result<DeviceFd, Error> {
    vm.create_device(&mut kvm_create_device { type_: kind, fd: 0, flags: 0 })
}

/// Sets an attribute, whose value KVM reads during the call.
fn set<T>(device: &DeviceFd, group: u32, attr: u32, value: Option<&T>) -> Result<(), Error> {
    let addr = value.map_or(0, |value| std::ptr::from_ref(value) as u64);
    device.set_device_attr(&kvm_device_attr { flags: 0, group, attr: attr.into(), addr })
}

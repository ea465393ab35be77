//! /dev/kvm: opened or taken over, checked, with words for people when it can't be used.
#![allow(unsafe_code)]

use crate::arch;
use crate::event::Event;
use crate::pci::MsiSink;
use crate::virtio::IoEvents;
use kvm_bindings::kvm_msi;
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VmFd};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

const API_VERSION: i32 = 12;

/// Why this machine can't run a guest, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// No device.
    #[error("/dev/kvm is absent: {}", arch::chip::WAYS_TO_KVM)]
    Absent,
    /// No permission.
    #[error("/dev/kvm may not be used by this user: run as root or as a member of group kvm")]
    Denied,
    /// Something else.
    #[error("open /dev/kvm")]
    Open(#[source] kvm_ioctls::Error),
    /// Not KVM.
    #[error("the descriptor `kvm` is no KVM of version 12 but says {0}: pass /dev/kvm")]
    Version(i32),
    /// Too old or cut down.
    #[error("this KVM lacks {0}: use a kernel of version 5.10 or later with full KVM")]
    Lacks(&'static str),
    /// KVM refuses.
    #[error("{what}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// Cause.
        source: kvm_ioctls::Error,
    },
}

/// Opens /dev/kvm (developers).
///
/// # Errors
/// It is absent or not permitted.
pub fn open() -> Result<Kvm, HypervisorError> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => HypervisorError::Absent,
        libc::EACCES | libc::EPERM => HypervisorError::Denied,
        _ => HypervisorError::Open(error),
    })
}

/// Takes over a passed descriptor.
#[must_use]
pub fn adopt(fd: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is open and ours alone; that it is KVM, `create_vm` checks.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// Makes a VM, once KVM was found able.
///
/// # Errors
/// Not KVM, a missing capability, or a refusal.
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, HypervisorError> {
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(HypervisorError::Version(version));
    }
    for (capability, name) in arch::chip::NEEDED {
        if !kvm.check_extension(*capability) {
            return Err(HypervisorError::Lacks(name));
        }
    }
    let refused = |what| move |source| HypervisorError::Refused { what, source };
    let vm = arch::chip::new_vm(kvm).map_err(refused("make a VM"))?;
    arch::chip::create(&vm).map_err(refused("make the VM's interrupt controllers"))?;
    Ok(vm)
}

/// Makes what needs the vCPUs to be there, before a line is connected.
///
/// # Errors
/// KVM refuses.
pub fn complete_vm(vm: &VmFd) -> Result<(), HypervisorError> {
    let what = "make the VM's interrupt controllers";
    arch::chip::complete(vm).map_err(|source| HypervisorError::Refused { what, source })
}

/// Messages and kicks of one PCI function, by KVM.
#[derive(Debug)]
pub struct Wires {
    /// The VM.
    pub vm: Arc<VmFd>,
    /// Who sends its messages: bus << 8 | device << 3 | function.
    pub requester: u32,
}

impl MsiSink for Wires {
    fn send(&self, address: u64, data: u32) {
        let word = |shift: u32| u32::try_from(address >> shift & 0xffff_ffff).unwrap_or(0);
        let message = kvm_msi {
            address_lo: word(0),
            address_hi: word(32),
            data,
            flags: arch::chip::MESSAGE_FLAGS,
            devid: self.requester,
            ..Default::default()
        };
        // A message to nowhere is lost, as on metal.
        let _ = self.vm.signal_msi(message);
    }
}

impl IoEvents for Wires {
    fn register(&self, address: u64, event: &Event) {
        // Where the guest moved two devices to one address the second is refused, and its kicks
        // come by the slow way, through an exit.
        let _ = self.vm.register_ioevent(
            event.as_eventfd(),
            &IoEventAddress::Mmio(address),
            NoDatamatch,
        );
    }

    fn unregister(&self, address: u64, event: &Event) {
        let _ = self.vm.unregister_ioevent(
            event.as_eventfd(),
            &IoEventAddress::Mmio(address),
            NoDatamatch,
        );
    }
}

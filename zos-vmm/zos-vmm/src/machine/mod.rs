//! A VM, built from a spec and what it names, then set going.
//!
//! ```text
//!  build: KVM ─▶ memory ─▶ kernel ─▶ devices on the bus ─▶ vCPUs, ready     (no guest code yet)
//!  start: a thread for each vCPU, each in its filter
//!
//!  Running:  runs ── pause: vCPUs out of the guest, then devices at rest ──▶ rests
//!                 ◀── resume: devices first, then vCPUs ──────────────────
//!            stop: vCPUs leave, devices come to rest; drop: threads and memory are gone
//! ```

mod bus;
mod cpus;
mod devices;

use crate::arch::{self, Platform, boot, layout, vcpu as arch_vcpu};
use crate::console::PortSeat;
use crate::hypervisor::{self, HypervisorError};
use crate::jail::{Kind, Seccomp};
use crate::keeper::Keeper;
use crate::lifecycle::Lifecycle;
use crate::memory::{self, GuestMemory, MemoryError, PositionedFile};
use crate::resources::Resources;
use crate::stats::Stats;
use crate::vcpu::{Devices, KvmCpu};
use crate::virtio::balloon::BalloonHandle;
use crate::virtio::{self, Counters, Worker};
use bus::Built;
pub(crate) use cpus::signal as vcpu_signal;
pub use cpus::{Bell, Cpu, Cpus, RestError};
use kvm_ioctls::{VcpuFd, VmFd};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use zos_vmm_spec::Spec;

/// A VM that is ready to run.
#[derive(Debug)]
pub struct Machine {
    vcpus: Vec<VcpuFd>,
    parts: Parts,
    memory: GuestMemory,
}

/// A VM that runs.
#[derive(Debug)]
pub struct Running {
    cpus: Cpus,
    parts: Parts,
}

/// What a VM has beside its vCPUs.
#[derive(Debug)]
struct Parts {
    devices: Devices,
    workers: Vec<Worker>,
    counters: BTreeMap<String, Counters>,
    slots: BTreeMap<String, u16>,
    balloon: Option<BalloonHandle>,
    _keeper: Option<Keeper>,
}

/// Why a VM can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// KVM.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Kernel, initramfs.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// CPUs.
    #[error(transparent)]
    Vcpu(#[from] arch_vcpu::VcpuError),
    /// A device.
    #[error(transparent)]
    Device(#[from] virtio::DeviceError),
    /// A disk.
    #[error("disk {id}")]
    Disk {
        /// Its id.
        id: String,
        /// Cause.
        source: virtio::blk::BlkError,
    },
    /// A device's thread.
    #[error(transparent)]
    Worker(#[from] virtio::WorkerError),
    /// A shared folder.
    #[error(transparent)]
    Share(#[from] virtio::fs::FsError),
    /// Files, threads, descriptors.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// KVM refuses a vCPU.
    #[error("make vCPU {index}")]
    Create {
        /// Which one.
        index: u16,
        /// Cause.
        source: kvm_ioctls::Error,
    },
    /// The bus is full.
    #[error("more devices than a PCI bus has slots")]
    BusFull,
}

impl Machine {
    /// Builds a VM from a valid spec.
    ///
    /// # Errors
    /// Whatever can't be had.
    pub fn build(
        spec: &Spec,
        resources: Resources,
        lifecycle: Arc<Lifecycle>,
        stats: Arc<Stats>,
        seccomp: Seccomp,
    ) -> Result<Self, BuildError> {
        let failed = |what| move |source| BuildError::Io { what, source };
        let Resources { kvm, kernel, initramfs, serial, devices: ends, keeper } = resources;
        let vm = Arc::new(hypervisor::create_vm(&kvm)?);
        let memory = memory::create(&layout::ram(spec.memory.0))?;
        memory::register(&vm, &memory)?;

        let positioned = |file, what| PositionedFile::new(file).map_err(failed(what));
        let kernel = positioned(kernel, "read the kernel's size")?;
        let initramfs =
            initramfs.map(|file| positioned(file, "read the initramfs' size")).transpose()?;
        let entry = boot::load(&memory, kernel, initramfs, &spec.cmdline, spec.cpus)?;

        let Built { pci, mut workers, mut shared, counters, slots, balloon } =
            devices::build(spec, ends, &vm, &memory, seccomp)?;
        let vcpus = create_vcpus(&kvm, &vm, spec.cpus, entry)?;
        hypervisor::complete_vm(&vm)?;
        let platform = Platform::new(&vm, serial.console, lifecycle.clone(), stats.clone());
        let platform = Arc::new(platform.map_err(failed("connect the platform's devices"))?);
        if let Some(session) = serial.session {
            shared.attend(Box::new(PortSeat::new(session, platform.clone())));
        }
        workers.push(shared);
        let devices = Devices { platform, pci: Arc::new(pci), lifecycle, stats };
        let parts = Parts { devices, workers, counters, slots, balloon, _keeper: keeper };
        Ok(Self { vcpus, parts, memory })
    }

    /// Sets the vCPUs going.
    ///
    /// # Errors
    /// No thread left.
    pub fn start(self, seccomp: Seccomp) -> Result<Running, BuildError> {
        let Self { vcpus, parts, memory } = self;
        let devices = &parts.devices;
        let cpus = (0..).zip(vcpus).map(|(index, vcpu)| -> Box<dyn Cpu> {
            Box::new(KvmCpu::new(index, vcpu, devices.clone(), memory.clone()))
        });
        let enter = move || seccomp.enter(Kind::Vcpu);
        let cpus = Cpus::start(cpus.collect(), &devices.lifecycle, &devices.stats, enter)
            .map_err(|source| BuildError::Io { what: "start a vCPU's thread", source })?;
        Ok(Running { cpus, parts })
    }
}

impl Running {
    /// Presses the guest's power button.
    pub fn press_power_button(&self) {
        self.parts.devices.platform.press_power_button();
    }

    /// What went through each device, by its id.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<String, Counters> {
        &self.parts.counters
    }

    /// The device's number on PCI's bus 0, by its id.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<String, u16> {
        &self.parts.slots
    }

    /// The balloon, if there is one: its size may change, and it may be asked for numbers.
    #[must_use]
    pub fn balloon(&self) -> Option<&BalloonHandle> {
        self.parts.balloon.as_ref()
    }

    /// Brings the devices to rest until they are to go on: no thread of theirs touches the guest's
    /// memory meanwhile.
    pub fn pause_devices(&self) {
        self.parts.workers.iter().for_each(Worker::pause);
    }

    /// The devices go on.
    pub fn resume_devices(&self) {
        self.parts.workers.iter().for_each(Worker::resume);
    }

    /// Brings all of it to rest, where it is: no guest code runs, and nothing touches its memory.
    ///
    /// # Errors
    /// It goes on: a vCPU is held up, or the VM ends.
    pub fn pause(&self) -> Result<(), RestError> {
        self.cpus.pause()?;
        self.pause_devices();
        Ok(())
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.resume_devices();
        self.cpus.resume();
    }

    /// Ends it: the vCPUs leave for good, and the devices come to rest, so that no request is cut in
    /// half.
    ///
    /// # Errors
    /// A vCPU is held up in a device, which is at rest all the same.
    pub fn stop(&self) -> Result<(), RestError> {
        let left = self.cpus.stop();
        self.parts.devices.pci.quiesce();
        left
    }

    /// How it ended, once it did, and what wakes whoever waits for that.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.parts.devices.lifecycle
    }
}

fn create_vcpus(
    kvm: &kvm_ioctls::Kvm,
    vm: &VmFd,
    count: u16,
    entry: boot::Entry,
) -> Result<Vec<VcpuFd>, BuildError> {
    let template = arch::vcpu::Template::new(kvm, vm, count)?;
    (0..count)
        .map(|index| {
            let vcpu = vm
                .create_vcpu(index.into())
                .map_err(|source| BuildError::Create { index, source })?;
            template.set_up(&vcpu, index, entry)?;
            Ok(vcpu)
        })
        .collect()
}

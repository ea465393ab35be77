//! The bus while it is being filled: each device gets its threads, its slot and its BAR.

use super::BuildError;
use crate::arch::layout;
use crate::hypervisor::Wires;
use crate::jail::{Kind, Seccomp};
use crate::memory::GuestMemory;
use crate::pci::PciBus;
use crate::virtio::balloon::BalloonHandle;
use crate::virtio::{self, Backend, Counters, Part, Profile, Surroundings, VirtioPci, Worker};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All devices, each in its slot.
pub(super) struct Built {
    pub(super) pci: PciBus,
    pub(super) workers: Vec<Worker>,
    /// The thread of all small devices.
    pub(super) shared: Worker,
    pub(super) counters: BTreeMap<String, Counters>,
    /// Device numbers on the bus, by the same ids.
    pub(super) slots: BTreeMap<String, u16>,
    pub(super) balloon: Option<BalloonHandle>,
}

/// The devices that are there so far.
pub(super) struct Builder<'a> {
    built: Built,
    memory: &'a GuestMemory,
    vm: Arc<VmFd>,
    seccomp: Seccomp,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        vm: &Arc<VmFd>,
        memory: &'a GuestMemory,
        seccomp: Seccomp,
        shared: Kind,
    ) -> Result<Self, BuildError> {
        let pci = PciBus::new(virtio::BAR_BYTES);
        let shared = Worker::spawn("devices", move || seccomp.enter(shared))?;
        let (workers, counters, slots) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let built = Built { pci, workers, shared, counters, slots, balloon: None };
        Ok(Self { built, memory, vm: vm.clone(), seccomp })
    }

    /// A device that shares the thread of the small ones.
    pub(super) fn small(
        &mut self,
        name: &str,
        profile: Profile,
        backend: Box<dyn Backend>,
    ) -> Result<(), BuildError> {
        let around = self.around();
        let queues = profile.queues.len();
        self.note(name, &profile);
        let part = Part { queues, backend, worker: &mut self.built.shared };
        let function = VirtioPci::new(name, profile, vec![part], around)?;
        self.add(function)
    }

    /// A device whose parts, each with so many queues, have a thread each of a kind.
    pub(super) fn large(
        &mut self,
        name: &str,
        kind: Kind,
        profile: Profile,
        parts: Vec<(usize, Box<dyn Backend>)>,
    ) -> Result<(), BuildError> {
        let around = self.around();
        let seccomp = self.seccomp;
        self.note(name, &profile);
        let spawn = |index| Worker::spawn(&format!("{name}-{index}"), move || seccomp.enter(kind));
        let mut workers = (0..parts.len()).map(spawn).collect::<Result<Vec<_>, _>>()?;
        let parts = parts.into_iter().zip(&mut workers);
        let parts = parts.map(|((queues, backend), worker)| Part { queues, backend, worker });
        let function = VirtioPci::new(name, profile, parts.collect(), around)?;
        self.built.workers.append(&mut workers);
        self.add(function)
    }

    /// The balloon was added: others reach it by this.
    pub(super) fn balloon(&mut self, handle: BalloonHandle) {
        self.built.balloon = Some(handle);
    }

    pub(super) fn finish(self) -> Built {
        self.built
    }

    /// Notes by which id others know the next device.
    fn note(&mut self, name: &str, profile: &Profile) {
        self.built.counters.insert(name.to_owned(), profile.counters.clone());
        // A requester id is bus, device and function: 8, 5 and 3 bits.
        let slot = u16::try_from(self.built.pci.next_requester() >> 3 & 0x1f).unwrap_or(0);
        self.built.slots.insert(name.to_owned(), slot);
    }

    fn around(&self) -> Surroundings<'a> {
        let requester = self.built.pci.next_requester();
        let wires = Arc::new(Wires { vm: self.vm.clone(), requester });
        Surroundings {
            memory: self.memory,
            messages: wires.clone(),
            io_events: wires,
            bar: self.built.pci.next_bar(layout::PCI_BARS),
        }
    }

    fn add(&mut self, function: VirtioPci) -> Result<(), BuildError> {
        self.built.pci.add(Box::new(function)).map_err(|_| BuildError::BusFull)
    }
}

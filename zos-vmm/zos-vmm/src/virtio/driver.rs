//! The guest's side, for tests: a queue laid out in memory, and a driver that speaks to a function
//! through its registers as a kernel does, or as one never would.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::{
    Backend, F_VERSION_1, Interrupt, IoEvents, Part, Profile, Surroundings, Vectors, VirtioPci,
    Worker,
};
use crate::event::Event;
use crate::jail::{Kind, Seccomp};
use crate::memory::GuestMemory;
use crate::pci::{Function, MsiSink, Msix};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Where the tests' buffers begin; queues lie below.
pub(crate) const BUFFERS: u64 = 0x10_0000;
/// Bytes of the tests' memory.
pub(crate) const MEMORY: usize = 4 << 20;
const SIZE: u16 = 16;
const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// Memory of a small guest.
pub(crate) fn memory() -> GuestMemory {
    crate::memory::create(&[(GuestAddress(0), MEMORY)]).unwrap()
}

/// A buffer: address, length, whether the device may write it.
pub(crate) type Buffer = (u64, u32, bool);

/// A queue as the guest lays it out: descriptors, available ring, used ring.
pub(crate) struct GuestQueue {
    memory: GuestMemory,
    pub(crate) base: u64,
    available: u16,
    next: u16,
}

impl GuestQueue {
    pub(crate) fn new(memory: &GuestMemory, index: u64) -> Self {
        let base = 0x1_0000 * (index + 1);
        Self { memory: memory.clone(), base, available: 0, next: 0 }
    }

    pub(crate) fn rings(&self) -> [u64; 3] {
        [self.base, self.base + 0x1000, self.base + 0x2000]
    }

    /// The device's view of it, for tests without a transport.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(256).unwrap();
        let [desc, avail, used] = self.rings().map(|address| u32::try_from(address).ok());
        queue.set_size(SIZE);
        queue.set_desc_table_address(desc, Some(0));
        queue.set_avail_ring_address(avail, Some(0));
        queue.set_used_ring_address(used, Some(0));
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    /// Writes one descriptor as it is told.
    pub(crate) fn describe(&self, at: u16, buffer: Buffer, next: Option<u16>) {
        let (address, length, writable) = buffer;
        let flags = next.map_or(0, |_| NEXT) | if writable { WRITE } else { 0 };
        let entry = self.base + u64::from(at) * 16;
        self.memory.write_obj(address, GuestAddress(entry)).unwrap();
        self.memory.write_obj(length, GuestAddress(entry + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(entry + 12)).unwrap();
        self.memory.write_obj(next.unwrap_or(0), GuestAddress(entry + 14)).unwrap();
    }

    /// Makes a chain of buffers available; returns its head.
    pub(crate) fn offer(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next;
        for (index, buffer) in buffers.iter().enumerate() {
            let next = (self.next + 1) % SIZE;
            let has_next = index + 1 < buffers.len();
            self.describe(self.next, *buffer, has_next.then_some(next));
            self.next = next;
        }
        self.offer_head(head);
        head
    }

    /// Makes a head available, whatever it is.
    pub(crate) fn offer_head(&mut self, head: u16) {
        let entry = self.base + 0x1004 + u64::from(self.available % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.set_available(self.available.wrapping_add(1));
    }

    /// Writes the available index, whatever it is.
    pub(crate) fn set_available(&mut self, index: u16) {
        self.available = index;
        self.memory.write_obj(index, GuestAddress(self.base + 0x1002)).unwrap();
    }

    /// How much came back.
    pub(crate) fn used_count(&self) -> u16 {
        self.memory.read_obj(GuestAddress(self.base + 0x2002)).unwrap()
    }

    /// Everything that came back: head and length.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        let count: u16 = self.memory.read_obj(GuestAddress(self.base + 0x2002)).unwrap();
        let entry = |index: u16| self.base + 0x2004 + u64::from(index % SIZE) * 8;
        let word = |address| self.memory.read_obj::<u32>(GuestAddress(address)).unwrap();
        (0..count).map(|index| (word(entry(index)), word(entry(index) + 4))).collect()
    }
}

/// Messages that a function sent: the vector stands in the data.
#[derive(Default)]
pub(crate) struct Messages(pub(crate) Mutex<Vec<u32>>);

impl MsiSink for Messages {
    fn send(&self, _: u64, data: u32) {
        self.0.lock().unwrap().push(data);
    }
}

/// Kicks come through the BAR.
struct NoIoEvents;

impl IoEvents for NoIoEvents {
    fn register(&self, _: u64, _: &Event) {}
    fn unregister(&self, _: u64, _: &Event) {}
}

/// An interrupt that goes nowhere, for tests without a transport.
pub(crate) fn interrupt() -> Arc<Interrupt> {
    let vectors = Arc::new(Vectors::new(2));
    let msix = Msix::new(vectors.count(), Arc::new(Messages::default()));
    Arc::new(Interrupt::new(Arc::new(msix), vectors))
}

/// A driver of one function.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemory,
    pub(crate) function: VirtioPci,
    pub(crate) queues: Vec<GuestQueue>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) workers: Vec<Worker>,
}

impl Driver {
    pub(crate) fn new(profile: Profile, backend: Box<dyn Backend>) -> Self {
        let queues = profile.queues.len();
        Self::with_parts(profile, vec![(queues, backend)])
    }

    /// A device in a thread with the filter that it has in a VM: a call beyond that ends the tests.
    pub(crate) fn confined(profile: Profile, backend: Box<dyn Backend>, kind: Kind) -> Self {
        let parts = vec![(profile.queues.len(), backend)];
        Self::in_filter(profile, parts, Some(kind))
    }

    /// A device of several parts, each in a thread of its own.
    pub(crate) fn with_parts(profile: Profile, parts: Vec<(usize, Box<dyn Backend>)>) -> Self {
        Self::in_filter(profile, parts, None)
    }

    /// The same, each thread in the filter of a kind.
    pub(crate) fn in_filter(
        profile: Profile,
        parts: Vec<(usize, Box<dyn Backend>)>,
        kind: Option<Kind>,
    ) -> Self {
        let memory = memory();
        let messages = Arc::new(Messages::default());
        let count = profile.queues.len() as u64;
        let (function, workers) =
            make(profile, parts, &memory, messages.clone(), 0xc000_0000, kind);
        let queues = (0..count).map(|index| GuestQueue::new(&memory, index)).collect();
        Self { memory, function, queues, messages, workers }
    }

    /// A function without a driver, for a bus.
    pub(crate) fn function_at(
        profile: Profile,
        backend: Box<dyn Backend>,
        bar: u32,
    ) -> (VirtioPci, Worker) {
        let parts = vec![(profile.queues.len(), backend)];
        let (function, mut workers) =
            make(profile, parts, &memory(), Arc::new(Messages::default()), bar, None);
        (function, workers.swap_remove(0))
    }

    pub(crate) fn write(&mut self, offset: u32, data: &[u8]) {
        self.function.bar_write(offset, data);
    }

    pub(crate) fn status(&mut self) -> u8 {
        let mut status = [0];
        self.function.bar_read(0x14, &mut status);
        status[0]
    }

    /// Reads the BAR.
    pub(crate) fn function_read(&mut self, offset: u32, data: &mut [u8]) {
        self.function.bar_read(offset, data);
    }

    /// The way of a good driver, up to DRIVER_OK.
    pub(crate) fn start(&mut self, features: u64) {
        assert!(self.try_start(features));
    }

    /// The same with features that the device may refuse; tells whether it took them.
    pub(crate) fn try_start(&mut self, features: u64) -> bool {
        let queues: Vec<u16> = (0..self.queues.len() as u16).collect();
        self.start_with(features, &queues)
    }

    /// The same with some of the queues only.
    pub(crate) fn start_with(&mut self, features: u64, queues: &[u16]) -> bool {
        self.function.config_write(4, &[2, 0]);
        // The MSI-X capability stands first, at 0x40; its control word two bytes on.
        self.function.config_write(0x42, &[0, 0x80]);
        for vector in 0..=self.queues.len() as u32 {
            self.write(0x4000 + vector * 16, &0xfee0_0000u64.to_le_bytes());
            self.write(0x4008 + vector * 16, &vector.to_le_bytes());
            self.write(0x400c + vector * 16, &[0; 4]);
        }
        self.write(0x14, &[1]);
        self.write(0x14, &[3]);
        let features = features | F_VERSION_1;
        for half in 0..2u32 {
            self.write(0x08, &half.to_le_bytes());
            self.write(0x0c, &((features >> (32 * half)) as u32).to_le_bytes());
        }
        self.write(0x14, &[11]);
        if self.status() != 11 {
            return false;
        }
        let queue_count = self.queues.len() as u16;
        self.write(0x10, &queue_count.to_le_bytes());
        for index in queues.iter().copied() {
            self.write(0x16, &index.to_le_bytes());
            self.write(0x18, &SIZE.to_le_bytes());
            self.write(0x1a, &index.to_le_bytes());
            for (register, ring) in
                [0x20, 0x28, 0x30].into_iter().zip(self.queues[usize::from(index)].rings())
            {
                self.write(register, &(ring as u32).to_le_bytes());
                self.write(register + 4, &[0; 4]);
            }
            self.write(0x1c, &[1, 0]);
        }
        self.write(0x14, &[15]);
        true
    }

    /// Resets the device and forgets the queues.
    pub(crate) fn reset(&mut self) {
        self.write(0x14, &[0]);
        self.memory.write_slice(&vec![0; 0x10_0000], GuestAddress(0)).unwrap();
        let count = self.queues.len() as u64;
        self.queues = (0..count).map(|index| GuestQueue::new(&self.memory, index)).collect();
    }

    pub(crate) fn kick(&mut self, queue: u32) {
        self.write(0x3000 + queue * 4, &(queue as u16).to_le_bytes());
    }

    /// Offers a chain, kicks, and waits for it to come back; tells how many bytes were written.
    pub(crate) fn request(&mut self, buffers: &[Buffer]) -> u32 {
        self.request_on(0, buffers)
    }

    /// The same on any queue.
    pub(crate) fn request_on(&mut self, queue: usize, buffers: &[Buffer]) -> u32 {
        let before = self.queues[queue].used().len();
        let head = self.queues[queue].offer(buffers);
        self.kick(queue as u32);
        self.wait(|driver| driver.queues[queue].used().len() > before);
        let (back, length) = self.queues[queue].used()[before];
        assert_eq!(back, u32::from(head));
        length
    }

    /// Waits until something is true; a minute without it is a hang.
    pub(crate) fn wait(&mut self, mut right: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !right(self) {
            assert!(start.elapsed() < Duration::from_secs(60), "it never came");
            std::thread::yield_now();
        }
    }
}

fn make(
    profile: Profile,
    parts: Vec<(usize, Box<dyn Backend>)>,
    memory: &GuestMemory,
    messages: Arc<Messages>,
    bar: u32,
    kind: Option<Kind>,
) -> (VirtioPci, Vec<Worker>) {
    let around = Surroundings { memory, messages, io_events: Arc::new(NoIoEvents), bar };
    let enter = move || kind.into_iter().for_each(|kind| Seccomp::On.enter(kind));
    let spawn = |_: &_| Worker::spawn("test", enter).unwrap();
    let mut workers: Vec<Worker> = parts.iter().map(spawn).collect();
    let parts = parts.into_iter().zip(&mut workers);
    let parts = parts.map(|((queues, backend), worker)| Part { queues, backend, worker });
    let function = VirtioPci::new("test", profile, parts.collect(), around).unwrap();
    (function, workers)
}

//! A VMM and its guest in small: two rings in a memory file, and FUSE requests one at a time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY: usize = 4 << 20;
const ENTRIES: u16 = 16;
/// Where a request lies, and its answer.
const REQUEST: u64 = 0x10_0000;
const ANSWER: u64 = 0x20_0000;
const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;

/// What a guest learns of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) owner: u32,
}

pub(crate) struct Guest {
    memory: GuestMemoryMmap,
    kick: EventFd,
    requests: u16,
    /// Whose requests they are.
    pub(crate) user: u32,
    _front: Frontend,
    _file: File,
}

/// The rings of a queue.
fn rings(queue: u64) -> [u64; 3] {
    [0x1000, 0x2000, 0x3000].map(|at| at + 0x1_0000 * queue)
}

impl Guest {
    pub(crate) fn new(socket: UnixStream) -> Self {
        let file =
            File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY as u64).unwrap();
        let at = FileOffset::new(file.try_clone().unwrap(), 0);
        let ranges = [(GuestAddress(0), MEMORY, Some(at))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let mut front = Frontend::from_stream(socket, 2);
        front.set_owner().unwrap();
        let offered = front.get_features().unwrap();
        assert_eq!(offered & (VERSION_1 | PROTOCOL), VERSION_1 | PROTOCOL);
        let protocol = front.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::MQ;
        front.set_protocol_features(protocol & wanted).unwrap();
        assert_eq!(front.get_queue_num().unwrap(), 2);
        front.set_features(VERSION_1 | PROTOCOL).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: 0,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        front.set_mem_table(&[region]).unwrap();
        let mut kicks = Vec::new();
        for queue in 0..2 {
            let [desc, avail, used] = rings(queue as u64);
            let (kick, call) =
                (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
            front.set_vring_num(queue, ENTRIES).unwrap();
            let config = VringConfigData {
                queue_max_size: ENTRIES,
                queue_size: ENTRIES,
                flags: 0,
                desc_table_addr: desc,
                used_ring_addr: used,
                avail_ring_addr: avail,
                log_addr: None,
            };
            front.set_vring_addr(queue, &config).unwrap();
            front.set_vring_base(queue, 0).unwrap();
            front.set_vring_call(queue, &call).unwrap();
            front.set_vring_kick(queue, &kick).unwrap();
            front.set_vring_enable(queue, true).unwrap();
            kicks.push(kick);
        }
        let kick = kicks.remove(1);
        let mut guest = Self { memory, kick, requests: 0, user: 0, _front: front, _file: file };
        let mut init = vec![0; 64];
        init[..4].copy_from_slice(&7u32.to_le_bytes());
        init[4..8].copy_from_slice(&38u32.to_le_bytes());
        guest.request(26, 0, &init, 64).unwrap();
        guest
    }

    /// Puts a request to a node into the ring.
    pub(crate) fn offer(&mut self, opcode: u32, node: u64, body: &[u8], room: usize) {
        let length = 40 + body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&opcode.to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.requests).to_le_bytes());
        bytes.extend_from_slice(&node.to_le_bytes());
        for word in [self.user, self.user, 1, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        self.memory.write_slice(&bytes, GuestAddress(REQUEST)).unwrap();
        let [desc, avail, _] = rings(1);
        let descriptor = |at: u64, address: u64, length: usize, flags: u16, next: u16| {
            let write = |offset, bytes: &[u8]| {
                self.memory.write_slice(bytes, GuestAddress(desc + at * 16 + offset)).unwrap();
            };
            write(0, &address.to_le_bytes());
            write(8, &(length as u32).to_le_bytes());
            write(12, &flags.to_le_bytes());
            write(14, &next.to_le_bytes());
        };
        descriptor(0, REQUEST, length, 1, 1);
        descriptor(1, ANSWER, 16 + room, 2, 0);
        let slot = u64::from(self.requests % ENTRIES);
        self.memory.write_obj(0u16, GuestAddress(avail + 4 + slot * 2)).unwrap();
        self.requests += 1;
        self.memory.write_obj(self.requests, GuestAddress(avail + 2)).unwrap();
        self.kick.write(1).unwrap();
    }

    /// A request to a node; its answer, or the error's number.
    pub(crate) fn request(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, i32> {
        self.offer(opcode, node, body, room);
        let [_, _, used] = rings(1);
        let mut rounds = 0;
        while self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap() != self.requests {
            rounds += 1;
            assert!(rounds < 10_000, "no answer to {opcode}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let answer: u32 = self.memory.read_obj(GuestAddress(ANSWER)).unwrap();
        let error: i32 = self.memory.read_obj(GuestAddress(ANSWER + 4)).unwrap();
        if error != 0 {
            return Err(-error);
        }
        let mut bytes = vec![0; answer as usize - 16];
        self.memory.read_slice(&mut bytes, GuestAddress(ANSWER + 16)).unwrap();
        Ok(bytes)
    }

    pub(crate) fn lookup(&mut self, node: u64, name: &str) -> Result<Entry, i32> {
        self.request(1, node, &text(name), 128).map(|answer| entry(&answer))
    }

    pub(crate) fn open(&mut self, node: u64, flags: u32) -> Result<u64, i32> {
        let body = [flags, 0].map(u32::to_le_bytes).concat();
        self.request(14, node, &body, 16).map(|answer| long(&answer, 0))
    }

    pub(crate) fn open_dir(&mut self, node: u64) -> Result<u64, i32> {
        self.request(27, node, &[0; 8], 16).map(|answer| long(&answer, 0))
    }

    pub(crate) fn read(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, i32> {
        self.request(15, node, &io(handle, offset, size), size as usize)
    }

    pub(crate) fn write(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, i32> {
        let body = [io(handle, offset, data.len() as u32), data.to_vec()].concat();
        self.request(16, node, &body, 8).map(|answer| word(&answer, 0))
    }

    /// Makes a file and opens it: its entry and its handle.
    pub(crate) fn create(&mut self, node: u64, name: &str, mode: u32) -> Result<(Entry, u64), i32> {
        let flags = (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).cast_unsigned();
        let body = [[flags, mode, 0, 0].map(u32::to_le_bytes).concat(), text(name)].concat();
        let answer = self.request(35, node, &body, 144)?;
        Ok((entry(&answer), long(&answer, 128)))
    }

    pub(crate) fn symlink(&mut self, node: u64, name: &str, target: &str) -> Result<(), i32> {
        self.request(6, node, &[text(name), text(target)].concat(), 128).map(drop)
    }

    pub(crate) fn read_link(&mut self, node: u64) -> Result<Vec<u8>, i32> {
        self.request(5, node, &[], 4096)
    }

    pub(crate) fn make_node(
        &mut self,
        node: u64,
        name: &str,
        mode: u32,
        device: u32,
    ) -> Result<(), i32> {
        let body = [[mode, device, 0, 0].map(u32::to_le_bytes).concat(), text(name)].concat();
        self.request(8, node, &body, 128).map(drop)
    }
}

/// The beginning of reads and writes.
fn io(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    let mut body = [handle, offset].map(u64::to_le_bytes).concat();
    body.extend_from_slice(&size.to_le_bytes());
    body.resize(40, 0);
    body
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// `struct fuse_entry_out`, with `struct fuse_attr` at 40.
fn entry(bytes: &[u8]) -> Entry {
    Entry {
        node: long(bytes, 0),
        inode: long(bytes, 40),
        size: long(bytes, 48),
        mode: word(bytes, 100),
        owner: word(bytes, 108),
    }
}

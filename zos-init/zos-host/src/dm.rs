//! Device-mapper by its ioctls (linux/dm-ioctl.h, interface 4.x): no libdevmapper, no udev.
//!
//! ```text
//!  create ─▶ (empty) ─ load ─▶ (inactive table) ─ resume ─▶ live ─ suspend/load/resume ─▶ live
//!                                                              └─ remove ─▶ gone
//! ```
//! The node of a device is `/dev/dm-N` (devtmpfs makes it); `/dev/mapper/<name>` needs udev and
//! doesn't exist here. Buffers that held a table are wiped: a dm-crypt table carries its key.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::sys;

const HEADER: usize = 312;
const HEADER_U32: u32 = 312;
const TARGET_SPEC: usize = 40;
const NAME_LEN: usize = 128;
const UUID_LEN: usize = 129;

const READONLY: u32 = 1;
const SUSPEND: u32 = 1 << 1;
const STATUS_TABLE: u32 = 1 << 4;
const ACTIVE_PRESENT: u32 = 1 << 5;
const BUFFER_FULL: u32 = 1 << 8;
const SECURE_DATA: u32 = 1 << 15;
const DEFERRED_REMOVE: u32 = 1 << 17;

// _IOWR(0xfd, n, struct dm_ioctl)
const fn request(number: u32) -> u32 {
    (3 << 30) | (HEADER_U32 << 16) | (0xfd << 8) | number
}
const DEV_CREATE: u32 = request(3);
const DEV_REMOVE: u32 = request(4);
const DEV_SUSPEND: u32 = request(6);
const DEV_STATUS: u32 = request(7);
const TABLE_LOAD: u32 = request(9);
const TABLE_CLEAR: u32 = request(10);
const TABLE_STATUS: u32 = request(12);
const LIST_DEVICES: u32 = request(2);
const TARGET_MSG: u32 = request(14);

/// One range of a table.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// First sector (512 bytes) of the device.
    pub start: u64,
    /// Sectors.
    pub length: u64,
    /// `crypt`, `integrity`, `raid`, `linear`, `flakey`, `error` ...
    pub kind: String,
    /// The target's own parameters (or its status, when read by [`Dm::status`]).
    pub params: String,
}

impl std::fmt::Debug for Target {
    // Parameters may hold a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}+{} {})", self.start, self.length, self.kind)
    }
}

/// A mapped device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, unique on the machine.
    pub name: String,
    /// Its UUID, as its maker gave it; may be empty.
    pub uuid: String,
    /// Major and minor number.
    pub device: (u32, u32),
    /// How many hold it open.
    pub open_count: i32,
    /// A table is live.
    pub active: bool,
    /// I/O waits.
    pub suspended: bool,
    /// Writes are refused.
    pub read_only: bool,
}

impl Device {
    /// `/dev/dm-N`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/dev/dm-{}", self.device.1).into()
    }
}

/// The control node, `/dev/mapper/control`. Needs CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct Dm {
    control: File,
}

impl Dm {
    /// Opens the control node; fails when the kernel has no device-mapper.
    pub fn open() -> Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .during("open", "/dev/mapper/control")?;
        Ok(Self { control })
    }

    /// A new device without a table. `name` has 1 to 127 bytes, `uuid` at most 128 (or none: "").
    pub fn create(&self, name: &str, uuid: &str) -> Result<Device> {
        if uuid.len() >= UUID_LEN {
            return Err(Error::invalid("create device", name, "its UUID is too long"));
        }
        let mut buffer = Buffer::new("create device", name, 0)?;
        buffer.bytes[176..176 + uuid.len()].copy_from_slice(uuid.as_bytes());
        self.run(DEV_CREATE, &mut buffer, "create device", name)?;
        Ok(buffer.device())
    }

    /// Loads a table into the inactive slot; [`Dm::resume`] makes it live.
    pub fn load(&self, name: &str, targets: &[Target], read_only: bool) -> Result<()> {
        let mut payload = Vec::new();
        for target in targets {
            if target.kind.len() > 15 || target.params.contains('\0') {
                return Err(Error::invalid("load table of", name, format!("bad {target:?}")));
            }
            // Each entry: struct dm_target_spec, the parameters, NUL, padded to 8 bytes.
            let size = (TARGET_SPEC + target.params.len() + 1).next_multiple_of(8);
            let begin = payload.len();
            payload.extend_from_slice(&target.start.to_ne_bytes());
            payload.extend_from_slice(&target.length.to_ne_bytes());
            payload.extend_from_slice(&0_i32.to_ne_bytes());
            payload.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
            payload.extend_from_slice(target.kind.as_bytes());
            payload.resize(begin + TARGET_SPEC, 0);
            payload.extend_from_slice(target.params.as_bytes());
            payload.resize(begin + size, 0);
        }
        let mut buffer = Buffer::new("load table of", name, payload.len())?;
        buffer.bytes[HEADER..].copy_from_slice(&payload);
        payload.fill(0);
        std::hint::black_box(&payload);
        buffer.put_u32(20, u32::try_from(targets.len()).unwrap_or(u32::MAX));
        buffer.put_u32(28, SECURE_DATA | if read_only { READONLY } else { 0 });
        self.run(TABLE_LOAD, &mut buffer, "load table of", name)
    }

    /// Drops a loaded table that isn't live.
    pub fn clear(&self, name: &str) -> Result<()> {
        let mut buffer = Buffer::new("clear table of", name, 0)?;
        self.run(TABLE_CLEAR, &mut buffer, "clear table of", name)
    }

    /// Makes the loaded table live and lets I/O run. The node is there afterwards.
    pub fn resume(&self, name: &str) -> Result<Device> {
        let mut buffer = Buffer::new("resume", name, 0)?;
        self.run(DEV_SUSPEND, &mut buffer, "resume", name)?;
        Ok(buffer.device())
    }

    /// Lets I/O that runs finish and holds new I/O back.
    pub fn suspend(&self, name: &str) -> Result<()> {
        let mut buffer = Buffer::new("suspend", name, 0)?;
        buffer.put_u32(28, SUSPEND);
        self.run(DEV_SUSPEND, &mut buffer, "suspend", name)
    }

    /// Removes the device; `deferred`: if it is open, when its last user closes it.
    pub fn remove(&self, name: &str, deferred: bool) -> Result<()> {
        let mut buffer = Buffer::new("remove", name, 0)?;
        buffer.put_u32(28, if deferred { DEFERRED_REMOVE } else { 0 });
        self.run(DEV_REMOVE, &mut buffer, "remove", name)
    }

    /// The device of this name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Device>> {
        let mut buffer = Buffer::new("look up", name, 0)?;
        match self.run(DEV_STATUS, &mut buffer, "look up", name) {
            Ok(()) => Ok(Some(buffer.device())),
            Err(error) if error.errno() == Some(nix::libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Status of each target of the live table: `params` is the target's status line.
    pub fn status(&self, name: &str) -> Result<Vec<Target>> {
        self.targets(name, 0)
    }

    /// The live table itself, keys included.
    pub fn table(&self, name: &str) -> Result<Vec<Target>> {
        self.targets(name, STATUS_TABLE)
    }

    fn targets(&self, name: &str, flags: u32) -> Result<Vec<Target>> {
        let buffer = self.run_growing(TABLE_STATUS, flags, "read table of", name)?;
        let (mut targets, mut at) = (Vec::new(), HEADER);
        for _ in 0..buffer.u32(20) {
            let Some(spec) = buffer.bytes.get(at..at + TARGET_SPEC) else { break };
            targets.push(Target {
                start: u64::from_ne_bytes(spec[..8].try_into().expect("8 bytes")),
                length: u64::from_ne_bytes(spec[8..16].try_into().expect("8 bytes")),
                kind: text(&spec[24..40]),
                params: text(&buffer.bytes[at + TARGET_SPEC..]),
            });
            // Here `next` counts from the first entry.
            at = HEADER + u32::from_ne_bytes(spec[20..24].try_into().expect("4 bytes")) as usize;
        }
        Ok(targets)
    }

    /// Tells the target of a device's first sector something: `check` to a mirror.
    pub fn message(&self, name: &str, message: &str) -> Result<()> {
        // struct dm_target_msg: u64 sector, then the words, NUL.
        let mut buffer = Buffer::new("tell", name, 8 + message.len() + 1)?;
        buffer.bytes[HEADER + 8..HEADER + 8 + message.len()].copy_from_slice(message.as_bytes());
        self.run(TARGET_MSG, &mut buffer, "tell", name)
    }

    /// Names of all mapped devices.
    pub fn list(&self) -> Result<Vec<String>> {
        let buffer = self.run_growing(LIST_DEVICES, 0, "list", "")?;
        let (mut names, mut at) = (Vec::new(), HEADER);
        // struct dm_name_list: u64 device (0 when there is none), u32 next, name.
        while let Some(entry) = buffer.bytes.get(at..at + 12) {
            if entry[..8] == [0; 8] {
                break;
            }
            names.push(text(&buffer.bytes[at + 12..]));
            match u32::from_ne_bytes(entry[8..12].try_into().expect("4 bytes")) {
                0 => break,
                next => at += next as usize,
            }
        }
        Ok(names)
    }

    fn run_growing(&self, code: u32, flags: u32, what: &'static str, name: &str) -> Result<Buffer> {
        let mut room = 16 << 10;
        loop {
            let mut buffer = Buffer::new(what, name, room)?;
            buffer.put_u32(28, flags | SECURE_DATA);
            self.run(code, &mut buffer, what, name)?;
            if buffer.u32(28) & BUFFER_FULL == 0 || room > 4 << 20 {
                return Ok(buffer);
            }
            room *= 4;
        }
    }

    fn run(&self, code: u32, buffer: &mut Buffer, what: &'static str, name: &str) -> Result<()> {
        let mut attempts = 0;
        loop {
            // SAFETY: each dm ioctl works on a struct dm_ioctl followed by data, and stays within the
            // `data_size` that the header carries, which Buffer::new set to the buffer's length.
            let done =
                unsafe { sys::ioctl_ptr(self.control.as_fd(), code, buffer.bytes.as_mut_ptr()) };
            match done {
                // A prober may hold the device for a moment after it was closed.
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::EBUSY)
                        && code == DEV_REMOVE
                        && attempts < 20 =>
                {
                    attempts += 1;
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                done => return done.map(|_| ()).during(what, name),
            }
        }
    }
}

/// A `struct dm_ioctl` with room for data behind it.
struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    // version[3] 0, data_size 12, data_start 16, target_count 20, open_count 24, flags 28,
    // event_nr 32, dev 40, name 48, uuid 176, data 305
    fn new(what: &'static str, name: &str, data: usize) -> Result<Self> {
        if name.len() >= NAME_LEN || name.contains(['\0', '/']) {
            return Err(Error::invalid(what, name, "a name has 1 to 127 bytes and no slash"));
        }
        let mut buffer = Self { bytes: vec![0; HEADER + data] };
        buffer.put_u32(0, 4);
        buffer.put_u32(12, u32::try_from(HEADER + data).unwrap_or(u32::MAX));
        buffer.put_u32(16, HEADER_U32);
        buffer.bytes[48..48 + name.len()].copy_from_slice(name.as_bytes());
        Ok(buffer)
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes"))
    }

    fn device(&self) -> Device {
        // The kernel writes 32 bits of it (new_encode_dev's form), in native order.
        let dev = self.u32(if cfg!(target_endian = "little") { 40 } else { 44 });
        let flags = self.u32(28);
        Device {
            name: text(&self.bytes[48..176]),
            uuid: text(&self.bytes[176..305]),
            // The kernel's huge_encode_dev: 12 bits of major, 20 of minor in two parts.
            device: ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)),
            open_count: self.u32(24).cast_signed(),
            active: flags & ACTIVE_PRESENT != 0,
            suspended: flags & SUSPEND != 0,
            read_only: flags & READONLY != 0,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Keeps the compiler from dropping the wipe as a dead store.
        std::hint::black_box(&self.bytes);
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

//! Loop devices: a file as a disk (loop(4), linux/loop.h).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::SysRoot;
use crate::error::{Context, Error, Result};
use crate::sys::{self, Plain};

const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_SET_CAPACITY: u32 = 0x4C07;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How a file becomes a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Writes are refused.
    pub read_only: bool,
    /// Bypass the page cache; the file system's block size must allow it.
    pub direct_io: bool,
    /// Detached by itself when the last user closes it.
    pub autoclear: bool,
    /// Look for partitions.
    pub partitions: bool,
    /// First byte of the file that is shown.
    pub offset: u64,
    /// Bytes that are shown; 0: to the file's end.
    pub size_limit: u64,
    /// Logical block size in bytes; 0: the kernel's choice (512).
    pub block_size: u32,
}

/// An attached loop device. Dropping it detaches nothing: disks outlive their maker's restart.
#[derive(Debug)]
pub struct LoopDevice {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// `/dev/loopN`.
    pub path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// The open device.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The open device alone; with `autoclear` the disk lives as long as this and its copies.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

// linux/loop.h: struct loop_info64, struct loop_config
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

// SAFETY: integers and arrays of integers.
unsafe impl Plain for LoopConfig {}

const _: () = assert!(size_of::<LoopConfig>() == 8 + 232 + 64);

/// Shows `backing` (an open regular file or block device) as a disk. `name` is shown in
/// sysfs and by `losetup`; it need not be a path.
pub fn attach(backing: BorrowedFd<'_>, name: &str, options: &Options) -> Result<LoopDevice> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .during("open", "/dev/loop-control")?;
    let mut config = LoopConfig::zeroed();
    config.fd = u32::try_from(backing.as_raw_fd())
        .map_err(|_| Error::invalid("attach", name, "not a descriptor"))?;
    config.block_size = options.block_size;
    config.info.offset = options.offset;
    config.info.sizelimit = options.size_limit;
    config.info.flags = [
        (options.read_only, LO_FLAGS_READ_ONLY),
        (options.direct_io, LO_FLAGS_DIRECT_IO),
        (options.autoclear, LO_FLAGS_AUTOCLEAR),
        (options.partitions, LO_FLAGS_PARTSCAN),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .fold(0, |flags, (_, flag)| flags | flag);
    let shown = name.len().min(config.info.file_name.len() - 1);
    config.info.file_name[..shown].copy_from_slice(&name.as_bytes()[..shown]);

    // Between asking for a free number and taking it another process may take it; then ask again.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = unsafe { sys::ioctl_int(control.as_fd(), LOOP_CTL_GET_FREE, 0) }
            .during("find a free loop device for", name)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .open(&path)
            .during("open", path.display())?;
        // SAFETY: LOOP_CONFIGURE reads one struct loop_config, whose size is asserted above.
        match unsafe { sys::ioctl_with(file.as_fd(), LOOP_CONFIGURE, &mut config) } {
            Ok(_) => return Ok(LoopDevice { number: number.unsigned_abs(), path, file }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(Error::new("attach", name, error)),
        }
    }
    Err(Error::invalid("attach", name, "each free loop device was taken by someone else"))
}

/// Detaches `/dev/loopN`; while it is in use the kernel does so after the last user.
pub fn detach(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let file = File::open(path).during("open", path.display())?;
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { sys::ioctl_int(file.as_fd(), LOOP_CLR_FD, 0) }.during("detach", path.display())?;
    Ok(())
}

/// Takes over a changed size of the backing file.
pub fn refresh_size(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let file = File::open(path).during("open", path.display())?;
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { sys::ioctl_int(file.as_fd(), LOOP_SET_CAPACITY, 0) }
        .during("resize", path.display())?;
    Ok(())
}

/// What sysfs tells of an attached loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// The backing file by the kernel's present name; a deleted one ends in ` (deleted)`.
    pub backing: PathBuf,
    /// First byte shown.
    pub offset: u64,
    /// Bytes shown, 0: all.
    pub size_limit: u64,
    /// Bypasses the page cache.
    pub direct_io: bool,
}

impl Attached {
    /// `/dev/loopN`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/dev/loop{}", self.number).into()
    }
}

/// All attached loop devices, by number.
pub fn list(root: &SysRoot) -> Result<Vec<Attached>> {
    let mut found = Vec::new();
    for name in root.list("/sys/block")? {
        let Some(number) = name.strip_prefix("loop").and_then(|n| n.parse().ok()) else { continue };
        let dir = format!("/sys/block/{name}/loop");
        let Some(backing) = root.attribute(format!("{dir}/backing_file")) else { continue };
        found.push(Attached {
            number,
            backing: backing.into(),
            offset: root.parse(format!("{dir}/offset")).unwrap_or(0),
            size_limit: root.parse(format!("{dir}/sizelimit")).unwrap_or(0),
            direct_io: root.attribute(format!("{dir}/dio")).as_deref() == Some("1"),
        });
    }
    found.sort_by_key(|device| device.number);
    Ok(found)
}

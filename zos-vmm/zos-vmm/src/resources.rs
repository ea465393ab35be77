//! What a spec names, opened: passed descriptors in the jail, paths for developers.
//!
//! ```text
//!  LISTEN_FDS, LISTEN_FDNAMES ─▶ Passed ─┐
//!                                        ├─▶ Resources: files, taps, KVM; after this nobody opens
//!  paths (developers only) ──────────────┘
//! ```
#![allow(unsafe_code)]

use crate::console::{Console, ConsoleEnds, Ring, RingError, Session, Sink, Wire};
use crate::hypervisor::{self, HypervisorError};
use crate::keeper::{Keeper, Remains, Terminal};
use crate::rate::{Twin, TwinError};
use crate::sockets;
use crate::virtio::net::{TapError, Taps};
use crate::virtio::vsock::VsockEnds;
use kvm_ioctls::Kvm;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::termios::tcgetwinsize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zos_vmm_spec::{Net, Source, Spec};

const FIRST_FD: RawFd = 3;
/// More than any spec can name.
const MOST_FDS: RawFd = 256;

/// Descriptors that were passed to us, by name.
#[derive(Debug, Default)]
pub struct Passed {
    by_name: BTreeMap<String, OwnedFd>,
    /// Whether there were any: what was taken out since counts, too.
    any: bool,
}

/// Everything that a VM is made of, open.
#[derive(Debug)]
pub struct Resources {
    /// The hypervisor.
    pub kvm: Kvm,
    /// The kernel.
    pub kernel: File,
    /// The initramfs.
    pub initramfs: Option<File>,
    /// The serial port.
    pub serial: ConsoleEnds,
    /// What the devices stand on.
    pub devices: DeviceEnds,
    /// Cleans up at the end, for developers.
    pub keeper: Option<Keeper>,
}

/// The host's ends of the devices, in the order of the spec.
#[derive(Debug)]
pub struct DeviceEnds {
    /// A file for each disk.
    pub disks: Vec<File>,
    /// A tap for each net.
    pub taps: Vec<Taps>,
    /// The buckets of the VM's twin.
    pub twin: Option<Twin>,
    /// virtio-console's.
    pub console: Option<ConsoleEnds>,
    /// virtio-vsock's.
    pub vsock: Option<VsockEnds>,
    /// A back-end's socket for each share.
    pub shares: Vec<UnixStream>,
}

/// Why something can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The environment of passed descriptors is wrong.
    #[error("LISTEN_FDS and LISTEN_FDNAMES: {0}")]
    Environment(&'static str),
    /// A named descriptor wasn't passed.
    #[error("{field}: no descriptor named `{name}` was passed")]
    NotPassed {
        /// What names it.
        field: String,
        /// The name.
        name: String,
    },
    /// A path in the jail.
    #[error("{field}: in the jail only passed descriptors are accepted, not paths or names")]
    Jailed {
        /// What names it.
        field: String,
    },
    /// A path that can't be opened.
    #[error("{field}: open {}", path.display())]
    Open {
        /// What names it.
        field: String,
        /// The path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A tap.
    #[error("{field}")]
    Tap {
        /// What names it.
        field: String,
        /// Cause.
        source: TapError,
    },
    /// A console ring.
    #[error("{field}")]
    Ring {
        /// What names it.
        field: String,
        /// Cause.
        source: RingError,
    },
    /// A listening socket.
    #[error("{field}: listen")]
    Listen {
        /// What names it.
        field: String,
        /// Cause.
        source: io::Error,
    },
    /// The terminal.
    #[error("{field}: use the terminal on stdin")]
    Terminal {
        /// What names it.
        field: String,
        /// Cause.
        source: io::Error,
    },
    /// No descriptor or process left.
    #[error("make a descriptor or process")]
    Out(#[source] io::Error),
    /// The twin's buckets.
    #[error("twin_rates")]
    Twin(#[from] TwinError),
    /// KVM.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

impl Passed {
    /// Takes what the environment says was passed (`sd_listen_fds(3)`), or nothing.
    ///
    /// `LISTEN_PID` isn't looked at: who starts us may sit in another pid namespace.
    ///
    /// # Errors
    /// Numbers and names don't fit.
    ///
    /// # Safety
    /// To be called once, before anything else opened descriptors: those from 3 on are taken over.
    pub unsafe fn take() -> Result<Self, ResourceError> {
        let wrong = ResourceError::Environment;
        let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(Self::default()) };
        let count: RawFd = count.parse().map_err(|_| wrong("no number of descriptors"))?;
        if !(0..=MOST_FDS).contains(&count) {
            return Err(wrong("more than 256 descriptors, or less than none"));
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        if count > 0 && names.len() != usize::try_from(count).unwrap_or(0) {
            return Err(wrong("as many names as descriptors are needed"));
        }
        let mut by_name = BTreeMap::new();
        for (number, name) in (FIRST_FD..FIRST_FD + count).zip(names) {
            // SAFETY: the caller promises that nobody else owns these numbers.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|_| wrong("a descriptor isn't open"))?;
            if by_name.insert(name.to_owned(), fd).is_some() {
                return Err(wrong("a name stands there twice"));
            }
        }
        Ok(Self { any: !by_name.is_empty(), by_name })
    }

    /// Takes over a descriptor that was inherited under this number (developers).
    ///
    /// # Errors
    /// None is open there, or one of the first three.
    pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
        if number < FIRST_FD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: only looked at, and only if it is open.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FD)?)
    }

    /// Whether nothing was passed: then we aren't in the jail.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    /// Takes one by name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        self.by_name.remove(name)
    }
}

impl Resources {
    /// Opens what a valid spec names. With passed descriptors, only they count.
    ///
    /// # Errors
    /// The first thing that can't be had.
    pub fn open(spec: &Spec, mut passed: Passed) -> Result<Self, ResourceError> {
        let jailed = !passed.is_empty();
        let kvm = match passed.remove("kvm") {
            Some(fd) => hypervisor::adopt(fd),
            None if jailed => {
                let (field, name) = ("kvm".to_owned(), "kvm".to_owned());
                return Err(ResourceError::NotPassed { field, name });
            }
            None => hypervisor::open()?,
        };
        let mut opener = Opener { passed, jailed, remains: Remains::default() };
        let readable = |opener: &mut Opener, field: &str, source| opener.file(field, source, false);
        let kernel = readable(&mut opener, "kernel", &spec.kernel)?;
        let initramfs = spec.initramfs.as_ref();
        let initramfs =
            initramfs.map(|source| readable(&mut opener, "initramfs", source)).transpose()?;
        let disks = spec.disks.iter().enumerate().map(|(index, disk)| {
            opener.file(&format!("disks[{index}].source"), &disk.source, !disk.readonly)
        });
        let disks = disks.collect::<Result<_, _>>()?;
        let taps = spec
            .nets
            .iter()
            .enumerate()
            .map(|(index, net)| opener.taps(format!("nets[{index}].source"), net));
        let taps = taps.collect::<Result<_, _>>()?;
        let twin = spec.twin_rates.as_ref();
        let twin = twin.map(|source| opener.file("twin_rates", source, true)).transpose()?;
        let twin = twin.map(Twin::open).transpose()?;
        let serial = match &spec.serial {
            Some(serial) => opener.console("serial", serial)?,
            None => {
                let sink = if jailed { Sink::Nowhere } else { Sink::Stdout };
                ConsoleEnds { console: Console::new(sink, None, None), session: None, size: None }
            }
        };
        let console = spec.console.as_ref();
        let console = console.map(|console| opener.console("console", console)).transpose()?;
        let vsock = spec.vsock.as_ref();
        let vsock = vsock.map(|vsock| opener.vsock(&vsock.socket)).transpose()?;
        let shares = spec.shares.iter().enumerate();
        let shares = shares
            .map(|(index, share)| opener.stream(format!("shares[{index}].source"), &share.source));
        let shares = shares.collect::<Result<_, _>>()?;
        let keeper = Keeper::start(&mut opener.remains).map_err(ResourceError::Out)?;
        let devices = DeviceEnds { disks, taps, twin, console, vsock, shares };
        Ok(Self { kvm, kernel, initramfs, serial, devices, keeper })
    }
}

struct Opener {
    passed: Passed,
    jailed: bool,
    /// What the keeper is to clean up.
    remains: Remains,
}

impl Opener {
    fn file(&mut self, field: &str, source: &Source, write: bool) -> Result<File, ResourceError> {
        match source {
            Source::Fd(name) => self.fd(field, name),
            Source::Path(path) if !self.jailed => open(field, path, write),
            _ => Err(ResourceError::Jailed { field: field.to_owned() }),
        }
    }

    /// A descriptor for each pair of queues: `NAME`, `NAME.1` ...
    fn taps(&mut self, field: String, net: &Net) -> Result<Taps, ResourceError> {
        let taps = match &net.source {
            Source::Fd(name) => {
                let mut files = vec![self.fd(&field, name)?];
                for pair in 1..net.queues {
                    files.push(self.fd(&field, &format!("{name}.{pair}"))?);
                }
                Taps::from_files(files)
            }
            Source::Tap(name) if !self.jailed => Taps::open(name, net.queues),
            _ => return Err(ResourceError::Jailed { field }),
        };
        taps.map_err(|source| ResourceError::Tap { field, source })
    }

    fn console(
        &mut self,
        name: &str,
        spec: &zos_vmm_spec::Console,
    ) -> Result<ConsoleEnds, ResourceError> {
        let field = |part: &str| format!("{name}.{part}");
        let sink = if let Some(source) = &spec.ring {
            let field = field("ring");
            let ring = Ring::open(self.file(&field, source, true)?);
            Sink::Ring(ring.map_err(|source| ResourceError::Ring { field, source })?)
        } else if let Some(source) = &spec.file {
            Sink::File(self.appended(field("file"), source)?)
        } else if spec.terminal {
            Sink::Stdout
        } else {
            Sink::Nowhere
        };
        let session = if let Some(source) = &spec.socket {
            let listener = self.listener(field("socket"), source)?;
            Some(Session::socket(wire()?, listener))
        } else if spec.terminal {
            Some(Session::terminal(wire()?, self.terminal(field("terminal"))?))
        } else {
            None
        };
        let wire = session.as_ref().map(Session::wire);
        let size = spec.terminal.then(|| tcgetwinsize(std::io::stdin()).ok()).flatten();
        let size = size.map(|size| (size.ws_col, size.ws_row));
        Ok(ConsoleEnds { console: Console::new(sink, spec.rate, wire), session, size })
    }

    fn appended(&mut self, field: String, source: &Source) -> Result<File, ResourceError> {
        match source {
            Source::Path(path) if !self.jailed => {
                let file = File::options().append(true).create(true).open(path);
                file.map_err(|source| ResourceError::Open { field, path: path.clone(), source })
            }
            source => self.file(&field, source, true),
        }
    }

    /// A guest's own connections are for developers alone.
    fn vsock(&mut self, source: &Source) -> Result<VsockEnds, ResourceError> {
        let listener = self.listener("vsock.socket".to_owned(), source)?;
        let calls = match source {
            Source::Path(path) => Some(path.clone()),
            Source::Fd(_) | Source::Tap(_) => None,
        };
        Ok(VsockEnds { listener, calls })
    }

    /// A socket that is connected.
    fn stream(&mut self, field: String, source: &Source) -> Result<UnixStream, ResourceError> {
        match source {
            Source::Fd(name) => Ok(OwnedFd::from(self.fd(&field, name)?).into()),
            Source::Path(path) if !self.jailed => {
                let path = path.clone();
                let stream = UnixStream::connect(&path);
                stream.map_err(|source| ResourceError::Open { field, path, source })
            }
            _ => Err(ResourceError::Jailed { field }),
        }
    }

    /// A socket that listens.
    fn listener(&mut self, field: String, source: &Source) -> Result<OwnedFd, ResourceError> {
        let failed = |field, source| ResourceError::Listen { field, source };
        match source {
            Source::Fd(name) => {
                let fd = self.fd(&field, name)?;
                sockets::adopt(fd.into()).map_err(|source| failed(field, source))
            }
            Source::Path(path) if !self.jailed => {
                let (fd, bound) = sockets::bind(path).map_err(|source| failed(field, source))?;
                self.remains.sockets.push(bound);
                Ok(fd)
            }
            _ => Err(ResourceError::Jailed { field }),
        }
    }

    /// Stdin, raw if it is a terminal.
    fn terminal(&mut self, field: String) -> Result<OwnedFd, ResourceError> {
        if self.jailed {
            return Err(ResourceError::Jailed { field });
        }
        let failed = |source| ResourceError::Terminal { field: field.clone(), source };
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(&failed)?;
        if input.is_terminal() {
            let tty = input.try_clone().map_err(&failed)?;
            self.remains.terminal = Some(Terminal::make_raw(tty).map_err(failed)?);
        }
        Ok(input)
    }

    fn fd(&mut self, field: &str, name: &str) -> Result<File, ResourceError> {
        self.passed.remove(name).map(File::from).ok_or_else(|| ResourceError::NotPassed {
            field: field.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn wire() -> Result<Arc<Wire>, ResourceError> {
    Wire::new().map(Arc::new).map_err(ResourceError::Out)
}

fn open(field: &str, path: &Path, write: bool) -> Result<File, ResourceError> {
    File::options().read(true).write(write).open(path).map_err(|source| ResourceError::Open {
        field: field.to_owned(),
        path: path.to_owned(),
        source,
    })
}

//! Safe Linux for ZOS: every system call that std doesn't offer, with types around it.
//!
//! ```text
//!  read the machine        change the machine            talk
//!  cmdline  settings       mount    file systems         varlink    NUL-framed JSON, descriptors
//!  sysroot  a root path    loopdev  files as disks       activation sockets and pipes from PID 1
//!  block    disks, uevents dm       device-mapper        kmsg       the kernel's log
//!  clock    time           tap      VM links             poll       epoll, signals, timers
//!  evdev    power button   cgroup   limits               console    words on screens
//!  pstore   crashes, marks process  spawn with a jail    watchdog   the machine's, fed
//!                          power    off, reboot
//!                          kexec    another kernel
//!                          btrfs    scrubs
//! ```
//!
//! This crate and the VMM hold the only `unsafe` code of the system. Nothing here decides:
//! a function does one thing to the machine and says what failed ([`Error`]).
//! Absent on purpose: netlink routes and nftables (netd's), GPT and probing of disks (storaged's),
//! any async runtime, any global state.

pub mod activation;
pub mod block;
pub mod btrfs;
pub mod cgroup;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod dm;
pub mod entropy;
pub mod error;
pub mod evdev;
pub mod kexec;
pub mod kmsg;
pub mod loopdev;
pub mod mount;
pub mod net;
pub mod poll;
pub mod power;
pub mod process;
pub mod pstore;
pub mod sysroot;
pub mod tap;
pub mod unix;
pub mod user;
pub mod varlink;
pub mod watchdog;

mod sys;

pub use error::{Context, Error, Result};
pub use sysroot::SysRoot;

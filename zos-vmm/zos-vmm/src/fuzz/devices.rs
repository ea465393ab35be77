//! Devices behind their transport. Whatever a script did: after a reset the device works.

use super::script::Script;
use crate::rate::Limiter;
use crate::virtio::balloon::{Balloon, Options};
use crate::virtio::blk::{self, Blk};
use crate::virtio::driver::{BUFFERS, Driver, MEMORY};
use crate::virtio::rng::Rng;
use std::os::unix::fs::FileExt;
use vm_memory::{Bytes, GuestAddress};
use zos_vmm_spec::IoEngine;

const SECTORS: u64 = 64;
const MARK: &[u8; 512] = &[0x5a; 512];

pub(super) fn rng(bytes: &[u8]) {
    let rng = Rng::default();
    let mut driver = Driver::new(rng.profile(), Box::new(rng));
    Script::new(bytes).play(&mut driver);
    again(&mut driver);
    assert_eq!(driver.request(&[(BUFFERS, 64, true)]), 64);
}

/// Pages go back, memory that is no page's stays.
pub(super) fn balloon(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let target = u64::from(script.byte()) << 12;
    let options = Options { target, deflate_on_oom: true, reporting: true };
    let balloon = Balloon::new(options, MEMORY as u64).unwrap();
    let counters = balloon.profile().counters;
    let mut driver = Driver::new(balloon.profile(), Box::new(balloon));
    script.play(&mut driver);
    again(&mut driver);
    driver.memory.write_obj(BUFFERS >> 12, GuestAddress(BUFFERS + 0x1000)).unwrap();
    driver.memory.write_obj(1u8, GuestAddress(BUFFERS)).unwrap();
    assert_eq!(driver.request(&[(BUFFERS + 0x1000, 4, false)]), 0);
    let gone: u8 = driver.memory.read_obj(GuestAddress(BUFFERS)).unwrap();
    assert_eq!(gone, 0, "a page that was given back reads as zeros");
    assert!(counters.read()["actual_bytes"] <= MEMORY as u64);
}

/// A disk that ends with a sector of marks behind what the guest may reach.
pub(super) fn blk(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let choice = script.byte();
    let readonly = choice & 1 == 1;
    let engine = if choice & 2 == 0 { IoEngine::Sync } else { IoEngine::Auto };
    let file = std::fs::File::from(
        rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
    );
    file.set_len(SECTORS * 512).unwrap();
    let serial = [0; 20];
    let options = blk::Options { readonly, serial, queues: 1, engine, limiter: Limiter::default() };
    let blk = Blk::new(file.try_clone().unwrap(), &options).unwrap();
    // What the file grew by afterwards is no part of the disk.
    file.write_all_at(MARK, SECTORS * 512).unwrap();
    let (profile, mut parts) = (blk.profile(), blk.into_parts());
    let (_, part) = parts.remove(0);
    let mut driver = Driver::new(profile, part);
    script.play(&mut driver);
    again(&mut driver);
    // A read of the first sector: header, data, status.
    driver.memory.write_slice(&[0; 16], GuestAddress(BUFFERS)).unwrap();
    let (data, status) = (BUFFERS + 0x1000, BUFFERS + 0x8000);
    let used = driver.request(&[(BUFFERS, 16, false), (data, 512, true), (status, 1, true)]);
    let ended: u8 = driver.memory.read_obj(GuestAddress(status)).unwrap();
    assert_eq!((used, ended), (513, 0));
    let (mut behind, mut first) = ([0; 512], [0; 512]);
    file.read_exact_at(&mut behind, SECTORS * 512).unwrap();
    assert_eq!(&behind, MARK, "written behind its end");
    assert_eq!(file.metadata().unwrap().len(), (SECTORS + 1) * 512);
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(!readonly || first == [0; 512], "a read-only disk was written");
}

/// A reset, and the way of a good driver.
fn again(driver: &mut Driver) {
    driver.reset();
    assert_eq!(driver.status(), 0);
    driver.start(0);
}

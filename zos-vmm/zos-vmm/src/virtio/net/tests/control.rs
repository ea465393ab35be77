//! The control queue, as a kernel uses it and as none would.

use super::*;
use crate::pci::Function;
use crate::virtio::driver::BUFFERS;
use crate::virtio::net::features::{
    F_CTRL_GUEST_OFFLOADS, F_CTRL_VQ, F_GUEST_CSUM, F_GUEST_TSO4, F_MQ,
};
use crate::virtio::net::tap::Told;
use std::os::fd::AsRawFd;

const FEATURES: u64 = F_CTRL_VQ | F_MQ | F_CTRL_GUEST_OFFLOADS | F_GUEST_CSUM | F_GUEST_TSO4;
const OK: u8 = 0;
const ERROR: u8 = 1;

/// Sends a command on this queue; its answer.
fn command(driver: &mut Driver, queue: u32, command: &[u8]) -> u8 {
    driver.memory.write_slice(command, GuestAddress(BUFFERS)).unwrap();
    driver.memory.write_obj(0xaau8, GuestAddress(BUFFERS + 0x100)).unwrap();
    let index = queue as usize;
    let before = driver.queues[index].used().len();
    driver.queues[index]
        .offer(&[(BUFFERS, command.len() as u32, false), (BUFFERS + 0x100, 1, true)]);
    driver.kick(queue);
    driver.wait(|driver| driver.queues[index].used().len() > before);
    assert_eq!(driver.queues[index].used()[before].1, 1);
    driver.memory.read_obj(GuestAddress(BUFFERS + 0x100)).unwrap()
}

fn pairs(driver: &mut Driver, queue: u32, count: u16) -> u8 {
    let [a, b] = count.to_le_bytes();
    command(driver, queue, &[4, 0, a, b])
}

fn offloads(driver: &mut Driver, queue: u32, features: u64) -> u8 {
    command(driver, queue, &[&[5, 0][..], &features.to_le_bytes()].concat())
}

/// What the tap was told since the last look, with pairs for descriptors: they stand in a row of
/// the numbers that their attaching shows.
fn told(record: &Record) -> Vec<Told> {
    std::mem::take(&mut *record.lock().unwrap())
}

#[test]
fn a_kernel_uses_more_pairs_and_fewer() {
    let cable = Cable::new(4, &spec(None));
    let taps: Vec<usize> = (0..4)
        .map(|pair| {
            use std::os::fd::AsFd;
            cable.net.shared.steering.tap(pair).as_fd().as_raw_fd().unsigned_abs() as usize
        })
        .collect();
    let (mut driver, wires, record) = cable.driver();
    let mut config = [0; 10];
    driver.function.bar_read(0x2000, &mut config);
    assert_eq!(config, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 4, 0]);
    driver.start(FEATURES);
    assert_eq!(pairs(&mut driver, 8, 3), OK);
    // A part may come later than the command; then it attaches.
    let attached = [Told::Attached(taps[1], true), Told::Attached(taps[2], true)];
    let mut heard = Vec::new();
    driver.wait(|_| {
        heard.extend(told(&record));
        attached.iter().all(|told| heard.contains(told))
    });
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert_eq!(heard[0], Told::Offloads(3));
    // The third pair receives and sends by itself.
    driver.queues[4].offer(&[(BUFFERS + 0x1000, 2000, true)]);
    driver.kick(4);
    put_on(&wires[2], &[3; 100]);
    driver.wait(|driver| driver.queues[4].used() == [(0, 100)]);
    driver.memory.write_slice(&ipv4_from([10, 0, 0, 2], 88), GuestAddress(BUFFERS)).unwrap();
    driver.queues[5].offer(&[(BUFFERS, 100, false)]);
    driver.kick(5);
    driver.wait(|driver| driver.queues[5].used() == [(0, 0)]);
    assert_eq!(take_off(&wires[2]).map(|frame| frame.len()), Some(100));
    assert_eq!(take_off(&wires[0]), None);
    assert_eq!(pairs(&mut driver, 8, 2), OK);
    assert_eq!(told(&record), [Told::Attached(taps[2], false)]);
    // The same again changes nothing, and so takes no lock of the host.
    assert_eq!(pairs(&mut driver, 8, 2), OK);
    assert_eq!(told(&record), []);
    driver.reset();
    assert_eq!(told(&record), [Told::Attached(taps[1], false)]);
    // The next driver begins with one.
    driver.start(FEATURES);
    assert_eq!(pairs(&mut driver, 8, 1), OK);
    assert_eq!(told(&record), []);
}

#[test]
fn what_no_kernel_asks_is_not_done() {
    let (mut driver, _wires, record) = Cable::new(2, &spec(None)).driver();
    driver.start(FEATURES);
    for count in [0, 3, 0xffff] {
        assert_eq!(pairs(&mut driver, 4, count), ERROR, "{count}");
    }
    let taken = F_GUEST_CSUM | F_GUEST_TSO4;
    for features in [taken | 1 << 8, 1, u64::MAX, F_MQ] {
        assert_eq!(offloads(&mut driver, 4, features), ERROR, "{features:#x}");
    }
    for wrong in [
        &[4u8][..],
        &[4, 0],
        &[4, 0, 2],
        &[4, 0, 2, 0, 0],
        &[4, 1, 2, 0],
        &[5, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 1],
        &[1, 1, 0, 0, 0, 0, 0, 1],
        &[255; 64],
    ] {
        assert_eq!(command(&mut driver, 4, wrong), ERROR, "{wrong:?}");
    }
    // Without a byte for the answer, and without a command.
    driver.queues[4].offer(&[(BUFFERS, 4, false)]);
    driver.queues[4].offer(&[(BUFFERS + 0x100, 1, true)]);
    let before = driver.queues[4].used().len();
    driver.kick(4);
    driver.wait(|driver| driver.queues[4].used().len() >= before.min(14) + 2);
    assert_eq!(told(&record), [Told::Offloads(3)]);
}

#[test]
fn offloads_change_while_it_runs() {
    let (mut driver, _wires, record) = Cable::new(1, &spec(None)).driver();
    driver.start(FEATURES & !F_MQ);
    assert_eq!(offloads(&mut driver, 2, 0), OK);
    assert_eq!(offloads(&mut driver, 2, F_GUEST_CSUM), OK);
    assert_eq!(offloads(&mut driver, 2, F_GUEST_CSUM), OK);
    let expected = [Told::Offloads(3), Told::Offloads(0), Told::Offloads(1)];
    assert_eq!(told(&record), expected);
    // It is a single pair: there is nothing to set.
    assert_eq!(pairs(&mut driver, 2, 1), ERROR);
}

#[test]
fn what_was_not_agreed_on_is_not_done() {
    let (mut driver, _wires, record) = Cable::new(1, &spec(None)).driver();
    driver.start(F_CTRL_VQ | F_GUEST_CSUM);
    assert_eq!(offloads(&mut driver, 2, 0), ERROR);
    assert_eq!(told(&record), [Told::Offloads(1)]);
}

/// A driver that knows one pair only has its control queue third (5.1.2), where others have the
/// second pair's receive queue.
#[test]
fn a_driver_of_one_pair_finds_its_control_queue() {
    let (mut driver, wires, record) = Cable::new(3, &spec(None)).driver();
    driver.start_with(FEATURES & !F_MQ, &[0, 1, 2]);
    assert_eq!(offloads(&mut driver, 2, F_GUEST_CSUM), OK);
    assert_eq!(pairs(&mut driver, 2, 2), ERROR);
    assert_eq!(told(&record), [Told::Offloads(3), Told::Offloads(1)]);
    settle(&mut driver);
    driver.queues[0].offer(&[(BUFFERS + 0x1000, 2000, true)]);
    driver.kick(0);
    put_on(&wires[0], &[3; 100]);
    driver.wait(|driver| driver.queues[0].used() == [(0, 100)]);
}

/// A driver may leave queues alone; their pairs get no frames.
#[test]
fn pairs_that_are_not_there_are_not_attached() {
    let (mut driver, _wires, record) = Cable::new(4, &spec(None)).driver();
    driver.start_with(FEATURES, &[0, 1, 2, 3, 8]);
    assert_eq!(pairs(&mut driver, 8, 4), OK);
    driver.wait(|_| record.lock().unwrap().len() == 2);
    assert!(matches!(told(&record)[..], [Told::Offloads(3), Told::Attached(_, true)]));
    // With a half of its first pair it is no interface.
    driver.reset();
    driver.start_with(FEATURES, &[0, 2, 3, 8]);
    driver.wait(|driver| driver.status() & 64 != 0);
}

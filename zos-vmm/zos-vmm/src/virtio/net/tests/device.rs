//! The whole device with its threads: resets, rates, links.

use super::*;
use crate::virtio::driver::BUFFERS;
use std::time::{Duration, Instant};

/// A thousand frames a second, four at once.
fn slow() -> Option<Rate> {
    let bucket = |per_second, burst| Some(Bucket { per_second, burst });
    Some(Rate { bytes: bucket(1_000_000, 100_000), operations: bucket(1000, 4) })
}

#[test]
fn frames_of_a_driver_before_are_not_for_the_next() {
    let (mut driver, wires, _) = Cable::new(1, &spec(None)).driver();
    driver.start(F_MRG_RXBUF);
    settle(&mut driver);
    driver.queues[0].offer(&[(BUFFERS, 2000, true)]);
    driver.kick(0);
    put_on(&wires[0], &[1; 100]);
    driver.wait(|driver| driver.queues[0].used().len() == 1);
    // No chains are there for these, and a chain that is there is not for the next driver.
    put_on(&wires[0], &[2; 101]);
    put_on(&wires[0], &[3; 102]);
    driver.queues[0].offer(&[(BUFFERS + 0x1000, 2000, true)]);
    driver.reset();
    driver.start(F_MRG_RXBUF);
    driver.queues[0].offer(&[(BUFFERS, 2000, true)]);
    driver.queues[0].offer(&[(BUFFERS + 0x1000, 2000, true)]);
    driver.kick(0);
    settle(&mut driver);
    assert!(driver.queues[0].used().is_empty());
    put_on(&wires[0], &[4; 103]);
    put_on(&wires[0], &[5; 103]);
    driver.wait(|driver| driver.queues[0].used().len() == 2);
    assert_eq!(driver.queues[0].used(), [(0, 103), (1, 103)]);
}

#[test]
fn a_reset_takes_the_frame_that_waits_for_tokens() {
    let mut spec = spec(None);
    let operations = Some(Bucket { per_second: 1, burst: 1 });
    spec.transmit_rate = Some(Rate { bytes: None, operations });
    let cable = Cable::new(1, &spec);
    let counters = cable.net.profile().counters;
    let (mut driver, wires, _) = cable.driver();
    driver.start(0);
    let frame = ipv4_from([10, 0, 0, 2], 88);
    driver.memory.write_slice(&frame, GuestAddress(BUFFERS)).unwrap();
    driver.queues[1].offer(&[(BUFFERS, 100, false)]);
    driver.queues[1].offer(&[(BUFFERS, 100, false)]);
    driver.kick(1);
    driver.wait(|driver| counters.read()["throttled"] == 1 && driver.queues[1].used().len() == 1);
    driver.reset();
    assert!(take_off(&wires[0]).is_some() && take_off(&wires[0]).is_none());
}

/// Everything arrives, and no sooner than the rate allows: neither a lost wake-up nor a free ride.
#[test]
fn rates_hold_and_nothing_is_lost() {
    let mut spec = spec(None);
    (spec.receive_rate, spec.transmit_rate) = (slow(), slow());
    let cable = Cable::new(1, &spec);
    let counters = cable.net.profile().counters;
    let (mut driver, wires, _) = cable.driver();
    driver.start(F_MRG_RXBUF);
    settle(&mut driver);
    let begin = Instant::now();
    driver.memory.write_slice(&ipv4_from([10, 0, 0, 2], 88), GuestAddress(BUFFERS)).unwrap();
    for index in 0..14 {
        driver.queues[1].offer(&[(BUFFERS, 100, false)]);
        driver.queues[0].offer(&[(BUFFERS + 0x1000 * (index + 1), 2000, true)]);
    }
    driver.kick(0);
    driver.kick(1);
    for _ in 0..10 {
        put_on(&wires[0], &[4; 103]);
    }
    driver
        .wait(|driver| driver.queues[0].used().len() == 10 && driver.queues[1].used().len() == 15);
    // Fourteen less the four at once take ten thousandths of a second at least.
    assert!(begin.elapsed() >= Duration::from_millis(10));
    assert_eq!(std::iter::from_fn(|| take_off(&wires[0])).count(), 14);
    let counts = counters.read();
    assert_eq!((counts["tx_frames"], counts["rx_frames"]), (14, 10));
    assert!(counts["throttled"] > 0);
}

#[test]
fn several_frames_make_one_interrupt() {
    let (mut driver, wires, _) = Cable::new(1, &spec(None)).driver();
    driver.start(F_MRG_RXBUF | crate::virtio::F_EVENT_IDX);
    // The driver wants to hear of the first used buffer (used_event 0) and of none behind it.
    settle(&mut driver);
    driver.messages.0.lock().unwrap().clear();
    for index in 0..8 {
        driver.queues[0].offer(&[(BUFFERS + 0x1000 * index, 2000, true)]);
    }
    for _ in 0..8 {
        put_on(&wires[0], &[4; 103]);
    }
    driver.kick(0);
    driver.wait(|driver| driver.queues[0].used().len() == 8);
    driver.reset();
    let messages = driver.messages.0.lock().unwrap();
    assert_eq!(messages.iter().filter(|vector| **vector == 0).count(), 1);
}

#[test]
fn a_broken_ring_asks_for_a_reset() {
    let (mut driver, _wires, _) = Cable::new(2, &spec(None)).driver();
    for queue in [0, 1, 2, 3, 4] {
        driver.start(features::F_MQ | features::F_CTRL_VQ);
        driver.queues[queue].set_available(9000);
        driver.kick(queue as u32);
        driver.wait(|driver| driver.status() & 64 != 0);
        driver.reset();
    }
    driver.start(0);
    assert_eq!(driver.status() & 64, 0);
}

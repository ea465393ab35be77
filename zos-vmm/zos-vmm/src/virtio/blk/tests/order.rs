//! A part with an engine that does what the test says: results in parts, in any order, or never.

use super::super::disk::{Disk, Range};
use super::super::engine::Operation;
use super::super::request::Request;
use super::*;
use crate::virtio::driver::{self, GuestQueue};
use crate::virtio::{Activation, ActiveQueue, Backend, Broken, Share};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

/// What the engine was told, and what it holds.
#[derive(Debug, Default)]
struct State {
    /// Each operation with the bytes of its pieces.
    log: Vec<(Operation, usize)>,
    held: VecDeque<Box<Request>>,
    finished: VecDeque<(Box<Request>, io::Result<usize>)>,
    waits: usize,
}

#[derive(Clone, Debug, Default)]
struct Puppet(Arc<Mutex<State>>);

impl Puppet {
    /// The nth held request is done.
    fn finish(&self, index: usize, result: Result<usize, i32>) {
        let mut state = self.0.lock().unwrap();
        let request = state.held.remove(index).unwrap();
        state.finished.push_back((request, result.map_err(io::Error::from_raw_os_error)));
    }

    fn log(&self) -> Vec<(Operation, usize)> {
        self.0.lock().unwrap().log.clone()
    }

    fn waits(&self) -> usize {
        self.0.lock().unwrap().waits
    }
}

impl Engine for Puppet {
    fn depth(&self) -> usize {
        4
    }

    fn start(&mut self, request: Box<Request>) {
        let mut state = self.0.lock().unwrap();
        let entry = (request.operation(), request.pieces().bytes());
        state.log.push(entry);
        state.held.push_back(request);
    }

    fn submit(&mut self) -> bool {
        true
    }

    fn finished(&mut self) -> Option<(Box<Request>, io::Result<usize>)> {
        self.0.lock().unwrap().finished.pop_front()
    }

    /// The oldest is done wholly.
    fn wait(&mut self) {
        let bytes = {
            let mut state = self.0.lock().unwrap();
            state.waits += 1;
            state.held.front().map(|request| request.pieces().bytes())
        };
        if let Some(bytes) = bytes {
            self.finish(0, Ok(bytes));
        }
    }

    fn holds(&self) -> usize {
        let state = self.0.lock().unwrap();
        state.held.len() + state.finished.len()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Setup {
    part: Part,
    puppet: Puppet,
    queue: GuestQueue,
    memory: crate::memory::GuestMemory,
}

impl Setup {
    fn new(limiter: Limiter) -> Self {
        let disk = Arc::new(Disk::new(file(), false, [0; 20]).unwrap());
        let (puppet, memory) = (Puppet::default(), driver::memory());
        let engine = Box::new(puppet.clone());
        let counters = Counters::new(count::NAMES);
        let part = Part { disk, engine, limiter, counters, bounce: None, active: None };
        let queue = GuestQueue::new(&memory, 0);
        let mut setup = Self { part, puppet, queue, memory };
        setup.activate();
        setup
    }

    fn activate(&mut self) {
        let activation = Activation {
            memory: self.memory.clone(),
            queues: vec![Some(ActiveQueue::new(0, self.queue.queue()))],
            features: F_FLUSH,
            interrupt: driver::interrupt(),
            kicks: Vec::new(),
        };
        self.part.activate(activation).unwrap();
    }

    /// A request with a header, data and status of its own; tells its head.
    fn offer(&mut self, slot: u64, kind: u32, sector: u64, data: Buffer) -> u16 {
        let (header, status) = (HEADER + slot * 64, STATUS + slot);
        self.memory.write_obj(kind, GuestAddress(header)).unwrap();
        self.memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
        self.memory.write_obj(0xeeu8, GuestAddress(status)).unwrap();
        self.queue.offer(&[(header, 16, false), data, (status, 1, true)])
    }

    fn write(&mut self, slot: u64, sector: u64) -> u16 {
        self.offer(slot, 1, sector, (DATA, 512, false))
    }

    fn flush(&mut self, slot: u64) -> u16 {
        self.offer(slot, 4, 0, (DATA, 0, false))
    }

    fn status(&self, slot: u64) -> u8 {
        self.memory.read_obj(GuestAddress(STATUS + slot)).unwrap()
    }

    fn go(&mut self) {
        assert_eq!(self.part.kicked(0), Ok(Share::Done));
    }

    fn used(&self) -> usize {
        self.queue.used().len()
    }
}

fn write_at(at: u64) -> Operation {
    Operation::Write { at, durable: false }
}

#[test]
fn a_transfer_in_parts_goes_on_behind_each_part() {
    /// Results, calls (offset, bytes), the status.
    type Row = (&'static [Result<usize, i32>], &'static [(u64, usize)], u8);
    let rows: [Row; 6] = [
        (&[Ok(1536)], &[(0, 1536)], 0),
        (&[Ok(700), Ok(836)], &[(0, 1536), (700, 836)], 0),
        (&[Ok(1), Ok(1024), Ok(511)], &[(0, 1536), (1, 1535), (1025, 511)], 0),
        // A part, then an error: nothing of it is done twice.
        (&[Ok(700), Err(libc::EIO)], &[(0, 1536), (700, 836)], 1),
        (&[Ok(700), Ok(0)], &[(0, 1536), (700, 836)], 1),
        (&[Err(libc::EINTR), Err(libc::EAGAIN), Ok(1536)], &[(0, 1536); 3], 0),
    ];
    for (results, calls, status) in rows {
        for (kind, writable) in [(0, true), (1, false)] {
            let mut setup = Setup::new(Limiter::default());
            setup.offer(0, kind, 0, (DATA, 1536, writable));
            setup.go();
            for result in results {
                setup.puppet.finish(0, *result);
                setup.part.ready(0).unwrap();
            }
            let expected = calls.iter().map(|(at, bytes)| match kind {
                0 => (Operation::Read(*at), *bytes),
                _ => (write_at(*at), *bytes),
            });
            assert_eq!(setup.puppet.log(), expected.collect::<Vec<_>>());
            assert_eq!((setup.status(0), setup.used()), (status, 1));
        }
    }
}

#[test]
fn a_call_that_is_always_interrupted_ends() {
    let mut setup = Setup::new(Limiter::default());
    setup.write(0, 0);
    setup.go();
    while setup.used() == 0 {
        setup.puppet.finish(0, Err(libc::EINTR));
        setup.part.ready(0).unwrap();
    }
    assert_eq!((setup.status(0), setup.puppet.log().len()), (1, 17));
}

#[test]
fn a_head_under_way_that_comes_again_breaks_the_queue_and_nothing_else() {
    let mut setup = Setup::new(Limiter::default());
    let head = setup.write(0, 0);
    setup.write(1, 1);
    setup.go();
    assert_eq!(setup.puppet.log().len(), 2);
    setup.queue.offer_head(head);
    assert_eq!(setup.part.kicked(0), Err(Broken::Twice));
    // What was under way was waited for, and nothing went back to a driver that lies.
    assert_eq!((setup.puppet.waits(), setup.part.engine.holds(), setup.used()), (2, 0, 0));
    setup.part.reset();
    setup.memory.write_slice(&vec![0; 0x2_0000], GuestAddress(0x1_0000)).unwrap();
    setup.queue = GuestQueue::new(&setup.memory, 0);
    setup.activate();
    setup.write(0, 5);
    setup.go();
    setup.puppet.finish(0, Ok(512));
    setup.part.ready(0).unwrap();
    assert_eq!((setup.status(0), setup.used()), (0, 1));
}

#[test]
fn a_head_that_came_back_may_come_again() {
    let mut setup = Setup::new(Limiter::default());
    let head = setup.write(0, 0);
    for round in 1..4 {
        setup.go();
        setup.puppet.finish(0, Ok(512));
        setup.part.ready(0).unwrap();
        assert_eq!(setup.used(), round);
        setup.queue.offer_head(head);
    }
}

#[test]
fn requests_come_back_in_any_order() {
    let mut setup = Setup::new(Limiter::default());
    let heads: Vec<u16> = (0..4).map(|slot| setup.write(slot, slot)).collect();
    setup.go();
    for index in [2, 0, 1, 0] {
        setup.puppet.finish(index, Ok(512));
        setup.part.ready(0).unwrap();
    }
    let back: Vec<u32> = setup.queue.used().into_iter().map(|(head, _)| head).collect();
    assert_eq!(back, [heads[2], heads[0], heads[3], heads[1]].map(u32::from));
}

#[test]
fn a_flush_goes_when_the_writes_before_it_are_done() {
    let mut setup = Setup::new(Limiter::default());
    setup.write(0, 0);
    setup.write(1, 1);
    setup.flush(2);
    setup.write(3, 3);
    setup.go();
    // The write behind the flush doesn't wait, the flush does.
    let writes = [0, 512, 1536].map(|at| (write_at(at), 512));
    assert_eq!(setup.puppet.log(), writes);
    setup.puppet.finish(1, Ok(512));
    setup.part.ready(0).unwrap();
    assert_eq!(setup.puppet.log().len(), 3);
    setup.puppet.finish(0, Ok(512));
    setup.part.ready(0).unwrap();
    assert_eq!(setup.puppet.log().last(), Some(&(Operation::Flush, 0)));
    // A failed write is a write that is done; a second flush waits for the third write alone.
    setup.flush(4);
    setup.go();
    assert_eq!(setup.puppet.log().len(), 4);
    setup.puppet.finish(0, Err(libc::EIO));
    setup.part.ready(0).unwrap();
    assert_eq!(setup.puppet.log().len(), 5);
    setup.puppet.finish(0, Ok(0));
    setup.puppet.finish(0, Ok(0));
    setup.part.ready(0).unwrap();
    let statuses: Vec<u8> = (0..5).map(|slot| setup.status(slot)).collect();
    assert_eq!(statuses, [0, 0, 0, 1, 0]);
}

#[test]
fn no_more_is_loaded_than_the_engine_takes() {
    let mut setup = Setup::new(Limiter::default());
    for slot in 0..5 {
        setup.write(slot, slot);
    }
    setup.go();
    assert_eq!(setup.puppet.log().len(), 4);
    setup.puppet.finish(0, Ok(512));
    setup.part.ready(0).unwrap();
    assert_eq!((setup.puppet.log().len(), setup.used()), (5, 1));
}

#[test]
fn rest_waits_for_everything_and_gives_it_back() {
    let mut setup = Setup::new(Limiter::default());
    setup.write(0, 0);
    setup.flush(1);
    setup.write(2, 2);
    setup.go();
    setup.part.rest().unwrap();
    assert_eq!((setup.part.engine.holds(), setup.used()), (0, 3));
    assert_eq!([0, 1, 2].map(|slot| setup.status(slot)), [0, 0, 0]);
    // It goes on as it was.
    setup.write(3, 3);
    setup.go();
    assert_eq!(setup.puppet.log().last(), Some(&(write_at(1536), 512)));
}

#[test]
fn reset_waits_and_forgets() {
    let mut setup = Setup::new(Limiter::default());
    setup.write(0, 0);
    setup.flush(1);
    setup.go();
    setup.part.reset();
    assert_eq!((setup.puppet.waits(), setup.part.engine.holds(), setup.used()), (1, 0, 0));
    assert_eq!(setup.part.kicked(0), Ok(Share::Done));
}

#[test]
fn what_a_rate_holds_back_waits_for_its_alarm() {
    let hour = Some(Bucket { per_second: 1, burst: 3600 });
    let mut setup = Setup::new(Limiter::new(Some(Rate { bytes: hour, operations: None })));
    for slot in 0..3 {
        setup.offer(slot, 1, slot, (DATA, 2048, false));
    }
    setup.go();
    // The first took 2048 of 3600; the second has minutes to wait, and the third waits behind it.
    assert_eq!(setup.puppet.log().len(), 1);
    let alarm = setup.part.alarm().unwrap();
    assert!(alarm > std::time::Instant::now() + std::time::Duration::from_secs(60));
    assert_eq!(setup.part.counters.read()["throttled"], 1);
    setup.go();
    setup.part.rang().unwrap();
    assert_eq!(setup.puppet.log().len(), 1);
    // A pause and a reset don't wait for it.
    setup.part.rest().unwrap();
    assert_eq!(setup.used(), 1);
    setup.part.reset();
    assert_eq!(setup.part.alarm(), None);
}

#[test]
fn a_way_that_is_not_supported_leads_to_another() {
    use super::super::disk::Clear::{self, Discard, Hole, Zeros};
    /// Type, flags, on a device?, what is tried (all but the last refused as unsupported), and how
    /// the last one ends.
    type Row = (u32, u32, bool, &'static [Clear], Result<usize, i32>, u8);
    let rows: [Row; 9] = [
        // A file system without zero ranges gets a hole; without holes there is nothing left.
        (13, 0, false, &[Zeros, Hole], Ok(0), 0),
        (13, 0, false, &[Zeros, Hole], Err(libc::EOPNOTSUPP), 2),
        (13, 1, false, &[Hole], Err(libc::EOPNOTSUPP), 2),
        (11, 0, false, &[Hole], Err(libc::EOPNOTSUPP), 2),
        (11, 0, false, &[Hole], Err(libc::EIO), 1),
        // A device that can't unmap (dm-crypt) writes zeros.
        (13, 1, true, &[Hole, Zeros], Ok(0), 0),
        (13, 1, true, &[Hole, Zeros], Err(libc::EIO), 1),
        (13, 0, true, &[Zeros], Err(libc::EOPNOTSUPP), 2),
        (11, 0, true, &[Discard], Err(libc::EOPNOTSUPP), 2),
    ];
    for (kind, flags, is_device, tried, end, status) in rows {
        let mut setup = Setup::new(Limiter::default());
        let disk = Disk::new(file(), false, [0; 20]).unwrap();
        setup.part.disk = Arc::new(Disk { is_device, ..disk });
        for (at, word) in [(0, 0u32), (4, 0), (8, 8), (12, flags)] {
            setup.memory.write_obj(word, GuestAddress(DATA + at)).unwrap();
        }
        setup.offer(0, kind, 0, (DATA, 16, false));
        setup.go();
        for index in 0..tried.len() {
            let is_last = index + 1 == tried.len();
            setup.puppet.finish(0, if is_last { end } else { Err(libc::EOPNOTSUPP) });
            setup.part.ready(0).unwrap();
        }
        let ways: Vec<Operation> = setup.puppet.log().into_iter().map(|(way, _)| way).collect();
        let range = Range { offset: 0, bytes: 4096 };
        assert_eq!(ways, tried.iter().map(|way| Operation::Clear(*way, range)).collect::<Vec<_>>());
        assert_eq!((setup.status(0), setup.used()), (status, 1), "{kind} {flags} {is_device}");
    }
}

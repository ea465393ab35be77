//! The front-end, against the back-end of another project, and against hostile ones.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use crate::virtio::driver::{BUFFERS, Driver};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::thread::JoinHandle;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

const PROTOCOL: u64 = 1 << 30;

/// Writes back what it reads, backwards.
struct Mirror {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    acknowledges: bool,
}

impl VhostUserBackendMut for Mirror {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        3
    }
    fn max_queue_size(&self) -> usize {
        1024
    }
    fn features(&self) -> u64 {
        // Among them one that no guest of ours is to hear of.
        F_VERSION_1 | F_INDIRECT_DESC | PROTOCOL | 1
    }
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let ack = VhostUserProtocolFeatures::REPLY_ACK;
        let many = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        if self.acknowledges { many | ack } else { many }
    }
    fn set_event_idx(&mut self, _: bool) {}
    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }
    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }
    fn handle_event(
        &mut self,
        queue: u16,
        _: EventSet,
        rings: &[VringMutex],
        _: usize,
    ) -> io::Result<()> {
        let memory = self.memory.memory();
        let mut ring = rings[usize::from(queue)].get_mut();
        let chains: Vec<_> = ring.get_queue_mut().iter(memory.clone()).unwrap().collect();
        for chain in chains {
            let (head, mut bytes, mut written) = (chain.head_index(), Vec::new(), 0);
            for buffer in chain {
                let mut part = vec![0; buffer.len() as usize];
                if buffer.is_write_only() {
                    bytes.reverse();
                    memory.write_slice(&bytes, buffer.addr()).unwrap();
                    written = bytes.len() as u32;
                } else {
                    memory.read_slice(&mut part, buffer.addr()).unwrap();
                    bytes.append(&mut part);
                }
            }
            ring.add_used(head, written).unwrap();
        }
        ring.signal_used_queue()
    }
}

/// A mirror, and our socket to it.
fn mirror(acknowledges: bool) -> (UnixStream, VhostUserDaemon<Arc<Mutex<Mirror>>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirror");
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mirror = Mirror { memory: memory.clone(), acknowledges };
    let mirror = Arc::new(Mutex::new(mirror));
    let mut daemon = VhostUserDaemon::new("mirror".to_owned(), mirror, memory).unwrap();
    let mut listener = Listener::new(&path, true).unwrap();
    let socket = UnixStream::connect(&path).unwrap();
    daemon.start(&mut listener).unwrap();
    (socket, daemon)
}

fn driver(socket: UnixStream, queues: u16) -> Driver {
    let fs = Fs::new("home", queues, socket).unwrap();
    Driver::new(fs.profile(), Box::new(fs))
}

/// A request whose answer is the request backwards.
fn reflects(driver: &mut Driver, queue: usize, text: &[u8]) {
    driver.memory.write_slice(text, GuestAddress(BUFFERS)).unwrap();
    let length = text.len() as u32;
    let answer = BUFFERS + 0x1000;
    let written = driver.request_on(queue, &[(BUFFERS, length, false), (answer, length, true)]);
    assert_eq!(written, length);
    let mut bytes = vec![0; text.len()];
    driver.memory.read_slice(&mut bytes, GuestAddress(answer)).unwrap();
    assert!(bytes.iter().rev().eq(text));
}

#[test]
fn requests_reach_the_back_end_and_answers_the_guest() {
    for acknowledges in [true, false] {
        let (socket, _daemon) = mirror(acknowledges);
        let fs = Fs::new("home", 2, socket).unwrap();
        let profile = fs.profile();
        assert_eq!(profile.features, F_VERSION_1 | F_INDIRECT_DESC);
        let mut driver = Driver::new(profile, Box::new(fs));
        let mut config = [0; 44];
        driver.function_read(0x2000, &mut config);
        assert_eq!(&config[..5], b"home\0");
        assert_eq!(&config[36..], [2, 0, 0, 0, 0, 0, 0, 0]);
        driver.start(0);
        for queue in [1, 2, 0] {
            driver.messages.0.lock().unwrap().clear();
            reflects(&mut driver, queue, b"what a mirror does");
            // A ring that starts may also say so.
            driver.wait(|driver| driver.messages.0.lock().unwrap().contains(&(queue as u32)));
        }
    }
}

#[test]
fn a_reset_stops_and_a_new_driver_starts_again() {
    let (socket, _daemon) = mirror(true);
    let mut driver = driver(socket, 2);
    for _ in 0..20 {
        driver.start(0);
        reflects(&mut driver, 1, b"one");
        reflects(&mut driver, 1, b"two");
        driver.reset();
    }
    // Without one of its queues.
    assert!(driver.start_with(0, &[0, 2]));
    reflects(&mut driver, 2, b"three");
}

#[test]
fn a_pause_holds_requests_and_loses_none() {
    let (socket, _daemon) = mirror(true);
    let mut driver = driver(socket, 1);
    driver.start(0);
    reflects(&mut driver, 1, b"before");
    driver.workers[0].pause();
    driver.memory.write_slice(b"x", GuestAddress(BUFFERS)).unwrap();
    driver.queues[1].offer(&[(BUFFERS, 1, false), (BUFFERS + 16, 1, true)]);
    driver.kick(1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(driver.queues[1].used_count(), 1);
    driver.workers[0].resume();
    driver.wait(|driver| driver.queues[1].used_count() == 2);
    reflects(&mut driver, 1, b"after");
}

#[test]
fn more_queues_than_it_has_are_refused() {
    let (socket, _daemon) = mirror(true);
    let error = Fs::new("home", 3, socket).unwrap_err();
    assert!(matches!(error, FsError::Queues { wanted: 3, has: 2, .. }), "{error}");
}

#[test]
fn a_back_end_that_ends_takes_only_its_device_along() {
    let (socket, daemon) = mirror(true);
    let mut driver = driver(socket, 1);
    driver.start(0);
    reflects(&mut driver, 1, b"alive");
    daemon.request_shutdown();
    driver.wait(|driver| driver.status() & 64 != 0);
    driver.reset();
    assert_eq!(driver.status(), 0);
    // It doesn't come back, but nothing hangs.
    driver.start_with(0, &[0, 1]);
    driver.wait(|driver| driver.status() & 64 != 0);
    driver.reset();
}

/// Against the real one, where the environment names it: a program of another workspace member.
#[test]
fn zos_virtiofsd_answers_the_guest() {
    let Some(program) = std::env::var_os("ZOS_TEST_VIRTIOFSD") else {
        eprintln!("skipped: ZOS_TEST_VIRTIOFSD doesn't name a zos-virtiofsd");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut command = std::process::Command::new(program);
    let server = command.arg("--socket-path").arg(&path).arg("--shared-dir").arg(dir.path());
    let mut server = server.spawn().unwrap();
    let socket = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        UnixStream::connect(&path).ok()
    });
    let mut driver = driver(socket.unwrap(), 1);
    for round in 1..4u64 {
        driver.start(0);
        // FUSE_INIT, version 7.38.
        let words = [104, 26, 1, 0, 0, 0, 0, 0, 0, 0, 7, 38].map(u32::to_le_bytes).concat();
        driver.memory.write_slice(&words, GuestAddress(BUFFERS)).unwrap();
        let answer = BUFFERS + 0x1000;
        let written = driver.request_on(1, &[(BUFFERS, 104, false), (answer, 80, true)]);
        let told: [u32; 5] = std::array::from_fn(|index| {
            driver.memory.read_obj(GuestAddress(answer + index as u64 * 4)).unwrap()
        });
        assert_eq!((written, told), (80, [80, 0, 1, 0, 7]), "round {round}");
        driver.reset();
    }
    drop(driver);
    assert!(server.wait().unwrap().success());
}

/// What a scripted back-end does at a request.
#[derive(Clone, Debug)]
enum Deed {
    /// As it should.
    Right,
    /// Nothing more, but it stays.
    Silence,
    /// These bytes in place of an answer.
    Bytes(Vec<u8>),
    /// The right answer and more.
    Chatter,
    /// Ends.
    Close,
    /// An answer of the right length whose number is wrong.
    Other,
}

/// A back-end that does as it should but at requests of one kind.
fn scripted(wrong: FrontendReq, deed: Deed) -> (UnixStream, JoinHandle<()>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        loop {
            let mut header = [0; 12];
            if theirs.read_exact(&mut header).is_err() {
                return;
            }
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let mut body = vec![0; word(8) as usize];
            theirs.read_exact(&mut body).unwrap();
            let request = word(0);
            let is = |kind: FrontendReq| request == u32::from(kind);
            let value = if is(FrontendReq::GET_FEATURES) {
                Some(F_VERSION_1 | PROTOCOL)
            } else if is(FrontendReq::GET_PROTOCOL_FEATURES) {
                Some(1 | 1 << 3)
            } else if is(FrontendReq::GET_QUEUE_NUM) {
                Some(2)
            } else if is(FrontendReq::GET_VRING_BASE) {
                Some(u64::from_ne_bytes(body[..8].try_into().unwrap()))
            } else {
                (word(4) & 8 != 0).then_some(0)
            };
            let frame = |value: u64| {
                let words = [request, 1 | 4, 8].map(u32::to_ne_bytes).concat();
                [words, value.to_ne_bytes().to_vec()].concat()
            };
            let deed = if is(wrong) { deed.clone() } else { Deed::Right };
            let answer = match deed {
                Deed::Right => value.map(frame).unwrap_or_default(),
                Deed::Silence => {
                    // Until the front-end has had enough.
                    let _ = theirs.read(&mut [0]);
                    return;
                }
                Deed::Bytes(bytes) => bytes,
                Deed::Chatter => [value.map(frame).unwrap_or_default(), vec![0; 64]].concat(),
                Deed::Close => return,
                Deed::Other => frame(u64::MAX),
            };
            if theirs.write_all(&answer).is_err() {
                return;
            }
        }
    });
    (ours, thread)
}

fn deeds() -> Vec<Deed> {
    let frame = |words: [u32; 3], body: &[u8]| {
        Deed::Bytes([&words.map(u32::to_ne_bytes).concat(), body].concat())
    };
    vec![
        Deed::Silence,
        Deed::Close,
        Deed::Bytes(vec![1]),
        // Another request, no answer, no version, a length that is too large or too small.
        frame([77, 5, 8], &[0; 8]),
        frame([1, 1, 8], &[0; 8]),
        frame([1, 4, 8], &[0; 8]),
        frame([1, 5, u32::MAX], &[0; 8]),
        frame([1, 5, 0], &[]),
        frame([11, 5, 1 << 20], &vec![0; 1 << 20]),
    ]
}

#[test]
fn a_bad_greeting_is_an_error() {
    for request in [
        FrontendReq::GET_FEATURES,
        FrontendReq::GET_PROTOCOL_FEATURES,
        FrontendReq::GET_QUEUE_NUM,
        FrontendReq::SET_OWNER,
    ] {
        for deed in deeds() {
            let (socket, thread) = scripted(request, deed.clone());
            let result = Fs::greet("home", 1, socket, Duration::from_millis(200));
            assert!(result.is_err(), "{request:?} {deed:?}");
            drop(result);
            thread.join().unwrap();
        }
    }
    let (socket, thread) = scripted(FrontendReq::SET_OWNER, Deed::Other);
    let error = Fs::greet("home", 1, socket, Duration::from_secs(5)).unwrap_err();
    let FsError::Talk { source: TalkError::Refused { .. }, .. } = error else {
        panic!("{error}");
    };
    thread.join().unwrap();
}

#[test]
fn a_back_end_that_fails_later_costs_its_device() {
    for request in [
        FrontendReq::SET_FEATURES,
        FrontendReq::SET_MEM_TABLE,
        FrontendReq::SET_VRING_ADDR,
        FrontendReq::SET_VRING_KICK,
        FrontendReq::SET_VRING_ENABLE,
    ] {
        for deed in deeds().into_iter().chain([Deed::Other, Deed::Chatter]) {
            let (socket, thread) = scripted(request, deed.clone());
            let fs = Fs::greet("home", 1, socket, Duration::from_millis(200)).unwrap();
            let mut driver = Driver::new(fs.profile(), Box::new(fs));
            driver.start_with(0, &[0, 1]);
            driver.wait(|driver| driver.status() & 64 != 0);
            driver.reset();
            drop(driver);
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_back_end_that_does_not_stop_is_given_up() {
    for deed in deeds().into_iter().chain([Deed::Other]) {
        let (socket, thread) = scripted(FrontendReq::GET_VRING_BASE, deed.clone());
        let fs = Fs::greet("home", 1, socket, Duration::from_millis(200)).unwrap();
        let mut driver = Driver::new(fs.profile(), Box::new(fs));
        driver.start(0);
        assert_eq!(driver.status(), 15);
        driver.reset();
        assert_eq!(driver.status(), 0);
        driver.start_with(0, &[0, 1]);
        driver.wait(|driver| driver.status() & 64 != 0);
        drop(driver);
        thread.join().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes for a greeting: an end, and no panic.
    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&bytes).unwrap();
        drop(theirs);
        prop_assert!(Fs::greet("home", 1, ours, Duration::from_millis(200)).is_err());
    }
}

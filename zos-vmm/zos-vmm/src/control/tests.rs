//! Every request in every state, with machines that are none; and many clients at once, with
//! machines of simulated vCPUs.

use super::*;
use crate::api::http::Head;
use crate::api::{Calls, Limits, Server, http, routes};
use crate::machine::{Bell, Cpu, Cpus};
use crate::stats::{Exit, Stats};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What was done to the machines, in order.
type Diary = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct Toys {
    diary: Diary,
    /// Making one fails.
    broken: Arc<AtomicBool>,
}

struct Toy {
    diary: Diary,
    lifecycle: Arc<Lifecycle>,
    held_up: bool,
}

impl Maker for Toys {
    type Guest = Toy;

    fn make(&mut self, spec: &Spec) -> Result<Toy, Box<dyn Error>> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("no such kernel".into());
        }
        self.diary.lock().unwrap().push("make".into());
        let lifecycle = Arc::new(Lifecycle::new()?);
        Ok(Toy { diary: self.diary.clone(), lifecycle, held_up: spec.cmdline == "held up" })
    }

    fn retire(&mut self, _: Toy, ending: &Ending) {
        self.diary.lock().unwrap().push(format!("retire {}", ending.word()));
    }
}

impl Toy {
    fn note(&self, what: &str) {
        self.diary.lock().unwrap().push(what.to_owned());
    }
}

impl Guest for Toy {
    fn pause(&mut self) -> Result<(), Box<dyn Error>> {
        self.note("pause");
        if self.held_up { Err("a vCPU is held up".into()) } else { Ok(()) }
    }

    fn resume(&mut self) {
        self.note("resume");
    }

    fn press_power_button(&mut self) {
        self.note("press");
    }

    fn inflate(&mut self, bytes: u64) -> Option<Result<(), Box<dyn Error>>> {
        (bytes != 1).then(|| if bytes < 100 { Ok(()) } else { Err("too many".into()) })
    }

    fn given_back(&self) -> u64 {
        1 << 20
    }

    fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        [("disk0".to_owned(), [("reads".to_owned(), 7)].into())].into()
    }

    fn slots(&self) -> BTreeMap<String, u16> {
        [("disk0".to_owned(), 31)].into()
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }
}

const CONFIG: &str = r#"{"payload": {"kernel": "/k"}, "disks": [{"path": "/d"}]}"#;

/// What a client would hear: the status, and the words of a refusal.
fn ask<M: Maker>(vmm: &mut Vmm<M>, name: &str, body: &str) -> (u16, String, Next) {
    let gets = ["vmm.ping", "vm.info", "vm.counters"].contains(&name);
    let method = if gets { "GET" } else { "PUT" }.to_owned();
    let head = Head { method, path: format!("{}{name}", routes::ROOT), keep_alive: true };
    let (reply, next) = match routes::route(&head, body.as_bytes()) {
        Ok(request) => vmm.handle(request),
        Err(refusal) => (Err(refusal), None),
    };
    let text = String::from_utf8(http::answer(&reply, true)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned(), next)
}

/// A VMM in a state, by the requests that lead there.
fn vmm(reboot: Reboot, path: &[&str]) -> (Vmm<Toys>, Diary, Arc<AtomicBool>) {
    let toys = Toys::default();
    let (diary, broken) = (toys.diary.clone(), toys.broken.clone());
    let mut vmm = Vmm::new(toys, reboot);
    for name in path {
        let body = if *name == "vm.create" { CONFIG } else { "" };
        assert_eq!(ask(&mut vmm, name, body).0, 204, "{name}");
    }
    diary.lock().unwrap().clear();
    (vmm, diary, broken)
}

const NOTHING: &[&str] = &[];
const CREATED: &[&str] = &["vm.create"];
const RUNNING: &[&str] = &["vm.create", "vm.boot"];
const PAUSED: &[&str] = &["vm.create", "vm.boot", "vm.pause"];
const SHUT: &[&str] = &["vm.create", "vm.boot", "vm.shutdown"];

/// Statuses without a VM, Created, Running, Paused, and after `vm.shutdown`.
#[test]
fn each_request_in_each_state() {
    let rows: &[(&str, &str, [u16; 5])] = &[
        ("vmm.ping", "", [200; 5]),
        ("vmm.shutdown", "", [204; 5]),
        ("vm.info", "", [404, 200, 200, 200, 200]),
        ("vm.create", CONFIG, [204, 500, 500, 500, 500]),
        ("vm.delete", "", [204; 5]),
        ("vm.boot", "", [404, 204, 500, 204, 204]),
        ("vm.pause", "", [500, 500, 204, 500, 500]),
        ("vm.resume", "", [500, 500, 500, 204, 500]),
        ("vm.shutdown", "", [500, 500, 204, 204, 500]),
        ("vm.reboot", "", [500, 500, 204, 204, 500]),
        ("vm.power-button", "", [500, 500, 204, 204, 500]),
        ("vm.counters", "", [500, 500, 200, 200, 500]),
        ("vm.resize", r#"{"desired_balloon": 5}"#, [500, 500, 204, 204, 500]),
    ];
    for (name, body, statuses) in rows {
        let states = [NOTHING, CREATED, RUNNING, PAUSED, SHUT];
        for (path, expected) in states.into_iter().zip(statuses) {
            let (mut vmm, _, _) = vmm(Reboot::InPlace, path);
            let (status, words, _) = ask(&mut vmm, name, body);
            assert_eq!(status, *expected, "{name} after {path:?}: {words}");
            let list: Result<Vec<String>, _> = serde_json::from_str(&words);
            assert_eq!(list.is_ok_and(|list| !list.is_empty()), status >= 400, "{words}");
        }
    }
}

#[test]
fn what_a_client_asks_for_happens_to_the_machine() {
    for (path, name, happened, state) in [
        (CREATED, "vm.boot", &["make"][..], Some(State::Running)),
        (PAUSED, "vm.boot", &["resume"], Some(State::Running)),
        (PAUSED, "vm.resume", &["resume"], Some(State::Running)),
        (RUNNING, "vm.pause", &["pause"], Some(State::Paused)),
        (RUNNING, "vm.power-button", &["press"], Some(State::Running)),
        (RUNNING, "vm.reboot", &["retire reboot", "make"], Some(State::Running)),
        (PAUSED, "vm.reboot", &["retire reboot", "make"], Some(State::Running)),
        (RUNNING, "vm.shutdown", &["retire poweroff"], Some(State::Created)),
        (PAUSED, "vm.delete", &["retire poweroff"], None),
        (NOTHING, "vm.delete", &[], None),
        (RUNNING, "vmm.shutdown", &["retire poweroff"], Some(State::Created)),
    ] {
        let (mut vmm, diary, _) = vmm(Reboot::InPlace, path);
        let (_, _, next) = ask(&mut vmm, name, "");
        assert_eq!(*diary.lock().unwrap(), happened, "{name} after {path:?}");
        assert_eq!(next, (name == "vmm.shutdown").then_some(Ending::PowerOff));
        let info = match vmm.handle(Request::Info).0 {
            Ok(Answer::Info(info)) => Some(info.state),
            _ => None,
        };
        assert_eq!(info, state, "{name} after {path:?}");
    }
}

#[test]
fn what_is_told_of_a_vm() {
    let (mut vmm, _, _) = vmm(Reboot::InPlace, RUNNING);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let info = json(&ask(&mut vmm, "vm.info", "").1);
    assert_eq!(info["memory_actual_size"], 511 << 20);
    assert_eq!(info["config"]["disks"][0]["path"], "/d");
    assert_eq!(info["device_tree"]["_disk0"]["pci_bdf"], "0000:00:1f.0");
    assert_eq!(json(&ask(&mut vmm, "vm.counters", "").1)["_disk0"]["reads"], 7);
    let ping = json(&ask(&mut vmm, "vmm.ping", "").1);
    assert_eq!(ping["pid"], std::process::id());
}

#[test]
fn refusals_have_their_words() {
    for (path, name, body, status, words) in [
        (RUNNING, "vm.resize", r#"{"desired_balloon": 500}"#, 500, "too many"),
        (RUNNING, "vm.resize", r#"{"desired_balloon": 1}"#, 500, "no balloon"),
        (RUNNING, "vm.resize", r#"{"desired_vcpus": 2}"#, 501, "keep their size"),
        (RUNNING, "vm.resize", r#"{"desired_ram": 2}"#, 501, "keep their size"),
        (RUNNING, "vm.resize", "{}", 400, "desired_balloon"),
        (RUNNING, "vm.resize", r#"{"wish": 2}"#, 400, "unknown field"),
        (NOTHING, "vm.create", "", 400, "needs a body"),
        (NOTHING, "vm.create", "{", 400, "EOF"),
        (NOTHING, "vm.create", r#"{"payload": {"kernel": "/k"}, "tpm": {}}"#, 400, "tpm: isn't"),
        (NOTHING, "vm.boot", "{}", 400, "takes no body"),
        (NOTHING, "vm.add-disk", r#"{"path": "/d"}"#, 501, "isn't there yet"),
        (NOTHING, "vm.snapshot", "", 501, "isn't there yet"),
        (NOTHING, "vm.fly", "", 404, "no such path"),
    ] {
        let (mut vmm, _, _) = vmm(Reboot::InPlace, path);
        let (told, text, _) = ask(&mut vmm, name, body);
        assert!(told == status && text.contains(words), "{name} {body}: {told} {text}");
    }
}

#[test]
fn a_machine_that_cannot_be_made_is_told() {
    let (mut vmm, _, broken) = vmm(Reboot::InPlace, RUNNING);
    broken.store(true, Ordering::SeqCst);
    let (status, words, next) = ask(&mut vmm, "vm.reboot", "");
    assert!(status == 500 && words.contains("no such kernel"), "{words}");
    assert!(matches!(next, Some(Ending::Failed(_))));

    let (mut vmm, _, broken) = self::vmm(Reboot::InPlace, CREATED);
    broken.store(true, Ordering::SeqCst);
    assert_eq!(ask(&mut vmm, "vm.boot", "").0, 500);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(ask(&mut vmm, "vm.boot", "").0, 204);
}

#[test]
fn one_that_is_held_up_goes_on_running() {
    let (mut vmm, _, _) = vmm(Reboot::InPlace, NOTHING);
    let config = r#"{"payload": {"kernel": "/k", "cmdline": "held up"}}"#;
    assert_eq!(ask(&mut vmm, "vm.create", config).0, 204);
    assert_eq!(ask(&mut vmm, "vm.boot", "").0, 204);
    let (status, words, _) = ask(&mut vmm, "vm.pause", "");
    assert!(status == 500 && words.contains("held up"), "{words}");
    assert!(ask(&mut vmm, "vm.info", "").1.contains("Running"));
}

/// In the jail the process is there for its VM, which came with the start.
#[test]
fn in_the_jail_the_process_ends_with_its_vm() {
    let jailed = || {
        let (mut vmm, diary, _) = vmm(Reboot::EndsProcess, NOTHING);
        vmm.start(translate::parse(CONFIG.as_bytes()).unwrap()).unwrap();
        diary.lock().unwrap().clear();
        (vmm, diary)
    };
    for (name, ending) in [
        ("vm.shutdown", Ending::PowerOff),
        ("vmm.shutdown", Ending::PowerOff),
        ("vm.delete", Ending::PowerOff),
        ("vm.reboot", Ending::Reboot),
    ] {
        let (mut vmm, diary) = jailed();
        let (status, _, next) = ask(&mut vmm, name, "");
        assert_eq!((status, next.as_ref()), (204, Some(&ending)), "{name}");
        assert_eq!(*diary.lock().unwrap(), [format!("retire {}", ending.word())]);
    }
    let (mut vmm, diary) = jailed();
    let (status, words, next) = ask(&mut vmm, "vm.create", CONFIG);
    assert!(status == 500 && words.contains("no path is opened"), "{words}");
    assert_eq!((next, diary.lock().unwrap().len()), (None, 0));
}

#[test]
fn a_guests_own_end() {
    for (ending, reboot, next, happened) in [
        (Ending::PowerOff, Reboot::InPlace, Some(Ending::PowerOff), &["retire poweroff"][..]),
        (Ending::PowerOff, Reboot::EndsProcess, Some(Ending::PowerOff), &["retire poweroff"]),
        (Ending::Reboot, Reboot::InPlace, None, &["retire reboot", "make"]),
        (Ending::Reboot, Reboot::EndsProcess, Some(Ending::Reboot), &["retire reboot"]),
    ] {
        let (mut vmm, diary, _) = vmm(reboot, NOTHING);
        vmm.start(translate::parse(CONFIG.as_bytes()).unwrap()).unwrap();
        diary.lock().unwrap().clear();
        assert_eq!(vmm.look(), None);
        vmm.lifecycle().unwrap().end(ending.clone());
        assert_eq!(vmm.look(), next, "{ending:?} {reboot:?}");
        assert_eq!(*diary.lock().unwrap(), happened);
    }
}

#[test]
fn a_signal_presses_the_button_also_of_one_at_rest() {
    for (path, next, happened) in [
        (NOTHING, Some(Ending::PowerOff), &[][..]),
        (CREATED, Some(Ending::PowerOff), &[]),
        (RUNNING, None, &["press"]),
        (PAUSED, None, &["resume", "press"]),
    ] {
        let (mut vmm, diary, _) = vmm(Reboot::InPlace, path);
        assert_eq!(vmm.terminate(), next, "{path:?}");
        assert_eq!(*diary.lock().unwrap(), happened, "{path:?}");
    }
}

/// Machines of simulated vCPUs, of which some end their VM.
struct Sim {
    made: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

struct SimGuest {
    cpus: Cpus,
    lifecycle: Arc<Lifecycle>,
}

struct SimCpu {
    bell: Arc<SimBell>,
    turns: usize,
}

#[derive(Default)]
struct SimBell(AtomicBool);

impl Bell for SimBell {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }
}

impl Cpu for SimCpu {
    fn run(&mut self) -> Result<Exit, Ending> {
        while !self.bell.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_micros(50));
            self.turns = self.turns.saturating_sub(1);
            if self.turns == 0 {
                return Err(Ending::Reboot);
            }
        }
        Ok(Exit::Other)
    }

    fn bell(&mut self) -> Arc<dyn Bell> {
        self.bell.clone()
    }
}

impl Maker for Sim {
    type Guest = SimGuest;

    fn make(&mut self, spec: &Spec) -> Result<SimGuest, Box<dyn Error>> {
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        let lifecycle = Arc::new(Lifecycle::new()?);
        let stats = Arc::new(Stats::new(Instant::now()));
        // Each third machine resets itself soon.
        let turns = if made % 3 == 2 { 40 } else { usize::MAX };
        let cpu = |_| -> Box<dyn Cpu> { Box::new(SimCpu { bell: Arc::default(), turns }) };
        let cpus = (0..spec.cpus).map(cpu).collect();
        Ok(SimGuest { cpus: Cpus::start(cpus, &lifecycle, &stats, || {})?, lifecycle })
    }

    fn retire(&mut self, guest: SimGuest, _: &Ending) {
        guest.cpus.stop().unwrap();
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

impl Guest for SimGuest {
    fn pause(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.cpus.pause()?)
    }

    fn resume(&mut self) {
        self.cpus.resume();
    }

    fn press_power_button(&mut self) {}

    fn inflate(&mut self, _: u64) -> Option<Result<(), Box<dyn Error>>> {
        None
    }

    fn given_back(&self) -> u64 {
        0
    }

    fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        BTreeMap::new()
    }

    fn slots(&self) -> BTreeMap<String, u16> {
        BTreeMap::new()
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }
}

/// The main thread's loop, as the program has it.
fn serve(calls: &Calls, mut vmm: Vmm<Sim>) {
    loop {
        if vmm.look().is_some() {
            return;
        }
        let Some((ticket, request)) = calls.take() else {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        };
        let (reply, next) = vmm.handle(request);
        calls.answer(ticket, reply);
        if next.is_some() {
            return;
        }
    }
}

fn status(client: &mut UnixStream, method: &str, name: &str, body: &str) -> u16 {
    let length = body.len();
    let path = format!("{}{name}", routes::ROOT);
    write!(client, "{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut rest = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    client.read_exact(&mut rest).unwrap();
    head[9..12].parse().unwrap()
}

/// Many clients ask for everything at random, while machines reset themselves: each request is
/// answered, and no machine is left. A deadlock shows as a test that doesn't end.
#[test]
fn many_clients_at_once_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api");
    let listener = UnixListener::bind(&path).unwrap();
    let limits = Limits { connections: 16, ..Limits::default() };
    let calls = Server::spawn(listener.into(), limits, || {}).unwrap();
    let (made, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let vmm = Vmm::new(Sim { made: made.clone(), gone: gone.clone() }, Reboot::InPlace);
    std::thread::scope(|scope| {
        let main = scope.spawn(move || serve(&calls, vmm));
        let clients: Vec<_> = (1..=8u64)
            .map(|client| {
                let path = &path;
                scope.spawn(move || {
                    let mut socket = UnixStream::connect(path).unwrap();
                    let mut dice = client;
                    for _ in 0..150 {
                        dice ^= dice << 13;
                        dice ^= dice >> 7;
                        dice ^= dice << 17;
                        let config = r#"{"payload": {"kernel": "/k"},
                            "cpus": {"boot_vcpus": 3, "max_vcpus": 3}}"#;
                        let (method, name, body) = match dice % 16 {
                            0..4 => ("PUT", "vm.create", config),
                            4..7 => ("PUT", "vm.boot", ""),
                            7..10 => ("PUT", "vm.pause", ""),
                            10..12 => ("PUT", "vm.resume", ""),
                            12 => ("PUT", "vm.reboot", ""),
                            13 => ("PUT", "vm.shutdown", ""),
                            14 => ("PUT", "vm.delete", ""),
                            _ => ("GET", "vm.info", ""),
                        };
                        let status = status(&mut socket, method, name, body);
                        assert!([200, 204, 404, 500].contains(&status), "{name}: {status}");
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        let mut last = UnixStream::connect(&path).unwrap();
        assert_eq!(status(&mut last, "PUT", "vmm.shutdown", ""), 204);
        main.join().unwrap();
    });
    let (made, gone) = (made.load(Ordering::SeqCst), gone.load(Ordering::SeqCst));
    assert!(made > 10 && made == gone, "{made} made, {gone} taken apart");
}

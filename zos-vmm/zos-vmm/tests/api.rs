//! The real program over its real socket, asked by curl and by bytes of our own, with guests of a
//! few bytes on real KVM.
//!
//! ```text
//!  curl --unix-socket, PUT /api/v1/vm.create {...} ─▶ zos-vmm --api-socket ─▶ KVM: out 0x80, al; pause
//!  LISTEN_FDS: spec kvm kernel api ──────────────────▶ zos-vmm (as in the jail)
//! ```
//!
//! Where KVM runs no guest, what needs one is skipped, and says so.
#![cfg(target_arch = "x86_64")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_zos-vmm");

/// Tells that its init runs, and spins.
const SPINS: &[u8] = &[0xb0, 0x41, 0xe6, 0x80, 0xf3, 0x90, 0xeb, 0xfc];
/// Powers itself off: 34 to port 600.
const POWERS_OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xeb, 0xfe];
/// Resets itself: fe to port 64.
const RESETS: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];

/// A kernel of this code: an ELF file with one segment at 16 MiB.
fn kernel(path: &Path, code: &[u8]) {
    const BASE: u64 = 0x100_0000;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, all: &[u16]| {
        all.iter().for_each(|half| file.extend(half.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, all: &[u32]| {
        all.iter().for_each(|word| file.extend(word.to_le_bytes()));
    };
    let longs = |file: &mut Vec<u8>, all: &[u64]| {
        all.iter().for_each(|long| file.extend(long.to_le_bytes()));
    };
    halves(&mut file, &[2, 62]);
    words(&mut file, &[1]);
    longs(&mut file, &[BASE, 64, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 1, 0, 0, 0]);
    words(&mut file, &[1, 5]);
    longs(&mut file, &[4096, BASE, BASE, code.len() as u64, code.len() as u64, 4096]);
    file.resize(4096, 0);
    file.extend(code);
    std::fs::write(path, file).unwrap();
}

/// A program that is killed when the test ends.
struct Vmm {
    child: Child,
    folder: tempfile::TempDir,
}

impl Vmm {
    /// With an API socket and these arguments besides.
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        kernel(&folder.path().join("spins"), SPINS);
        kernel(&folder.path().join("resets"), RESETS);
        kernel(&folder.path().join("powers-off"), POWERS_OFF);
        let child = Command::new(PROGRAM)
            .current_dir(folder.path())
            .args(["--api-socket", "api"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut vmm = Self { child, folder };
        // One that has ended serves nobody, and its test finds out.
        while UnixStream::connect(vmm.socket()).is_err() && vmm.child.try_wait().unwrap().is_none()
        {
            std::thread::yield_now();
        }
        vmm
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ask(&self, method: &str, name: &str, body: &str) -> (u16, String) {
        ask(UnixStream::connect(self.socket()).unwrap(), method, name, body)
    }

    fn put(&self, name: &str) -> u16 {
        self.ask("PUT", name, "").0
    }

    fn state(&self) -> String {
        let info = self.ask("GET", "vm.info", "").1;
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["state"].as_str().unwrap_or_default().to_owned()
    }

    fn create(&self, kernel: &str, cpus: u16) {
        let config = serde_json::json!({
            "cpus": {"boot_vcpus": cpus, "max_vcpus": cpus},
            "memory": {"size": 64 << 20},
            "payload": {"kernel": self.path(kernel)},
            "console": {"mode": "Off"},
            "balloon": {"size": 0},
        });
        let (status, words) = self.ask("PUT", "vm.create", &config.to_string());
        assert_eq!(status, 204, "{words}");
    }

    /// Boots; false, with words: this machine's KVM runs no guest.
    fn boots(&self) -> bool {
        let (status, words) = self.ask("PUT", "vm.boot", "");
        if status != 204 {
            eprintln!("skipped: no guest runs on this machine: {words}");
        }
        status == 204
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, std::fs::read_to_string(self.folder.path().join("log")).unwrap())
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(mut socket: UnixStream, method: &str, name: &str, body: &str) -> (u16, String) {
    let head = format!("{method} /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\n");
    let length = body.len();
    write!(socket, "{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{name}: {text:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// The example of Cloud Hypervisor's document for its interface, with what it lacks here named, then
/// as it can be had; each request of the document after it.
#[test]
fn the_documented_requests() {
    let vmm = Vmm::start(&[]);
    let old = r#"{"cpus":{"boot_vcpus": 4, "max_vcpus": 4},
        "kernel":{"path":"/opt/clh/kernel/vmlinux-virtio-fs-virtio-iommu"},
        "cmdline":{"args":"console=ttyS0 console=hvc0 root=/dev/vda1 rw"},
        "disks":[{"path":"/opt/clh/images/focal-server-cloudimg-amd64.raw"}],
        "rng":{"src":"/dev/urandom"},
        "net":[{"ip":"192.168.10.10", "mask":"255.255.255.0", "mac":"12:34:56:78:90:01"}]}"#;
    let (status, words) = vmm.ask("PUT", "vm.create", old);
    assert_eq!(status, 400);
    for field in ["payload.kernel", "net[0].ip", "net[0].tap"] {
        assert!(words.contains(field), "{words}");
    }
    let new = r#"{"cpus":{"boot_vcpus": 4, "max_vcpus": 4},
        "payload":{"kernel":"/opt/clh/kernel/vmlinux", "cmdline":"console=hvc0 root=/dev/vda1 rw"},
        "disks":[{"path":"/opt/clh/images/focal-server-cloudimg-amd64.raw"}],
        "rng":{"src":"/dev/urandom"},
        "net":[{"tap":"tap0", "mac":"12:34:56:78:90:01"}]}"#;
    assert_eq!(vmm.ask("PUT", "vm.create", new), (204, String::new()));
    assert_eq!(vmm.state(), "Created");
    let (status, words) = vmm.ask("PUT", "vm.boot", "");
    assert!(status == 500 && words.contains("open /opt/clh/kernel/vmlinux"), "{words}");
    for (name, status) in [
        ("vm.pause", 500),
        ("vm.resume", 500),
        ("vm.shutdown", 500),
        ("vm.reboot", 500),
        ("vm.power-button", 500),
        ("vm.snapshot", 501),
        ("vm.delete", 204),
        ("vm.boot", 404),
    ] {
        assert_eq!(vmm.put(name), status, "{name}");
    }
    let socket = vmm.socket();
    assert_eq!(vmm.put("vmm.shutdown"), 204);
    let (status, log) = vmm.end();
    assert_eq!((status.code(), log.as_str()), (Some(0), ""));
    assert!(!socket.exists());
}

#[test]
fn a_machines_life_in_one_process() {
    let vmm = Vmm::start(&[]);
    vmm.create("spins", 2);
    if !vmm.boots() {
        return;
    }
    for round in 0..5 {
        assert_eq!((vmm.put("vm.pause"), vmm.state().as_str()), (204, "Paused"));
        assert_eq!(vmm.put("vm.pause"), 500);
        // As Cloud Hypervisor does it, one that is paused is resumed by a boot.
        let resumes = if round % 2 == 0 { "vm.resume" } else { "vm.boot" };
        assert_eq!((vmm.put(resumes), vmm.state().as_str()), (204, "Running"));
        assert_eq!(vmm.put("vm.boot"), 500);
        if round == 2 {
            assert_eq!(vmm.put("vm.pause"), 204);
        }
        assert_eq!((vmm.put("vm.reboot"), vmm.state().as_str()), (204, "Running"));
    }
    let (status, counters) = vmm.ask("GET", "vm.counters", "");
    assert!(status == 200 && counters.contains("__vcpus"), "{counters}");
    assert_eq!(vmm.ask("PUT", "vm.resize", r#"{"desired_balloon": 1048576}"#).0, 204);
    assert_eq!(vmm.ask("PUT", "vm.resize", r#"{"desired_balloon": 134217728}"#).0, 500);
    assert_eq!((vmm.put("vm.shutdown"), vmm.state().as_str()), (204, "Created"));
    assert_eq!((vmm.put("vm.boot"), vmm.state().as_str()), (204, "Running"));
    assert_eq!(vmm.put("vm.power-button"), 204);
    assert_eq!(vmm.put("vm.delete"), 204);
    assert_eq!(vmm.ask("GET", "vm.info", "").0, 404);
    assert_eq!(vmm.put("vmm.shutdown"), 204);
    let (status, log) = vmm.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let ends = |word: &str| log.matches(&format!("zos-vmm: {word} after")).count();
    assert_eq!((ends("reboot"), ends("poweroff")), (5, 2), "{log}");
}

/// A guest that resets in a loop is made anew each time, and the VMM serves all the while.
#[test]
fn a_guest_that_resets_in_a_loop() {
    let vmm = Vmm::start(&[]);
    vmm.create("resets", 1);
    if !vmm.boots() {
        return;
    }
    let log = vmm.folder.path().join("log");
    while std::fs::read_to_string(&log).unwrap().matches("reboot after").count() < 5 {
        assert_eq!(vmm.state(), "Running");
    }
    assert_eq!((vmm.put("vm.shutdown"), vmm.state().as_str()), (204, "Created"));
    assert_eq!(vmm.put("vmm.shutdown"), 204);
    assert_eq!(vmm.end().0.code(), Some(0));
}

#[test]
fn a_guest_that_powers_off_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    kernel(&path, POWERS_OFF);
    let mut probe = Command::new(PROGRAM);
    let probe = probe.args(["--memory", "64M", "--kernel"]).arg(&path).output().unwrap();
    if probe.status.code() != Some(0) {
        let words = String::from_utf8_lossy(&probe.stderr);
        return eprintln!("skipped: no guest runs on this machine: {words}");
    }
    let vmm = Vmm::start(&[]);
    vmm.create("powers-off", 1);
    // The answer may come before or after the end.
    let mut socket = UnixStream::connect(vmm.socket()).unwrap();
    socket.write_all(b"PUT /api/v1/vm.boot HTTP/1.1\r\n\r\n").unwrap();
    let (status, log) = vmm.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("poweroff after"), "{log}");
}

/// SIGTERM presses the button, and ends a VMM that has no VM; a second Ctrl-C ends everything.
#[test]
fn signals() {
    let tell = |vmm: &Vmm, signal| {
        let process = Pid::from_raw(vmm.child.id().try_into().unwrap());
        kill(process, signal).unwrap();
    };
    let vmm = Vmm::start(&[]);
    tell(&vmm, Signal::SIGTERM);
    assert_eq!(vmm.end().0.code(), Some(0));

    // One that was named beside the socket is booted at once.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    kernel(&path, SPINS);
    if File::options().write(true).open("/dev/kvm").is_err() {
        return eprintln!("skipped: no /dev/kvm on this machine");
    }
    let path = path.display().to_string();
    let vmm = Vmm::start(&["--kernel", &path, "--memory", "64M", "--cpus", "boot=2"]);
    let (status, info) = match UnixStream::connect(vmm.socket()) {
        Ok(socket) => ask(socket, "GET", "vm.info", ""),
        Err(_) => return eprintln!("skipped: no guest runs on this machine: {}", vmm.end().1),
    };
    assert!(status == 200 && info.contains(r#""state":"Running""#), "{info}");
    assert_eq!(vmm.put("vm.pause"), 204);
    tell(&vmm, Signal::SIGTERM);
    // The button is pressed on a guest that runs.
    while vmm.state() != "Running" {
        std::thread::yield_now();
    }
    tell(&vmm, Signal::SIGINT);
    // Two at once would be one: the first has come when the VMM answers after it.
    assert_eq!(vmm.ask("GET", "vmm.ping", "").0, 200);
    tell(&vmm, Signal::SIGINT);
    let (status, log) = vmm.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("failed after") && log.contains("second Ctrl-C"), "{log}");
}

/// curl, which knows nothing of us: a large body (with `Expect: 100-continue`), keep-alive, errors.
#[test]
fn curl_is_served() {
    let vmm = Vmm::start(&[]);
    let socket = vmm.path("api");
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        let curl = curl.args(["-sS", "--unix-socket", &socket, "-w", " %{http_code}\n"]);
        let output = curl.args(arguments).output().ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let at = |name: &str| format!("http://localhost/api/v1/{name}");
    let Some(ping) = curl(&[&at("vmm.ping")]) else {
        return eprintln!("skipped: no curl on this machine");
    };
    assert!(ping.contains("\"build_version\"") && ping.ends_with(" 200\n"), "{ping}");
    let file = vmm.path("config.json");
    let mut config = r#"{"payload": {"kernel": "/k"}, "memory": {"size": 67108864}"#.to_owned();
    config += &" ".repeat(3 << 20);
    std::fs::write(&file, config + "}").unwrap();
    let body = format!("@{file}");
    let json = "Content-Type: application/json";
    let created = curl(&["-X", "PUT", "-H", json, "--data-binary", &body, &at("vm.create")]);
    assert_eq!(created.as_deref(), Some(" 204\n"));
    // One connection, three requests.
    let all = curl(&["-v", &at("vm.info"), &at("vm.fly"), &at("vmm.ping")]).unwrap();
    let statuses: Vec<&str> = all.lines().map(|line| &line[line.len() - 3..]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{all}");
    let chunked = ["-X", "PUT", "-H", "Transfer-Encoding: chunked", "-d", "{}", &at("vm.create")];
    assert!(curl(&chunked).unwrap().ends_with(" 501\n"));
}

/// The program as PID 1 starts it: descriptors instead of paths, and filters on.
struct Jailed {
    child: Child,
    folder: tempfile::TempDir,
}

impl Jailed {
    fn start(code: &[u8]) -> Option<Self> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm").ok()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        kernel(&path, code);
        let mut spec = tempfile::tempfile().unwrap();
        let text = r#"{"cpus": 2, "memory": 67108864, "kernel": {"fd": "kernel"}}"#;
        spec.write_all(text.as_bytes()).unwrap();
        spec.seek(SeekFrom::Start(0)).unwrap();
        let listener = UnixListener::bind(folder.path().join("api")).unwrap();
        let passed: [OwnedFd; 4] =
            [spec.into(), kvm.into(), File::open(&path).unwrap().into(), listener.into()];
        let numbers = passed.each_ref().map(AsRawFd::as_raw_fd);
        let mut command = Command::new(PROGRAM);
        command
            .env("LISTEN_FDS", "4")
            .env("LISTEN_FDNAMES", "spec:kvm:kernel:api")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap());
        // SAFETY: the child makes system calls alone before it executes the program.
        unsafe {
            command.pre_exec(move || {
                // First out of the way, so that none is overwritten.
                let high = numbers.map(|number| libc::fcntl(number, libc::F_DUPFD, 100));
                for (target, number) in (3..).zip(high) {
                    if libc::dup2(number, target) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Some(Self { child, folder })
    }

    fn ask(&self, method: &str, name: &str, body: &str) -> (u16, String) {
        let socket = UnixStream::connect(self.folder.path().join("api")).unwrap();
        ask(socket, method, name, body)
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, std::fs::read_to_string(self.folder.path().join("log")).unwrap())
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn in_the_jail_everything_works_but_paths() {
    for (name, code) in
        [("vm.reboot", 3), ("vm.shutdown", 0), ("vmm.shutdown", 0), ("vm.delete", 0)]
    {
        let Some(mut jailed) = Jailed::start(SPINS) else {
            return eprintln!("skipped: no /dev/kvm on this machine");
        };
        let mut socket = UnixStream::connect(jailed.folder.path().join("api")).unwrap();
        socket.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut info = String::new();
        let heard = socket.read_to_string(&mut info);
        if heard.is_err() || info.is_empty() {
            jailed.child.wait().unwrap();
            let log = std::fs::read_to_string(jailed.folder.path().join("log")).unwrap();
            return eprintln!("skipped: no guest runs on this machine: {log}");
        }
        assert!(
            info.contains(r#""state":"Running""#) && info.contains(r#""kernel":null"#),
            "{info}"
        );
        for _ in 0..3 {
            assert_eq!(jailed.ask("PUT", "vm.pause", "").0, 204);
            assert_eq!(jailed.ask("GET", "vm.counters", "").0, 200);
            assert_eq!(jailed.ask("PUT", "vm.resume", "").0, 204);
        }
        assert_eq!(jailed.ask("GET", "vmm.ping", "").0, 200);
        let config = r#"{"payload": {"kernel": "/etc/passwd"}}"#;
        let (status, words) = jailed.ask("PUT", "vm.create", config);
        assert!(status == 500 && words.contains("no path is opened"), "{words}");
        assert_eq!(jailed.ask("PUT", "vm.add-disk", r#"{"path": "/etc/passwd"}"#).0, 501);
        assert_eq!(jailed.ask("PUT", "vm.power-button", "").0, 204);
        assert_eq!(jailed.ask("PUT", name, "").0, 204, "{name}");
        let (status, log) = jailed.end();
        assert_eq!(status.code(), Some(code), "{name}: {status} {log}");
    }
}

//! A small world in namespaces: a provider, a router, the node, VMs.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netd::node::{Command as Ask, Node};
use netd::settings::Settings;
use nix::sched::{CloneFlags, setns};
use tokio::sync::{mpsc, oneshot, watch};
use zos_api::local::net::Tap;
use zos_daemon::{CallError, FaultBoard};
use zos_host::{SysRoot, tap};
use zos_types::machine::Network;
use zos_types::{TwinId, WorkloadName};

const TOOLS: [&str; 5] = ["unshare", "ip", "nft", "dnsmasq", "busybox"];

/// Runs a test in network and mount namespaces of its own, by calling this program again.
pub(crate) fn inside(name: &str, test: impl FnOnce()) {
    if std::env::var_os("ZOS_TEST_INSIDE").is_some() {
        return test();
    }
    let lacks = |tool: &&str| {
        !["/bin", "/sbin", "/usr/bin", "/usr/sbin"]
            .iter()
            .any(|dir| Path::new(dir).join(tool).exists())
    };
    let missing: Vec<&str> = TOOLS.into_iter().filter(lacks).collect();
    if !rustix::process::geteuid().is_root() || !missing.is_empty() {
        eprintln!("skipped: needs root and {}", TOOLS.join(", "));
        return;
    }
    let script = "mount --make-rprivate / && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run \
                  && mkdir -p /run/netns && ip link set lo up \
                  && exec \"$0\" --exact \"$1\" --include-ignored --nocapture";
    let status = Command::new("timeout")
        .args(["--kill-after=5", "120", "unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env("ZOS_TEST_INSIDE", "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .status()
        .unwrap();
    assert!(status.success(), "{name} inside its namespaces: {status}");
}

/// Runs a test of this program as netd's user, with its capabilities and no others.
pub(crate) fn as_user_net(name: &str) {
    let capabilities = "-all,+net_admin,+net_raw,+net_bind_service";
    let status = Command::new("setpriv")
        .args(["--reuid=112", "--regid=112", "--clear-groups", "--no-new-privs"])
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg(format!("--bounding-set={capabilities}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("ZOS_TEST_USER", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} as user net: {status}");
}

/// Runs a command line and gives its output.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until there is something, at most half a minute.
#[track_caller]
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs something in a namespace, on a thread of its own; the empty name is the node's.
pub(crate) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        if !name.is_empty() {
            let file = File::open(format!("/run/netns/{name}")).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        }
        work()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Whether a TCP connection from a namespace comes about.
pub(crate) fn connects(namespace: &str, target: &str) -> bool {
    let target: SocketAddr = target.parse().unwrap();
    in_namespace(namespace, || {
        TcpStream::connect_timeout(&target, Duration::from_millis(700)).is_ok()
    })
}

/// Whether a datagram from an address in a namespace arrives in another namespace, answers aside.
pub(crate) fn arrives(from: &str, source: IpAddr, to: &str, at: &str) -> bool {
    let receiver = in_namespace(to, || UdpSocket::bind(at).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    (0..7).any(|_| {
        in_namespace(from, || {
            // Without a neighbour or a route it can't even be sent.
            UdpSocket::bind((source, 0)).and_then(|socket| socket.send_to(b"x", at)).is_ok()
        });
        receiver.recv(&mut [0]).is_ok()
    })
}

/// The router, the provider, and what serves there.
pub(crate) struct World {
    folder: tempfile::TempDir,
    dhcp: RefCell<Option<Child>>,
}

impl World {
    pub(crate) fn start() -> Self {
        let world = Self::without_dhcp();
        world.start_dhcp();
        world
    }

    pub(crate) fn without_dhcp() -> Self {
        for line in [
            "ip netns add lan",
            "ip netns add inet",
            "ip link add eth0 type veth peer name lan0 netns lan",
            "ip -n lan link add up0 type veth peer name up1 netns inet",
            "ip -n lan addr add 192.168.77.1/24 dev lan0",
            "ip -n lan addr add fd77::1/64 dev lan0",
            "ip -n lan addr add 203.0.113.1/24 dev up0",
            "ip -n inet addr add 203.0.113.80/24 dev up1",
            "ip -n lan link set lo up",
            "ip -n lan link set lan0 up",
            "ip -n lan link set up0 up",
            "ip -n inet link set up1 up",
            "ip -n inet route add 192.168.77.0/24 via 203.0.113.1",
        ] {
            run(line);
        }
        // The node's kernel has no br_netfilter: what a bridge forwards is not seen by the inet table.
        for family in ["ip", "ip6", "arp"] {
            let _ =
                std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables"), "0");
        }
        in_namespace("lan", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        let world = Self { folder: tempfile::tempdir().unwrap(), dhcp: RefCell::new(None) };
        world.serve("inet", "203.0.113.80:80").forever();
        world.serve("lan", "192.168.77.1:80").forever();
        world
    }

    pub(crate) fn start_dhcp(&self) {
        self.start_dhcp_in("192.168.77");
    }

    /// A router that has become another: it leases and announces, and knows nothing of before.
    pub(crate) fn start_dhcp_in(&self, net: &str) {
        if let Some(mut child) = self.dhcp.borrow_mut().take() {
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = std::fs::remove_file(self.folder.path().join("leases"));
        }
        let child = Command::new("ip")
            .args(["netns", "exec", "lan", "dnsmasq", "--no-daemon", "--conf-file=/dev/null"])
            .args(["--no-hosts", "--no-resolv", "--interface=lan0", "--bind-interfaces"])
            .arg(format!("--dhcp-range={net}.50,{net}.99,255.255.255.0,2m"))
            .args(["--no-ping", "--enable-ra", "--dhcp-range=fd77::,ra-only"])
            .args(["--address=/www.zos.test/203.0.113.80", "--dhcp-authoritative", "--user=root"])
            .arg(format!("--dhcp-leasefile={}", self.folder.path().join("leases").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.dhcp.borrow_mut() = Some(child);
    }

    /// netd's own part, with its state where an earlier one left it.
    pub(crate) fn node(&self, nic: &str) -> Netd {
        self.node_with(Settings { nic: Some(nic.to_owned()), ..Settings::default() })
    }

    pub(crate) fn node_with(&self, settings: Settings) -> Netd {
        Netd::start(settings, &self.folder.path().join("state"))
    }

    /// Accepts connections in a namespace until it is dropped.
    pub(crate) fn serve(&self, namespace: &str, at: &str) -> Server {
        let at: SocketAddr = at.parse().unwrap();
        Server::start(in_namespace(namespace, || TcpListener::bind(at).unwrap()))
    }

    pub(crate) fn serve_here(&self, at: &str) -> Server {
        Server::start(TcpListener::bind(at).unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.dhcp.borrow_mut().take() {
            let _ = child.kill();
        }
    }
}

/// Accepts and closes.
pub(crate) struct Server(Arc<AtomicBool>);

impl Server {
    fn start(listener: TcpListener) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let _ = listener.accept();
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self(over)
    }

    fn forever(self) {
        std::mem::forget(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A life of netd's own part, on a thread.
pub(crate) struct Netd {
    commands: mpsc::Sender<Ask>,
    faults: FaultBoard,
    known: watch::Receiver<bool>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Netd {
    pub(crate) fn start(settings: Settings, state: &Path) -> Self {
        std::fs::create_dir_all(state).unwrap();
        let (commands, inbox) = mpsc::channel(4);
        let (tell, known) = watch::channel(false);
        let (kill, killed) = oneshot::channel();
        let faults = FaultBoard::default();
        let board = faults.clone();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let node = Node::new(SysRoot::host(), settings, board, inbox, tell).unwrap();
                tokio::select! {
                    () = node.run() => {}
                    _ = killed => {}
                }
            });
        });
        commands.blocking_send(Ask::State(state.into(), oneshot::channel().0)).unwrap();
        Self { commands, faults, known, kill: Some(kill), thread: Some(thread) }
    }

    /// Ends it between two awaits, with everything left as it is.
    pub(crate) fn kill(mut self) {
        self.kill.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Ask) -> T {
        let (reply, answer) = oneshot::channel();
        self.commands.blocking_send(command(reply)).unwrap();
        answer.blocking_recv().unwrap()
    }

    pub(crate) fn describe(&self) -> Network {
        self.ask(Ask::Describe)
    }

    pub(crate) fn list(&self) -> Vec<Tap> {
        until(|| self.known.borrow().then_some(()));
        self.ask(Ask::List)
    }

    pub(crate) fn open(&self, name: &str) -> Result<(Tap, OwnedFd), CallError> {
        let (tap, mut fds) = self.open_queues(name, 1)?;
        Ok((tap, fds.remove(0)))
    }

    pub(crate) fn open_queues(
        &self,
        name: &str,
        queues: u32,
    ) -> Result<(Tap, Vec<OwnedFd>), CallError> {
        until(|| self.known.borrow().then_some(()));
        self.ask(|reply| Ask::Open(twin(), workload(name), 0, queues, reply))
    }

    pub(crate) fn close(&self, name: &str) -> Result<(), CallError> {
        self.ask(|reply| Ask::Close(twin(), workload(name), reply))
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.list().into_iter().map(|fault| fault.id).collect()
    }
}

fn twin() -> TwinId {
    (0u8..=255).find_map(|n| TwinId::from_bytes([n; 32]).ok()).unwrap()
}

fn workload(name: &str) -> WorkloadName {
    format!("test/{name}").parse().unwrap()
}

/// A namespace that is connected as a VM is.
pub(crate) struct Vm {
    pub(crate) tap: Tap,
    name: String,
    over: Arc<AtomicBool>,
    pumps: Vec<thread::JoinHandle<()>>,
}

impl Vm {
    pub(crate) fn start(node: &Netd, name: &str) -> Self {
        let (tap, outside) = until(|| node.open(name).ok());
        let (inside, device) = tap::open(name).unwrap();
        run(&format!("ip netns add {name}"));
        run(&format!("ip link set {device} address {} netns {name}", tap.mac));
        run(&format!("ip -n {name} link set lo up"));
        run(&format!("ip -n {name} link set {device} up"));
        let over = Arc::new(AtomicBool::new(false));
        let (outside, inside) = (File::from(outside), File::from(inside));
        let pumps = vec![
            pump(outside.try_clone().unwrap(), inside.try_clone().unwrap(), &over),
            pump(inside, outside, &over),
        ];
        Self { tap, name: name.to_owned(), over, pumps }
    }

    /// Gets an address by DHCP, sets it and the way out, and tells the address.
    pub(crate) fn dhcp(&self) -> String {
        let name = &self.name;
        let script = format!("/run/{name}.sh");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr flush dev $interface\n\
                    ip addr add $ip/$mask dev $interface\nip route replace default via $router\n\
                    echo $ip > /run/$interface.address\n";
        std::fs::write(&script, text).unwrap();
        run(&format!("chmod +x {script}"));
        run(&format!(
            "ip netns exec {name} busybox udhcpc -i {name} -s {script} -n -q -f -t 5 -T 1"
        ));
        std::fs::read_to_string(format!("/run/{name}.address")).unwrap().trim().to_owned()
    }

    /// Asks the gateway for a name's address.
    pub(crate) fn resolve(&self, tcp: bool, name: &str) -> Option<Ipv4Addr> {
        let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let server = SocketAddr::from(([100, 64, 0, 1], 53));
        let answer = in_namespace(&self.name, || exchange(tcp, server, &query))?;
        assert_eq!(answer[..2], [0x12, 0x34]);
        let end: [u8; 4] = answer[answer.len() - 4..].try_into().unwrap();
        Some(end.into())
    }
}

fn exchange(tcp: bool, server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let patience = Some(Duration::from_secs(3));
    if tcp {
        let mut stream = TcpStream::connect(server).ok()?;
        stream.set_read_timeout(patience).unwrap();
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, query].concat()).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).ok()?;
        return Some(answer);
    }
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(patience).unwrap();
    socket.send_to(query, server).ok()?;
    let mut answer = vec![0; 512];
    let (length, from) = socket.recv_from(&mut answer).ok()?;
    assert_eq!(from, server);
    answer.truncate(length);
    Some(answer)
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
    }
}

/// Carries frames with their virtio-net headers from one tap to another.
fn pump(mut from: File, mut to: File, over: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        while !over.load(Ordering::Relaxed) {
            match from.read(&mut frame) {
                Ok(length) => drop(to.write(&frame[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    })
}

//! All nodes of a simulation: ports, folders, what is told, and the end.
//!
//! ```text
//!  options ─▶ limits ─▶ ports ─▶ nodes, a few threads each ─▶ addresses ─▶ Ctrl-C, SIGTERM ─▶ all off
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use zos_types::NodeId;

use crate::disks::Keys;
use crate::fault::Faults;
use crate::limits;
use crate::node::{self, News, Plan};
use crate::options::Options;
use crate::pid1::start_log;

/// How long all nodes together may take to come up, and to go down.
const UP: Duration = Duration::from_secs(120);
const DOWN: Duration = Duration::from_secs(20);

/// A node that is up.
#[derive(Clone, Debug)]
pub struct Up {
    /// From 1.
    pub number: u16,
    /// Who it is.
    pub id: NodeId,
    /// Where its API answers.
    pub address: SocketAddr,
    /// Where its local sockets lie: `init.sock`, `vm.sock` ...
    pub folder: PathBuf,
}

/// A simulation that is up. Dropped, its nodes go down, which is waited for.
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<Up>,
    stop: watch::Sender<bool>,
    news: mpsc::UnboundedReceiver<News>,
    threads: Vec<JoinHandle<()>>,
    places: Places,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // One that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }
}

impl Fleet {
    /// Starts all nodes; they are up when this returns. The log of the whole process goes to them, unless
    /// it goes elsewhere already.
    pub async fn start(options: &Options) -> Result<Self> {
        start_log(options.debug);
        limits::allow(options.nodes)?;
        let places = Places::new(options)?;
        let listeners = listen(options)?;
        let (stop, stopped) = watch::channel(false);
        let (tell, news) = mpsc::unbounded_channel();
        let (nodes, threads) = (Vec::new(), Vec::new());
        let mut fleet = Self { nodes, stop, news, threads, places };
        let mut addresses = BTreeMap::new();
        for (number, listener) in (1..).zip(listeners) {
            let plan = plan(options, &fleet.places, number, listener);
            addresses.insert(number, (reached(plan.listener.local_addr()?), plan.run.clone()));
            let started = node::start(plan, stopped.clone(), tell.clone());
            let started = started.with_context(|| format!("start a thread for node {number}"))?;
            fleet.threads.push(started);
        }
        drop(tell);
        let late = || format!("not all nodes came up within {} s; --debug shows why", UP.as_secs());
        timeout(UP, fleet.wait(addresses)).await.with_context(late)??;
        Ok(fleet)
    }

    async fn wait(&mut self, mut addresses: BTreeMap<u16, (SocketAddr, PathBuf)>) -> Result<()> {
        while !addresses.is_empty() {
            match self.news.recv().await {
                Some(News::Up(number, id)) => {
                    let Some((address, folder)) = addresses.remove(&number) else { continue };
                    self.nodes.push(Up { number, id, address, folder });
                }
                Some(News::Off(number, result)) => {
                    result.with_context(|| format!("node {number} failed"))?;
                    bail!("node {number} went off while it booted");
                }
                None => bail!("all nodes went off while they booted"),
            }
        }
        self.nodes.sort_by_key(|node| node.number);
        Ok(())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Up] {
        &self.nodes
    }

    /// Waits until all nodes are off by themselves, as farmers told them.
    pub async fn all_off(&mut self) -> Result<()> {
        while let Some(news) = self.news.recv().await {
            match news {
                News::Off(number, result) => {
                    result.with_context(|| format!("node {number} failed"))?;
                    eprintln!("node {number} is off");
                }
                News::Up(number, _) => eprintln!("node {number} has booted again"),
            }
        }
        Ok(())
    }

    /// Takes all nodes down in good order.
    pub async fn end(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let off = async { while self.news.recv().await.is_some() {} };
        let late = || format!("not all nodes went down within {} s", DOWN.as_secs());
        timeout(DOWN, off).await.with_context(late)
    }
}

/// Runs a simulation until it is told to end.
pub(crate) async fn run(options: &Options) -> Result<()> {
    // Before anything is started: a signal while nodes boot ends them too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told = pin!(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let mut fleet = tokio::select! {
        started = Fleet::start(options) => started?,
        () = &mut told => return Ok(()),
    };
    tell(options, fleet.nodes())?;
    tokio::select! {
        off = fleet.all_off() => return off,
        () = told => {}
    }
    fleet.end().await
}

fn tell(options: &Options, nodes: &[Up]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|Up { number, id, address, folder }| {
                let address = format!("{id}@{address}");
                serde_json::json!({ "number": number, "id": id, "address": address, "sockets": folder })
            })
            .collect();
        writeln!(out, "{}", serde_json::json!({ "nodes": nodes }))?;
        return Ok(out.flush()?);
    }
    for Up { number, id, address, .. } in nodes {
        writeln!(out, "node {number}  {id}@{address}")?;
    }
    if let Some(Up { id, address, .. }) = nodes.first() {
        let (export, show) = (format!("export ZOS_NODE={id}@{address}"), "zos node show");
        writeln!(out, "\nIn another terminal:\n\n    {export}\n    {show}\n")?;
    }
    writeln!(out, "Ctrl-C ends it.")?;
    Ok(out.flush()?)
}

/// How a node that listens here is reached from here.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// All ports, before any node starts.
fn listen(options: &Options) -> Result<Vec<TcpListener>> {
    let (first, last) =
        (u32::from(options.port), u32::from(options.port) + u32::from(options.nodes) - 1);
    if last > u32::from(u16::MAX) {
        bail!(
            "{} nodes from port {first} on end beyond port 65535: say a lower --port",
            options.nodes
        );
    }
    (0..options.nodes)
        .map(|index| {
            let port = if options.port == 0 { 0 } else { options.port + index };
            let address = SocketAddr::new(options.listen, port);
            let listener = TcpListener::bind(address).with_context(|| {
                format!(
                    "listen on {address}: is another node or simulation there? Say another \
                     --port; {} are needed from it on",
                    options.nodes
                )
            })?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .collect()
}

fn plan(options: &Options, places: &Places, number: u16, listener: TcpListener) -> Plan {
    Plan {
        number,
        disks: places.disks.join(format!("node-{number}")),
        run: places.folder.path().join(number.to_string()),
        hardware: options.hardware(),
        faults: Faults::of(&options.fault, number),
        settings: options.settings(),
        keys: Keys { seed: options.seed, number },
        latency: options.latency,
        listener,
    }
}

/// Where the simulation keeps its files.
#[derive(Debug)]
struct Places {
    /// Goes when the simulation ends.
    folder: TempDir,
    disks: PathBuf,
    /// Held as long as the state is used.
    _lock: Option<File>,
}

impl Places {
    fn new(options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("zos-sim-")
            .tempdir()
            .context("make a temporary folder; TMPDIR says where")?;
        let (disks, lock) = match &options.state {
            None => (folder.path().join("disks"), None),
            Some(state) => (std::path::absolute(state)?, Some(lock(state)?)),
        };
        Ok(Self { folder, disks, _lock: lock })
    }
}

/// Two simulations over one state would be two nodes with one key.
fn lock(state: &Path) -> Result<File> {
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let path = state.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "{} is in use by another simulation: end it, or say another --state",
            state.display()
        );
    }
    Ok(file)
}

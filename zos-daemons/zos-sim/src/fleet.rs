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

/// Runs a simulation until it is told to end.
pub(crate) async fn run(options: &Options) -> Result<()> {
    // Before anything is started: a signal while nodes boot ends them too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    start_log(options.debug);
    limits::allow(options.nodes)?;
    let places = Places::new(options)?;
    let listeners = listen(options)?;
    let ports: Vec<SocketAddr> =
        listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;

    let (stop, stopped) = watch::channel(false);
    let (tell, mut news) = mpsc::unbounded_channel();
    for (number, listener) in (1..).zip(listeners) {
        let plan = plan(options, &places, number, listener);
        node::start(plan, stopped.clone(), tell.clone())
            .with_context(|| format!("start node {number}: no thread can be had"))?;
    }
    drop(tell);

    let nodes = usize::from(options.nodes);
    let served = tokio::select! {
        served = serve(options, &ports, &mut news) => served,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    stop.send_replace(true);
    let off = async { while news.recv().await.is_some() {} };
    if timeout(DOWN, off).await.is_err() {
        bail!("not all of {nodes} nodes went down within {} s", DOWN.as_secs());
    }
    served
}

/// Tells the addresses when all are up, then waits until all are off.
async fn serve(
    options: &Options,
    ports: &[SocketAddr],
    news: &mut mpsc::UnboundedReceiver<News>,
) -> Result<()> {
    let ids = match timeout(UP, up(ports.len(), news)).await {
        Ok(ids) => ids?,
        Err(_) => bail!("not all nodes came up within {} s; --debug shows why", UP.as_secs()),
    };
    tell(options, ports, &ids)?;
    let mut on = ports.len();
    while on > 0 {
        match news.recv().await {
            Some(News::Off(number, result)) => {
                result.with_context(|| format!("node {number} failed"))?;
                on -= 1;
                eprintln!("node {number} is off");
            }
            Some(News::Up(number, _)) => eprintln!("node {number} has booted again"),
            None => break,
        }
    }
    Ok(())
}

async fn up(
    nodes: usize,
    news: &mut mpsc::UnboundedReceiver<News>,
) -> Result<BTreeMap<u16, NodeId>> {
    let mut ids = BTreeMap::new();
    while ids.len() < nodes {
        match news.recv().await {
            Some(News::Up(number, id)) => drop(ids.insert(number, id)),
            Some(News::Off(number, result)) => {
                result.with_context(|| format!("node {number} failed"))?;
                bail!("node {number} went off while it booted");
            }
            None => bail!("all nodes went off while they booted"),
        }
    }
    Ok(ids)
}

fn tell(options: &Options, ports: &[SocketAddr], ids: &BTreeMap<u16, NodeId>) -> Result<()> {
    let addresses: Vec<(u16, NodeId, String)> = ids
        .iter()
        .zip(ports)
        .map(|((number, id), port)| (*number, *id, format!("{id}@{}", reached(*port))))
        .collect();
    let mut out = std::io::stdout().lock();
    if options.json {
        let nodes: Vec<_> = addresses
            .iter()
            .map(|(number, id, address)| {
                serde_json::json!({ "number": number, "id": id, "address": address })
            })
            .collect();
        writeln!(out, "{}", serde_json::json!({ "nodes": nodes }))?;
    } else {
        for (number, _, address) in &addresses {
            writeln!(out, "node {number}  {address}")?;
        }
        if let Some((_, _, first)) = addresses.first() {
            writeln!(
                out,
                "\nIn another terminal:\n\n    export ZOS_NODE={first}\n    zos node show\n"
            )?;
        }
        writeln!(out, "Ctrl-C ends it.")?;
    }
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
            .context("make a folder for what lasts as long as the simulation")?;
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

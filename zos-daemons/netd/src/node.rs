//! The node's network: one task owns all of it, others ask.
//!
//! ```text
//!  netlink ── "something changed" ─┐
//!  frames for DHCP clients ────────┤                      ┌─▶ addresses, routes
//!  messages of guests ─────────────┼─▶ Node: look ─▶ settle ─▶ firewall, then bridge, then taps
//!  calls (OpenTap …) ──────────────┤                      └─▶ faults, name servers
//!  time ───────────────────────────┘
//! ```
//! The order is the safety: an uplink gets its address only after the rules know its network, a tap
//! is made only after the rules pin it, and packets are forwarded only while the rules stand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use zos_api::local::net::Tap;
use zos_daemon::store::{Copies, Store};
use zos_daemon::{CallError, FaultBoard, Owner, View};
use zos_host::{SysRoot, clock};
use zos_types::machine::{Link, Network};
use zos_types::{Fault, TwinId, WorkloadName};

use crate::firewall::State;
use crate::kernel::{Held, Kernel, KernelError, sysctl};
use crate::links::{self, mac_text};
use crate::nat::Nat;
use crate::settings::Settings;
use crate::uplink::{Frame, Uplink};
use crate::{firewall, nft, vm};

/// What failed is tried again so often.
const RETRY: Duration = Duration::from_secs(5);
/// After a start, and without an answer, so long before a fault is shown.
const GRACE: Duration = Duration::from_secs(10);

/// A tap, and a descriptor for each of its queues.
pub type Opened = (Tap, Vec<OwnedFd>);

/// What others ask of the network.
#[derive(Debug)]
pub enum Command {
    /// How it is.
    Describe(oneshot::Sender<Network>),
    /// A VM's tap: whose, which of its networks, with how many queues.
    Open(TwinId, WorkloadName, u32, u32, oneshot::Sender<Result<Opened, CallError>>),
    /// Every tap.
    List(oneshot::Sender<Vec<Tap>>),
    /// Forget a VM's taps.
    Close(TwinId, WorkloadName, oneshot::Sender<Result<(), CallError>>),
    /// Where the state lies.
    State(Copies, oneshot::Sender<Option<Store>>),
}

/// What there is, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Network cards in use.
    pub uplinks: usize,
    /// Of them, those that have an address or are to have it.
    pub leases: usize,
    /// Taps of VMs.
    pub taps: usize,
}

/// The network's owner.
#[derive(Debug)]
pub struct Node {
    root: SysRoot,
    settings: Settings,
    faults: FaultBoard,
    kernel: Kernel,
    started: Duration,
    uplinks: BTreeMap<String, Uplink>,
    addresses: Vec<Held>,
    gateway6: Option<IpAddr>,
    nat: Nat,
    /// Whether an earlier life left a bridge, so that VMs may run on rules which must stay until
    /// the table of taps is known.
    inherited: bool,
    rules: Rules,
    retry: Option<Duration>,
    counts: Owner<Counts>,
    dns: watch::Sender<Vec<IpAddr>>,
    frames: mpsc::Sender<Frame>,
    inbox: Inbox,
}

#[derive(Debug)]
struct Inbox {
    changes: mpsc::Receiver<()>,
    frames: mpsc::Receiver<Frame>,
    guests: mpsc::Receiver<Vec<u8>>,
    commands: mpsc::Receiver<Command>,
}

/// The firewall in the kernel.
#[derive(Debug, PartialEq)]
enum Rules {
    /// It isn't known what stands there.
    Unknown,
    /// These stand.
    Loaded(State),
    /// Loading failed; it is tried again at a point in time.
    Failed(Duration),
}

impl Rules {
    fn may_become(&self, wanted: &State, now: Duration) -> bool {
        match self {
            Self::Unknown => true,
            Self::Loaded(state) => state != wanted,
            Self::Failed(again) => *again <= now,
        }
    }
}

impl Node {
    /// Connects to the kernel; [`Node::run`] does the rest. `known` turns true when taps can be asked for.
    pub fn new(
        root: SysRoot,
        settings: Settings,
        faults: FaultBoard,
        commands: mpsc::Receiver<Command>,
        known: watch::Sender<bool>,
    ) -> Result<Self, KernelError> {
        let (kernel, changes) = Kernel::connect()?;
        let (dns, servers) = watch::channel(Vec::new());
        let (frames, from_uplinks) = mpsc::channel(64);
        let (guests, from_guests) = mpsc::channel(64);
        Ok(Self {
            root,
            settings,
            faults: faults.clone(),
            nat: Nat::new(kernel.clone(), faults, servers, guests, known),
            kernel,
            started: now(),
            uplinks: BTreeMap::new(),
            addresses: Vec::new(),
            gateway6: None,
            inherited: false,
            rules: Rules::Unknown,
            retry: None,
            counts: Owner::new(Counts::default()),
            dns,
            frames,
            inbox: Inbox { changes, frames: from_uplinks, guests: from_guests, commands },
        })
    }

    /// What there is, in numbers.
    pub fn counts(&self) -> View<Counts> {
        self.counts.view()
    }

    fn count(&self) {
        let leases = self.uplinks.values().filter(|uplink| uplink.wish.is_some()).count();
        let taps = self.nat.list().len();
        self.counts.set(Counts { uplinks: self.uplinks.len(), leases, taps });
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        self.inherited = matches!(self.kernel.index(vm::BRIDGE).await, Ok(Some(_)));
        self.settle().await;
        loop {
            self.count();
            let deadline = self.deadline();
            let wait = deadline.map_or(Duration::from_secs(60), |at| at.saturating_sub(now()));
            tokio::select! {
                change = self.inbox.changes.recv() => {
                    if change.is_none() {
                        // The netlink connection has ended; a fresh start makes a new one.
                        return;
                    }
                    // Changes come in bursts.
                    sleep(Duration::from_millis(20)).await;
                    let _ = self.inbox.changes.try_recv();
                    self.settle().await;
                }
                Some((nic, frame)) = self.inbox.frames.recv() => {
                    if let Some(uplink) = self.uplinks.get_mut(&nic) {
                        uplink.frame(now(), &frame);
                    }
                    self.apply().await;
                }
                Some(message) = self.inbox.guests.recv() => self.nat.guest(&message),
                command = self.inbox.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = sleep(wait) => {
                    self.uplinks.values_mut().for_each(|uplink| uplink.time(now()));
                    if self.retry.is_some_and(|at| at <= now()) {
                        self.retry = None;
                        self.settle().await;
                    } else {
                        self.apply().await;
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let grace = self.started + GRACE;
        let shown =
            self.uplinks.values().filter_map(|uplink| Some(uplink.waiting_since()? + GRACE));
        let faults = shown.chain([grace]).filter(|at| *at > now());
        let clients = self.uplinks.values().filter_map(Uplink::deadline);
        clients.chain(self.retry).chain(faults).min()
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Describe(reply) => drop(reply.send(self.describe())),
            Command::List(reply) => drop(reply.send(self.nat.list())),
            Command::State(copies, reply) => {
                self.nat.set_copies(copies);
                self.settle().await;
                let _ = reply.send(self.nat.store());
            }
            Command::Open(twin, name, index, queues, reply) => {
                let result = match self.nat.place(&twin, &name, index) {
                    Ok(row) => {
                        self.apply().await;
                        if self.rules_stand() {
                            self.nat.open_tap(&row, queues).await
                        } else {
                            Err(CallError::busy(
                                "the firewall isn't loaded, so no VM gets a network",
                            ))
                        }
                    }
                    Err(error) => Err(error),
                };
                let _ = reply.send(result);
            }
            Command::Close(twin, name, reply) => {
                let result = self.nat.close(&twin, &name).await;
                self.apply().await;
                let _ = reply.send(result);
            }
        }
    }

    /// Looks at the machine, then does what follows.
    async fn settle(&mut self) {
        if let Err(error) = self.look().await {
            self.later(&error);
        }
        if !self.nat.open_state() {
            self.retry = Some(now() + RETRY);
        }
        self.apply().await;
    }

    async fn look(&mut self) -> Result<(), KernelError> {
        let nics: Vec<links::Nic> = links::read(&self.root, &self.settings)
            .into_iter()
            .filter(|nic| links::wanted(nic, &self.settings))
            .collect();
        // A NIC under an old name with another number is another NIC.
        self.uplinks.retain(|_, up| {
            nics.iter().any(|nic| nic.name == up.nic.name && nic.index == up.nic.index)
        });
        for nic in nics {
            let carrier = nic.carrier;
            if !self.uplinks.contains_key(&nic.name) {
                let name = nic.name.clone();
                let taken = |slot: &u32| self.uplinks.values().any(|up| up.slot == *slot);
                let slot = (0..).find(|slot| !taken(slot)).unwrap_or(0);
                let (frames, settings) = (self.frames.clone(), &self.settings);
                let opened = Uplink::open(&self.kernel, nic.clone(), slot, settings, frames, now());
                match opened.await {
                    Ok(uplink) => {
                        self.uplinks.insert(name.clone(), uplink);
                        self.faults.clear(&format!("net.nic:{name}"));
                    }
                    Err(error) => {
                        let detail = CallError::failed(&error).to_string();
                        self.faults.raise(Fault::new(format!("net.nic:{name}"), detail));
                        self.retry = Some(now() + RETRY);
                    }
                }
            }
            if let Some(uplink) = self.uplinks.get_mut(&nic.name) {
                uplink.carrier(now(), carrier);
            }
        }
        self.fix();
        self.addresses = self.kernel.addresses().await?;
        let indices: Vec<u32> = self.uplinks.values().map(|uplink| uplink.index).collect();
        self.gateway6 = self.kernel.gateway6(&indices).await;
        Ok(())
    }

    /// Gives the fixed address to the uplink that has it, else to the first with a cable.
    fn fix(&mut self) {
        let Some(fixed) = &self.settings.fixed else { return };
        let best = |up: &&Uplink| (up.wish.is_none(), !up.nic.carrier, up.slot);
        let chosen = self.uplinks.values().filter(|up| up.nic.carrier || up.wish.is_some());
        let chosen = chosen.min_by_key(best).map(|up| up.nic.name.clone());
        for (name, uplink) in &mut self.uplinks {
            uplink.fix((Some(name) == chosen.as_ref()).then_some(fixed));
        }
    }

    /// Makes the kernel what it should be. Harmless when it is.
    async fn apply(&mut self) {
        self.nat.choose_subnet(&self.on_link());
        let wanted = self.rules_wanted();
        if let Some(wanted) = wanted
            && self.rules.may_become(&wanted, now())
        {
            self.load(wanted).await;
        }
        self.publish_dns();
        match self.addresses_and_routes().await {
            Ok(false) => {}
            Ok(true) => match self.kernel.addresses().await {
                Ok(addresses) => self.addresses = addresses,
                Err(error) => self.later(&error),
            },
            Err(error) => self.later(&error),
        }
        if self.rules_stand()
            && let Err(error) = self.nat.serve().await
        {
            self.later(&error);
        }
        self.show_faults();
    }

    fn later(&mut self, error: &KernelError) {
        tracing::warn!("{}", CallError::failed(error));
        self.retry = Some(now() + RETRY);
    }

    fn on_link(&self) -> Vec<ipnet::Ipv4Net> {
        let indices: Vec<u32> = self.uplinks.values().map(|uplink| uplink.index).collect();
        let held = self.addresses.iter().filter(|held| indices.contains(&held.index));
        let held = held.filter_map(|held| match held.net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        });
        let wished =
            self.uplinks.values().filter_map(|uplink| Some(uplink.wish.as_ref()?.address.trunc()));
        held.chain(wished).collect()
    }

    /// The rules that should stand; none while those of an earlier life must stay.
    fn rules_wanted(&self) -> Option<State> {
        if self.inherited && !self.nat.known() {
            return None;
        }
        Some(State {
            uplinks: self.uplinks.values().map(|uplink| uplink.device.clone()).collect(),
            on_link: self.on_link().into_iter().collect(),
            subnet: self.nat.subnet(),
            taps: self.nat.pins(),
        })
    }

    fn rules_stand(&self) -> bool {
        self.rules_wanted().is_some_and(|wanted| self.rules == Rules::Loaded(wanted))
    }

    async fn load(&mut self, state: State) {
        let failed = match nft::load(&firewall::ruleset(&state)).await {
            Ok(()) => sysctl("ipv4/ip_forward", "1").err().map(|error| CallError::failed(&error)),
            Err(error) => Some(CallError::failed(&error)),
        };
        let Some(cause) = failed else {
            self.rules = Rules::Loaded(state);
            self.faults.clear("net.firewall");
            return;
        };
        // What stands there may lack a network of an uplink, so nothing is forwarded.
        if let Err(error) = sysctl("ipv4/ip_forward", "0") {
            tracing::error!("{}", CallError::failed(&error));
        }
        let again = now() + RETRY;
        self.rules = Rules::Failed(again);
        self.retry = Some(again);
        let detail = format!("VMs have no network, since the firewall isn't loaded: {cause}");
        self.faults.raise(Fault::new("net.firewall", detail));
    }

    /// Whether anything changed.
    async fn addresses_and_routes(&mut self) -> Result<bool, KernelError> {
        let mut changed = false;
        for uplink in self.uplinks.values_mut().filter(|uplink| !uplink.applied) {
            match &uplink.wish {
                Some(wish) => {
                    self.kernel.set_address(uplink.index, wish.address, wish.lasts).await?;
                    let (gateway, metric) = (wish.gateway, uplink.metric());
                    self.kernel.set_gateway(uplink.index, gateway, metric).await?;
                    uplink.applied = true;
                    changed = true;
                }
                None => {
                    self.kernel.set_gateway(uplink.index, None, uplink.metric()).await?;
                    self.kernel.clear_addresses(uplink.index, None).await?;
                    uplink.applied = true;
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    fn by_slot(&self) -> Vec<&Uplink> {
        let mut uplinks: Vec<&Uplink> = self.uplinks.values().collect();
        uplinks.sort_by_key(|uplink| uplink.slot);
        uplinks
    }

    fn publish_dns(&self) {
        let mut servers = self.settings.dns.clone();
        if servers.is_empty() {
            let told = self.by_slot().into_iter().filter_map(|uplink| uplink.wish.as_ref());
            servers = told.flat_map(|wish| wish.dns.iter().copied()).collect();
        }
        // A server that is the node itself would be asked by itself for ever.
        let own = |address: &IpAddr| self.addresses.iter().any(|held| held.net.addr() == *address);
        servers.retain(|server| !own(server) && !self.nat.holds(server));
        let mut seen = std::collections::BTreeSet::new();
        servers.retain(|server| seen.insert(*server));
        self.dns.send_if_modified(|before| {
            let changed = *before != servers;
            before.clone_from(&servers);
            changed
        });
    }

    fn show_faults(&self) {
        let settled = now() >= self.started + GRACE;
        let mut faults = Vec::new();
        if self.uplinks.is_empty() {
            let detail = match &self.settings.nic {
                Some(word) => format!("no wired network card is zos.nic={word}"),
                None => {
                    "no wired network card was found, or none whose driver the kernel has".into()
                }
            };
            faults.push(Fault::new("net.no-nic", detail));
        } else if settled && self.uplinks.values().all(|uplink| !uplink.nic.carrier) {
            let detail = "no network card has a cable with somebody at its other end";
            faults.push(Fault::new("net.no-carrier", detail));
        }
        for uplink in self.uplinks.values() {
            if uplink.waiting_since().is_some_and(|since| since + GRACE <= now()) {
                let name = &uplink.nic.name;
                let detail = format!("nobody answers by DHCP on {name}; it is asked on for ever");
                faults.push(Fault::new(format!("net.no-dhcp:{name}"), detail));
            }
        }
        if self.nat.lacks_subnet() {
            let detail = "the uplinks' networks leave no private network for VMs";
            faults.push(Fault::new("net.no-subnet", detail));
        }
        self.faults.replace("net.no-", faults);
    }

    fn describe(&self) -> Network {
        let links = self.by_slot().into_iter().map(|uplink| {
            let mut held: Vec<IpNet> = self
                .addresses
                .iter()
                .filter_map(|held| (held.index == uplink.index).then_some(held.net))
                .collect();
            held.sort();
            Link {
                name: uplink.nic.name.clone(),
                mac: mac_text(uplink.nic.mac),
                carrier: uplink.nic.carrier,
                addresses: held.iter().map(IpNet::to_string).collect(),
                detail: match self.settings.vlan {
                    Some(id) => format!("VLAN {id}, {}", uplink.words()),
                    None => uplink.words().to_owned(),
                },
            }
        });
        let ways = self.by_slot().into_iter().filter(|uplink| uplink.nic.carrier);
        let gateway = ways.filter_map(|uplink| uplink.wish.as_ref()?.gateway).next();
        Network {
            links: links.collect(),
            gateway: gateway.map(IpAddr::V4).or(self.gateway6),
            dns: self.dns.borrow().clone(),
        }
    }
}

fn now() -> Duration {
    Duration::from_millis(clock::boottime_millis())
}

//! What is done for a VM: gathering what its process needs, giving it back.
//!
//! ```text
//!  /dev/kvm ─────────────┐
//!  guest kernel, image ──┤
//!  storaged.OpenVolume ──┼─▶ descriptors, named ─┬─▶ Init.StartTransient (template `vm`)
//!  netd.OpenTap ─────────┤                       │
//!  shares' servers ──────┤                       │
//!  console ring, sockets ┤    spec: which is     │
//!  spec ◀────────────────┴──── which, by name ───┘
//! ```
//! The VMM opens nothing itself.

use std::fs::File;
use std::io::{Seek, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zos_api::local::init::{Acknowledge, Limits, StartTransient};
use zos_api::local::net::{CloseTaps, OpenTap};
use zos_api::local::storage::{CloseVolume, OpenVolume, serial};
use zos_daemon::{Bus, CallError};
use zos_types::deployment::{DiskOf, Image, ShareOf, Vm};
use zos_types::{Fault, WorkloadName};
use zos_vmm_spec::rates::TwinRates;
use zos_vmm_spec::{Balloon, Bucket, Console, Disk, IoEngine, Mac, Net, Rate, Source, Spec, Vsock};

use crate::notes::{Key, Notes};
use crate::sockets::Socket;
use crate::{rates, ring, shares};

/// Where a machine has what VMs need.
#[derive(Clone, Debug)]
pub struct Places {
    /// Decides whether VMs can run at all.
    pub kvm: PathBuf,
    /// What builtin guests boot.
    pub guest: PathBuf,
    /// The cgroup of all tenants.
    pub cgroups: PathBuf,
    /// What all VMs of a twin may share of its disks and networks.
    pub rates: TwinRates,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            kvm: "/dev/kvm".into(),
            guest: "/usr/share/zos/guest".into(),
            cgroups: "/sys/fs/cgroup/tenants".into(),
            rates: TwinRates::default(),
        }
    }
}

/// The guest's console; a panic reboots at once, so that the restart policy sees it.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 8250.nr_uarts=1";
/// What a guest may write on its console: a ring's worth at once, and each second.
const CONSOLE: Bucket = Bucket { per_second: ring::CAPACITY, burst: ring::CAPACITY };
/// Queues of a device beyond which more help nobody.
const MOST_QUEUES: u32 = 4;
/// How long another daemon may take for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// `vm/<twin>/<deployment>.<workload>`: what PID 1 calls it.
pub fn unit((twin, name): &Key) -> String {
    format!("vm/{twin}/{}", name.dotted())
}

/// Opens KVM; the fault says what the farmer can do.
pub fn open_kvm(path: &Path) -> Result<OwnedFd, Fault> {
    File::options().read(true).write(true).open(path).map(OwnedFd::from).map_err(|error| {
        let detail = if error.kind() == std::io::ErrorKind::NotFound {
            "no VM can run: this machine offers no hardware virtualization; enable it (AMD SVM, \
             Intel VT-x) in the firmware's setup"
                .to_owned()
        } else {
            format!("no VM can run: open {}: {error}", path.display())
        };
        Fault::new(NO_KVM, detail)
    })
}

/// The fault of a machine without virtualization.
pub const NO_KVM: &str = "vm.no-kvm";

/// Descriptors by name, for `LISTEN_FDNAMES`.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    names: Vec<String>,
    fds: Vec<OwnedFd>,
}

impl Passed {
    pub(crate) fn add(&mut self, name: impl Into<String>, fd: impl Into<OwnedFd>) -> Source {
        let name = name.into();
        self.names.push(name.clone());
        self.fds.push(fd.into());
        Source::Fd(name)
    }

    /// Bytes of the longest file that the VMM has to write: its guest's memory is one, a disk may be, and the
    /// console's ring. (No disk grows: devices have their size, and to files this is the end.)
    fn longest_file(&self, memory: u64) -> u64 {
        let size = |fd: &OwnedFd| {
            let stat = rustix::fs::fstat(fd).ok()?;
            let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
            regular.then(|| u64::try_from(stat.st_size).unwrap_or(0))
        };
        self.fds.iter().filter_map(size).fold(memory, u64::max)
    }
}

/// Starts a VM: answers once PID 1 has its process. Gives its address on its first network.
pub async fn start(
    bus: &Bus,
    places: &Places,
    notes: &Notes,
    key: &Key,
    slot: u32,
    vm: &Vm,
) -> Result<Option<IpAddr>, Fault> {
    let (bus, (twin, name)) = (&bus.within(PATIENCE), key);
    let mut passed = Passed::default();
    passed.add("kvm", open_kvm(&places.kvm)?);
    let (kernel, initramfs) = match vm.image {
        Image::Hello => ("vmlinuz", "hello.img"),
    };
    let kernel = passed.add("kernel", open(&places.guest.join(kernel))?);
    let initramfs = passed.add("initramfs", open(&places.guest.join(initramfs))?);
    let console = |error| Fault::new("vm.console", format!("console: {error}"));
    let ring = passed.add("serial-ring", ring::open(&notes.ring(slot)).map_err(console)?);
    let folder = notes.sockets(slot);
    let bind = |socket: Socket| {
        let failed = |e| Fault::new("vm.sockets", format!("bind its {socket:?} socket: {e}"));
        socket.bind(&folder).map_err(failed)
    };
    passed.add("api", bind(Socket::Api)?);
    let serial = passed.add("serial-socket", bind(Socket::Serial)?);
    let vsock = passed.add("vsock", bind(Socket::Vsock)?);
    let disks = disks(bus, key, vm, &mut passed).await?;
    let (nets, address) = nets(bus, key, vm, &mut passed).await?;
    // One that ended and was not acknowledged yet would stand in the way; and with the VM's end its servers go.
    let _ = bus.call(Acknowledge { unit: unit(key) }).await;
    let limits = limits(vm, passed.longest_file(vm.memory.0));
    let shares = shares::start(bus, key, slot, vm, &folder, limits, &mut passed).await?;
    let mut twin_rates = None;
    if places.rates != TwinRates::default() {
        let failed = |e| Fault::new("vm.rates", format!("its twin's rates: {e}"));
        let file = rates::open(&notes.rates(twin), &places.rates).map_err(failed)?;
        twin_rates = Some(passed.add("twin-rates", file));
    }
    let spec = Spec {
        cpus: u16::try_from(vm.cpu).unwrap_or(u16::MAX),
        memory: zos_vmm_spec::Bytes(vm.memory.0),
        cmdline: CMDLINE.to_owned(),
        kernel,
        initramfs: Some(initramfs),
        disks,
        nets,
        rng: true,
        serial: Some(Console {
            ring: Some(ring),
            socket: Some(serial),
            rate: Some(Rate { bytes: Some(CONSOLE), operations: None }),
            ..Console::default()
        }),
        console: None,
        // No two guests hear of each other by it, so each may have the same number.
        vsock: Some(Vsock { cid: 3, socket: vsock }),
        balloon: Some(Balloon { free_page_reporting: true, ..Balloon::default() }),
        shares,
        io: IoEngine::Auto,
        twin_rates,
    };
    spec.validate().map_err(|e| Fault::new("vm.spec", format!("the VMM can't run it: {e}")))?;
    passed.add("spec", spec_file(&spec)?);
    let start = StartTransient {
        template: "vm".to_owned(),
        name: name.dotted(),
        twin: *twin,
        slot,
        limits,
        args: Vec::new(),
        fds: passed.names,
    };
    bus.call_with_fds(start, passed.fds)
        .await
        .map_err(|e| Fault::new("vm.start", format!("start the VMM: {e}")))?;
    Ok(address)
}

/// Its CPU weight grows with its CPUs, so a share is per CPU. Beyond them it has one for its devices, however
/// busy its guest keeps those.
fn limits(vm: &Vm, file_size: u64) -> Limits {
    let cpus = u64::from(vm.cpu);
    let queues = vm.disks.len() as u64 * u64::from(queues(vm)) + vm.networks.len() as u64;
    Limits {
        memory: Some(vm.charged().0),
        cpu_weight: Some((cpus * 100).clamp(1, 10_000)),
        cpu_quota: Some((cpus + 1) * 100),
        // A thread for each CPU and each queue, its own few, and for each queue the five that the kernel
        // may make for io_uring: without its first one a ring can't flush.
        pids: Some(cpus + 6 * queues + 16 * vm.shares.len() as u64 + 64),
        file_size: Some(file_size),
        files: None,
    }
}

/// Queues of a disk: more CPUs than these wait for each other less than for the disk.
fn queues(vm: &Vm) -> u16 {
    u16::try_from(vm.cpu.clamp(1, MOST_QUEUES)).unwrap_or(1)
}

async fn disks(bus: &Bus, key: &Key, vm: &Vm, passed: &mut Passed) -> Result<Vec<Disk>, Fault> {
    let mut disks = Vec::new();
    for (i, disk) in vm.disks.iter().enumerate() {
        let fault = |why: String| Fault::new("vm.volume", format!("volume {}: {why}", disk.volume));
        let open = OpenVolume { twin: key.0, name: volume_name(&key.1, disk) };
        let opened = bus.call_with_fds(open, Vec::new()).await;
        let (_, fds) = opened.map_err(|e| fault(e.to_string()))?;
        let fd = fds.into_iter().next().ok_or_else(|| fault("no descriptor came".into()))?;
        disks.push(Disk {
            id: disk.volume.to_string(),
            source: passed.add(format!("disk-{i}"), fd),
            readonly: false,
            serial: Some(serial(&disk.volume)),
            queues: queues(vm),
            rate: None,
        });
    }
    Ok(disks)
}

/// Pairs of queues of each of its networks: a pair for each CPU up to four, where the descriptors of
/// all of them fit into one call.
fn pairs(vm: &Vm) -> u16 {
    let most = if vm.networks.len() > 2 { 1 } else { 4 };
    u16::try_from(vm.cpu).unwrap_or(u16::MAX).clamp(1, most)
}

async fn nets(
    bus: &Bus,
    (twin, name): &Key,
    vm: &Vm,
    passed: &mut Passed,
) -> Result<(Vec<Net>, Option<IpAddr>), Fault> {
    let (mut nets, mut address) = (Vec::new(), None);
    let queues = pairs(vm);
    for (i, network) in vm.networks.iter().enumerate() {
        let fault = |why: String| Fault::new("vm.network", format!("network {i}: {why}"));
        let index = u32::try_from(i).map_err(|e| fault(e.to_string()))?;
        let (name, network) = (name.clone(), network.network);
        let open = OpenTap { twin: *twin, name, index, network, queues: queues.into() };
        let opened = bus.call_with_fds(open, Vec::new()).await;
        let (tap, fds) = opened.map_err(|e| fault(e.to_string()))?;
        if fds.len() != usize::from(queues) {
            return Err(fault(format!("{} descriptors came, not {queues}", fds.len())));
        }
        let mac: Mac = tap.mac.parse().map_err(|e| fault(format!("{e}")))?;
        address = address.or(Some(tap.address));
        let id = format!("net-{i}");
        for (pair, fd) in fds.into_iter().enumerate() {
            let of_pair = if pair == 0 { id.clone() } else { format!("{id}.{pair}") };
            passed.add(of_pair, fd);
        }
        nets.push(Net {
            source: Source::Fd(id.clone()),
            id,
            mac: Some(mac),
            queues,
            addresses: Some(tap.addresses),
            receive_rate: None,
            transmit_rate: None,
        });
    }
    Ok((nets, address))
}

/// The spec as a file in memory, to be read from its begin.
fn spec_file(spec: &Spec) -> Result<File, Fault> {
    let write = || -> std::io::Result<File> {
        let mut file =
            File::from(rustix::fs::memfd_create("spec", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(spec)?)?;
        file.rewind()?;
        Ok(file)
    };
    write().map_err(|e| Fault::new("vm.spec", format!("write the VM's spec: {e}")))
}

/// Gives back what a VM held and holds no longer: all of it if it is to be gone, else only what it
/// had before and has not now.
pub async fn release(
    bus: &Bus,
    key: &Key,
    vm: &Vm,
    before: Option<&Vm>,
    gone: bool,
) -> Result<(), CallError> {
    let (bus, (twin, name)) = (&bus.within(PATIENCE), key);
    if gone || before.is_some_and(|before| before.networks != vm.networks) {
        done(bus.call(CloseTaps { twin: *twin, name: name.clone() }).await)?;
    }
    let servers = before.into_iter().chain([vm]).flat_map(|vm| &vm.shares);
    let kept = |share: &ShareOf| !gone && vm.shares.iter().any(|other| other.share == share.share);
    shares::release(bus, key, servers, kept).await?;
    let had = before.into_iter().flat_map(|before| &before.disks);
    let has = if gone { vm.disks.as_slice() } else { &[] };
    let mut closed: Vec<&DiskOf> = Vec::new();
    for disk in had.chain(has) {
        let kept = !gone && vm.disks.contains(disk);
        if !kept && !closed.contains(&disk) {
            let close = CloseVolume { twin: *twin, name: volume_name(name, disk) };
            done(bus.call(close).await)?;
            closed.push(disk);
        }
    }
    Ok(())
}

/// What is not there needs no closing.
fn done<T>(result: Result<T, CallError>) -> Result<(), CallError> {
    match result {
        Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn volume_name(vm: &WorkloadName, disk: &DiskOf) -> WorkloadName {
    WorkloadName { deployment: vm.deployment.clone(), workload: disk.volume.clone() }
}

fn open(path: &Path) -> Result<File, Fault> {
    File::open(path).map_err(|e| Fault::new("vm.image", format!("open {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_follow_the_cpus_as_far_as_descriptors_go() {
        for (cpu, networks, expected) in
            [(1, 1, 1), (2, 1, 2), (4, 2, 4), (64, 1, 4), (64, 3, 1), (8, 8, 1)]
        {
            let networks = vec![serde_json::json!({"network": "nat"}); networks];
            let vm: Vm = serde_json::from_value(serde_json::json!({
                "cpu": cpu, "memory": "256MiB", "image": "builtin:hello", "networks": networks,
            }))
            .unwrap();
            assert_eq!(pairs(&vm), expected, "{cpu} CPUs");
        }
    }
}

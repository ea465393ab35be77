//! Cloud Hypervisor's configuration into a spec, and back.
//!
//! ```text
//!  VmConfig ── fields with a meaning ──▶ Spec ──▶ Spec::validate
//!           └─ others: a value that changes nothing is taken, each other one refused by name
//! ```
//!
//! All that is wrong is told at once, each with its field and what to do.

use super::config::{
    Balloon, Console, ConsoleMode, Cpus, Disk, Fs, Memory, Net, Others, Payload, RateLimiter, Rng,
    TokenBucket, VmConfig, Vsock,
};
use super::known::{CPUS, DEVICE, DISK, MEMORY, NET, PAYLOAD, TOP, leftovers};
use serde_json::Value;
use std::path::PathBuf;
use zos_vmm_spec::{self as spec, Bucket, Bytes, IoEngine, Rate, Share, Source, Spec};

/// Milliseconds of a second.
const SECOND: u64 = 1000;
/// Where the kernel's random numbers are.
const RANDOM: [&str; 2] = ["/dev/urandom", "/dev/random"];

/// What is wrong with a configuration.
pub(super) type Wrong = Vec<String>;

/// Reads a configuration and makes a valid spec of it.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Spec, Vec<String>> {
    let config: VmConfig =
        serde_json::from_slice(bytes).map_err(|error| vec![error.to_string()])?;
    spec(&config)
}

/// Makes a valid spec.
///
/// # Errors
/// All that is wrong with it.
pub fn spec(config: &VmConfig) -> Result<Spec, Vec<String>> {
    let mut wrong = Wrong::new();
    let VmConfig { cpus, memory, payload, rng, serial, console, balloon, vsock, others, .. } =
        config;
    leftovers("", others, TOP, &mut wrong);
    leftovers("cpus.", &cpus.others, CPUS, &mut wrong);
    leftovers("memory.", &memory.others, MEMORY, &mut wrong);
    leftovers("rng.", &rng.others, DEVICE, &mut wrong);
    if cpus.max_vcpus != cpus.boot_vcpus {
        wrong.push("cpus.max_vcpus: none can be added later: give as many as boot_vcpus".into());
    }
    if !RANDOM.contains(&rng.src.as_str()) {
        wrong.push("rng.src: random numbers come from /dev/urandom: leave it out".into());
    }
    let none = Payload::default();
    let payload = payload.as_ref().unwrap_or(&none);
    leftovers("payload.", &payload.others, PAYLOAD, &mut wrong);
    if payload.kernel.is_none() {
        wrong.push("payload.kernel: give the kernel's path: nothing else can be booted".into());
    }
    let disks = listed(config.disks.as_deref()).map(|(n, disk)| spec_disk(n, disk, &mut wrong));
    let disks = disks.collect();
    let nets = listed(config.net.as_deref()).map(|(n, net)| spec_net(n, net, &mut wrong)).collect();
    let shares =
        listed(config.fs.as_deref()).map(|(n, fs)| spec_share(n, fs, &mut wrong)).collect();
    let serial = spec_console("serial", serial, &mut wrong);
    let console = spec_console("console", console, &mut wrong);
    let spec = Spec {
        cpus: cpus.boot_vcpus,
        memory: Bytes(memory.size),
        cmdline: payload.cmdline.clone().unwrap_or_default(),
        kernel: Source::Path(payload.kernel.clone().unwrap_or_default()),
        initramfs: payload.initramfs.clone().map(Source::Path),
        disks,
        nets,
        rng: true,
        // The port is there, whether somebody listens or not.
        serial: Some(serial.unwrap_or_default()),
        console,
        vsock: vsock.as_ref().map(|vsock| spec_vsock(vsock, &mut wrong)),
        balloon: balloon.as_ref().map(|balloon| spec_balloon(balloon, &mut wrong)),
        shares,
        io: io_engine(config),
        twin_rates: None,
    };
    if wrong.is_empty() {
        spec.validate().map_err(|error| vec![error.to_string()])?;
        return Ok(spec);
    }
    Err(wrong)
}

fn listed<T>(list: Option<&[T]>) -> impl Iterator<Item = (usize, &T)> {
    list.unwrap_or_default().iter().enumerate()
}

fn spec_disk(index: usize, disk: &Disk, wrong: &mut Wrong) -> spec::Disk {
    let at = format!("disks[{index}].");
    leftovers(&at, &disk.others, DISK, wrong);
    if disk.path.is_none() {
        wrong.push(format!("{at}path: give the path of a file or block device"));
    }
    spec::Disk {
        id: id(disk.id.as_deref(), "disk", index),
        source: Source::Path(disk.path.clone().unwrap_or_default()),
        readonly: disk.readonly,
        serial: disk.serial.clone(),
        queues: disk.num_queues,
        rate: disk.rate_limiter_config.and_then(|limiter| rate(&at, limiter, wrong)),
    }
}

fn spec_net(index: usize, net: &Net, wrong: &mut Wrong) -> spec::Net {
    let at = format!("net[{index}].");
    leftovers(&at, &net.others, NET, wrong);
    if net.tap.is_none() {
        wrong.push(format!("{at}tap: make a tap interface first, and give its name"));
    }
    let mac = net.mac.as_ref().map(|mac| mac.parse());
    if let Some(Err(error)) = &mac {
        wrong.push(format!("{at}mac: {error}"));
    }
    if net.num_queues == 0 || !net.num_queues.is_multiple_of(2) {
        wrong.push(format!("{at}num_queues: must be even: two queues for each pair"));
    }
    let rate = net.rate_limiter_config.and_then(|limiter| rate(&at, limiter, wrong));
    spec::Net {
        id: id(net.id.as_deref(), "net", index),
        source: Source::Tap(net.tap.clone().unwrap_or_default()),
        mac: mac.and_then(Result::ok),
        queues: net.num_queues / 2,
        addresses: net.addresses.clone(),
        receive_rate: rate,
        transmit_rate: rate,
    }
}

fn spec_share(index: usize, fs: &Fs, wrong: &mut Wrong) -> Share {
    let at = format!("fs[{index}].");
    leftovers(&at, &fs.others, DEVICE, wrong);
    if fs.socket.is_none() {
        wrong.push(format!("{at}socket: give the path of a virtiofsd's socket"));
    }
    let source = Source::Path(fs.socket.clone().unwrap_or_default());
    Share { tag: fs.tag.clone(), source, queues: fs.num_queues }
}

fn spec_vsock(vsock: &Vsock, wrong: &mut Wrong) -> spec::Vsock {
    leftovers("vsock.", &vsock.others, DEVICE, wrong);
    if vsock.socket.is_none() {
        wrong.push("vsock.socket: give the path where it shall listen".into());
    }
    let socket = Source::Path(vsock.socket.clone().unwrap_or_default());
    spec::Vsock { cid: vsock.cid, socket }
}

fn spec_balloon(balloon: &Balloon, wrong: &mut Wrong) -> spec::Balloon {
    leftovers("balloon.", &balloon.others, DEVICE, wrong);
    spec::Balloon {
        size: Bytes(balloon.size),
        deflate_on_oom: balloon.deflate_on_oom,
        free_page_reporting: balloon.free_page_reporting,
    }
}

fn spec_console(field: &str, console: &Console, wrong: &mut Wrong) -> Option<spec::Console> {
    leftovers(&format!("{field}."), &console.others, DEVICE, wrong);
    let mut spec = spec::Console::default();
    let mut path = |name: &str, path: &Option<PathBuf>, what: &str| {
        if path.is_none() {
            wrong.push(format!("{field}.{name}: give the path {what}"));
        }
        path.clone().map(Source::Path)
    };
    match console.mode {
        ConsoleMode::Off => return None,
        ConsoleMode::Null => {}
        ConsoleMode::Tty => spec.terminal = true,
        ConsoleMode::File => spec.file = path("file", &console.file, "of a file to write to"),
        ConsoleMode::Socket => spec.socket = path("socket", &console.socket, "where to listen"),
        ConsoleMode::Pty => {
            wrong.push(format!("{field}.mode: Pty isn't there: use Socket, File or Tty"));
        }
    }
    Some(spec)
}

/// Each bucket fills from empty in its time.
fn rate(at: &str, limiter: RateLimiter, wrong: &mut Wrong) -> Option<Rate> {
    let mut bucket = |name: &str, bucket: TokenBucket| {
        if bucket.one_time_burst.is_some_and(|burst| burst > 0) {
            let field = format!("{at}rate_limiter_config.{name}.one_time_burst");
            wrong.push(format!("{field}: isn't there: add it to size, or leave it out"));
        }
        // A bucket of nothing, or one that fills at once, is none there.
        if bucket.size == 0 || bucket.refill_time == 0 {
            return None;
        }
        let per_second = u128::from(bucket.size) * u128::from(SECOND);
        let per_second = per_second / u128::from(bucket.refill_time);
        let per_second = u64::try_from(per_second).unwrap_or(u64::MAX).max(1);
        Some(Bucket { per_second, burst: bucket.size })
    };
    let bytes = limiter.bandwidth.and_then(|tokens| bucket("bandwidth", tokens));
    let operations = limiter.ops.and_then(|tokens| bucket("ops", tokens));
    (bytes.is_some() || operations.is_some()).then_some(Rate { bytes, operations })
}

fn io_engine(config: &VmConfig) -> IoEngine {
    let off = |disk: &Disk| disk.others.get("disable_io_uring") == Some(&Value::Bool(true));
    let any = config.disks.as_deref().unwrap_or_default().iter().any(off);
    if any { IoEngine::Sync } else { IoEngine::Auto }
}

/// Names with an underscore in front are given by the VMM; ours have none inside.
fn id(given: Option<&str>, kind: &str, index: usize) -> String {
    let generated = format!("{kind}{index}");
    match given {
        None => generated,
        Some(name) if name.strip_prefix('_') == Some(&generated) => generated,
        Some(name) => name.to_owned(),
    }
}

/// The name that clients know a disk or net by.
fn name(id: &str, kind: &str, index: usize) -> String {
    if id == format!("{kind}{index}") { format!("_{id}") } else { id.to_owned() }
}

/// The name that clients know the device of this id by.
#[must_use]
pub fn device_name(spec: &Spec, id: &str) -> String {
    if let Some(index) = spec.disks.iter().position(|disk| disk.id == id) {
        return name(id, "disk", index);
    }
    if let Some(index) = spec.nets.iter().position(|net| net.id == id) {
        return name(id, "net", index);
    }
    if let Some(index) = spec.shares.iter().position(|share| share.tag == id) {
        return format!("_fs{index}");
    }
    match id {
        "vsock" => "_vsock0".to_owned(),
        _ => format!("__{id}"),
    }
}

/// The configuration that tells of a spec. What was passed as a descriptor has no path.
#[must_use]
pub fn config(spec: &Spec) -> VmConfig {
    let disk = |(index, disk): (usize, &spec::Disk)| Disk {
        path: path(&disk.source),
        readonly: disk.readonly,
        num_queues: disk.queues,
        serial: disk.serial.clone(),
        id: Some(name(&disk.id, "disk", index)),
        rate_limiter_config: disk.rate.map(limiter),
        others: Others::new(),
    };
    let net = |(index, net): (usize, &spec::Net)| Net {
        tap: match &net.source {
            Source::Tap(tap) => Some(tap.clone()),
            Source::Fd(_) | Source::Path(_) => None,
        },
        mac: net.mac.map(|mac| mac.to_string()),
        num_queues: net.queues.saturating_mul(2),
        id: Some(name(&net.id, "net", index)),
        addresses: net.addresses.clone(),
        rate_limiter_config: net.transmit_rate.map(limiter),
        others: Others::new(),
    };
    let fs = |share: &Share| Fs {
        tag: share.tag.clone(),
        socket: path(&share.source),
        num_queues: share.queues,
        others: Others::new(),
    };
    let some = |list: bool| list.then_some(());
    VmConfig {
        cpus: Cpus { boot_vcpus: spec.cpus, max_vcpus: spec.cpus, others: Others::new() },
        memory: Memory { size: spec.memory.0, ..Memory::default() },
        payload: Some(Payload {
            kernel: path(&spec.kernel),
            cmdline: Some(spec.cmdline.clone()),
            initramfs: spec.initramfs.as_ref().and_then(path),
            others: Others::new(),
        }),
        disks: some(!spec.disks.is_empty())
            .map(|()| spec.disks.iter().enumerate().map(disk).collect()),
        net: some(!spec.nets.is_empty()).map(|()| spec.nets.iter().enumerate().map(net).collect()),
        rng: Rng::default(),
        // A serial port without a word on it writes to stdout.
        serial: console(spec.serial.as_ref(), ConsoleMode::Tty),
        console: console(spec.console.as_ref(), ConsoleMode::Off),
        balloon: spec.balloon.map(|balloon| Balloon {
            size: balloon.size.0,
            deflate_on_oom: balloon.deflate_on_oom,
            free_page_reporting: balloon.free_page_reporting,
            others: Others::new(),
        }),
        fs: some(!spec.shares.is_empty()).map(|()| spec.shares.iter().map(fs).collect()),
        vsock: spec.vsock.as_ref().map(|vsock| Vsock {
            cid: vsock.cid,
            socket: path(&vsock.socket),
            others: Others::new(),
        }),
        others: Others::new(),
    }
}

fn console(console: Option<&spec::Console>, absent: ConsoleMode) -> Console {
    let Some(spec) = console else { return Console::of(absent) };
    let mode = match spec {
        spec::Console { terminal: true, .. } => ConsoleMode::Tty,
        spec::Console { socket: Some(_), .. } => ConsoleMode::Socket,
        spec::Console { file: Some(_), .. } | spec::Console { ring: Some(_), .. } => {
            ConsoleMode::File
        }
        _ => ConsoleMode::Null,
    };
    let (socket, file) = (spec.socket.as_ref(), spec.file.as_ref().or(spec.ring.as_ref()));
    Console { socket: socket.and_then(path), file: file.and_then(path), ..Console::of(mode) }
}

/// The path of a source that has one.
fn path(source: &Source) -> Option<PathBuf> {
    match source {
        Source::Path(path) => Some(path.clone()),
        Source::Fd(_) | Source::Tap(_) => None,
    }
}

/// The bucket again: a burst, and the time in which so much comes.
fn limiter(rate: Rate) -> RateLimiter {
    let bucket = |bucket: Bucket| {
        let time =
            u128::from(bucket.burst) * u128::from(SECOND) / u128::from(bucket.per_second.max(1));
        let refill_time = u64::try_from(time).unwrap_or(u64::MAX).max(1);
        TokenBucket { size: bucket.burst, one_time_burst: None, refill_time }
    };
    RateLimiter { bandwidth: rate.bytes.map(bucket), ops: rate.operations.map(bucket) }
}

#[cfg(test)]
mod tests;

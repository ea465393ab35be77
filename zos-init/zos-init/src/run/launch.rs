//! From a unit to a process: cgroup, descriptors, environment, fence; and the tidying after it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use zos_host::activation::FIRST_FD;
use zos_host::cgroup::Cgroup;
use zos_host::kmsg::Level;
use zos_host::poll::Interest;
use zos_host::process::{Capabilities, Program, Resource, Root, Sandbox, Spawn, c_string};
use zos_host::{Context, Error, Result, SysRoot, mount, process, user};

use super::{Live, Node, Token, limits};
use crate::boot::machine;
use crate::journal::Rules as LogRules;
use crate::log;
use crate::supervise::UnitId;
use crate::unit::{Ready, Service};

/// Binds a service's socket; whoever stands there is replaced. Callers are told apart by their credentials,
/// so anyone may connect.
pub(super) fn bind(path: &str) -> Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).during("bind", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).during("open up", path)?;
    Ok(listener.into())
}

/// Of every service and its check, by setrlimit(2).
pub(super) const LIMITS: [(Resource, u64); 2] = [(Resource::Core, 0), (Resource::Files, 65_536)];

/// Told once, where services name paths.
const NO_LANDLOCK: &str =
    "this kernel has no landlock: services may use any path that their users may";

impl Node {
    /// Starts a unit's process and gives its pid.
    pub(super) fn launch(&mut self, id: UnitId) -> Result<i32> {
        if let Some(transient) = self.transients.get_mut(&id) {
            // The descriptors are the unit's alone from here on.
            let descriptors = std::mem::take(&mut transient.descriptors);
            self.launch_transient(id, &descriptors)
        } else {
            self.launch_service(id)
        }
    }

    fn launch_service(&mut self, id: UnitId) -> Result<i32> {
        let service = self.services.get(&id).cloned().ok_or_else(|| unknown(id))?;
        let group = machine::service_cgroup(&service.name)?;
        self.leaving.stays(&group);
        limits::set(&group, &service.cgroup);
        give_devices(&service);
        let mut environment = environment(&service)?;
        // What can fail comes before the process: one that runs is known.
        let (output, output_end) = process::output_pipe(service.user)?;
        self.listen_to(id, service.name.clone(), &service.log, output)?;
        let mut descriptors = vec![(output_end.as_fd(), 1), (output_end.as_fd(), 2)];
        let mut next: RawFd = FIRST_FD;
        if let Some(socket) = self.sockets.get(&id) {
            environment.extend(["LISTEN_FDS=1".to_owned(), "LISTEN_FDNAMES=varlink".to_owned()]);
            descriptors.push((socket.as_fd(), next));
            next += 1;
        }
        let pings = service.rules.watchdog;
        let tells = service.rules.ready == Ready::Told || pings.is_some();
        let ready = if tells { Some(process::output_pipe(service.user)?) } else { None };
        if let Some((pipe, end)) = &ready {
            self.poll.add(pipe, Token::Ready(id.0).number(), Interest::READ)?;
            environment.push(format!("ZOS_READY_FD={next}"));
            descriptors.push((end.as_fd(), next));
        }
        environment.extend(pings.map(|every| format!("ZOS_WATCHDOG_MS={every}")));
        let sandbox = service.sandbox.fence(&service.exec[0])?;
        if service.sandbox.wants_landlock() && sandbox.paths.is_none() {
            self.boot.fault("landlock", NO_LANDLOCK);
        }
        let oom_kills_before = group.oom_kills();
        let group_fd = group.open()?;
        let child = Spawn {
            program: Program::Path(c_string(&service.exec[0])?),
            arguments: service.exec.iter().map(c_string).collect::<Result<_>>()?,
            environment: environment.iter().map(c_string).collect::<Result<_>>()?,
            listen_pid: self.sockets.contains_key(&id),
            descriptors: with_null(&self.null, descriptors),
            cgroup: Some(group_fd.as_fd()),
            user: service.user,
            group: service.user,
            capabilities: service.capabilities,
            limits: LIMITS.to_vec(),
            namespaces: Vec::new(),
            root: Root::Inherited,
            dir: Some(c_string(&service.dir)?),
            sandbox,
        }
        .start()?;
        let pid = child.pid;
        let (ready, pings) = (ready.map(|(pipe, _)| pipe), pings.is_some());
        self.live.insert(id, Live { child, ready, pings, oom_kills_before });
        Ok(pid)
    }

    fn launch_transient(&mut self, id: UnitId, given: &[(String, OwnedFd)]) -> Result<i32> {
        let (user, name) = self.transient_user_and_name(id)?;
        // What can fail comes before the process: one that runs is known.
        let (output, output_end) = process::output_pipe(user)?;
        self.listen_to(id, name, &LogRules::TRANSIENT, output)?;
        let transient = self.transients.get(&id).ok_or_else(|| unknown(id))?;
        let template = self.templates.get(&transient.template).ok_or_else(|| unknown(id))?;
        let group = machine::twin_cgroup(&transient.twin)?.child(&transient.group)?;
        self.leaving.stays(&group);
        limits::set(&group, &transient.limits.as_cgroup());

        // What root owns in the passed mount is this user's, whose number nobody else can know.
        let owned = |(name, _): &&(String, OwnedFd)| Some(name) == template.owned.as_ref();
        for (_, mount) in given.iter().filter(owned) {
            mount::owned_by(mount.as_fd(), user)?;
        }
        let program = fs::File::open(&template.exec[0]).during("open", &template.exec[0])?;
        let arguments = template.exec.iter().chain(&transient.arguments);
        let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        let environment =
            [format!("LISTEN_FDS={}", given.len()), format!("LISTEN_FDNAMES={}", names.join(":"))];
        let mut descriptors = vec![(output_end.as_fd(), 1), (output_end.as_fd(), 2)];
        descriptors
            .extend(given.iter().zip(FIRST_FD..).map(|((_, fd), number)| (fd.as_fd(), number)));
        let root = if template.empty_root {
            let (stage, detach) = (c_string("/tmp")?, outermost_mounts()?);
            Root::Empty { stage, detach, proc: template.proc }
        } else {
            Root::Inherited
        };
        let oom_kills_before = group.oom_kills();
        let group_fd = group.open()?;
        let child = Spawn {
            program: Program::Descriptor(program.into()),
            arguments: arguments.map(c_string).collect::<Result<_>>()?,
            environment: environment.iter().map(c_string).collect::<Result<_>>()?,
            listen_pid: true,
            descriptors: with_null(&self.null, descriptors),
            cgroup: Some(group_fd.as_fd()),
            user,
            group: user,
            capabilities: Capabilities::NONE,
            limits: transient.limits.as_rlimits(&template.limits),
            namespaces: template.namespaces.clone(),
            root,
            dir: None,
            sandbox: Sandbox::default(),
        }
        .start()?;
        self.share_cores(&transient.twin, child.pid);
        // It runs without, too.
        if let Err(error) = child.adjust_oom_score(template.oom_score) {
            log::line(Level::Warning, &error.line());
        }
        let pid = child.pid;
        self.live.insert(id, Live { child, ready: None, pings: false, oom_kills_before });
        Ok(pid)
    }

    /// A transient unit's user, and its name in the log.
    fn transient_user_and_name(&self, id: UnitId) -> Result<(u32, String)> {
        let transient = self.transients.get(&id).ok_or_else(|| unknown(id))?;
        let template = self.templates.get(&transient.template).ok_or_else(|| unknown(id))?;
        let name = format!("{}/{}", transient.template, transient.name);
        Ok((template.first_user + transient.slot, name))
    }

    /// Processes of one twin may run beside each other on a core, and beside nobody else's.
    fn share_cores(&self, twin: &str, pid: i32) {
        let Some(cores) = &self.cores else { return };
        let mut twins = self.transients.iter().filter(|(_, other)| other.twin == twin);
        let member = twins.find_map(|(id, _)| Some(self.live.get(id)?.child.pid));
        let done = match member {
            Some(member) => cores.join(pid, member),
            None => cores.create(pid),
        };
        if let Err(error) = done {
            log::line(Level::Warning, &error.line());
        }
    }

    /// Its cgroup, whether there is one now or not.
    pub(super) fn cgroup(&self, unit: UnitId) -> Option<Cgroup> {
        if let Some(service) = self.services.get(&unit) {
            return Some(machine::place_of_service(&service.name));
        }
        let transient = self.transients.get(&unit)?;
        Some(machine::place_of_workload(&transient.twin, &transient.group))
    }

    pub(super) fn signal(&mut self, unit: UnitId, signal: i32) {
        if let Some(live) = self.live.get(&unit)
            && let Err(error) = live.child.signal(signal)
        {
            log::line(Level::Warning, &error.line());
        }
    }

    /// Whether it runs in another's cgroup.
    pub(super) fn is_part(&self, unit: UnitId) -> bool {
        self.transients.get(&unit).is_some_and(|transient| transient.is_part)
    }

    /// Kills everything in a unit's cgroup; where that fails or is another's, its process.
    pub(super) fn kill(&mut self, unit: UnitId) {
        const SIGKILL: i32 = 9;
        if self.is_part(unit) || self.cgroup(unit).is_none_or(|group| group.kill().is_err()) {
            self.signal(unit, SIGKILL);
        }
    }
}

/// What a service and its check find in their environment.
pub(super) fn environment(service: &Service) -> Result<Vec<String>> {
    let mut environment = vec![
        "PATH=/bin".to_owned(),
        format!("ZOS_UNIT={}", service.name),
        format!("RUNTIME_DIRECTORY={}", runtime_dir(service)?),
    ];
    environment.extend(service.env.iter().map(|(key, value)| format!("{key}={value}")));
    Ok(environment)
}

/// The service's user may open its devices.
fn give_devices(service: &Service) {
    for device in &service.devices {
        let given = chown(device, Some(service.user), Some(service.user))
            .and_then(|()| fs::set_permissions(device, fs::Permissions::from_mode(0o660)));
        if let Err(error) = given {
            log::line(Level::Info, &format!("{}: no {device}: {error}", service.name));
        }
    }
}

/// `/run/zos/<user>`, where a service keeps what it must find again after a restart.
fn runtime_dir(service: &Service) -> Result<String> {
    let path = format!("/run/zos/{}", user::name(service.user).unwrap_or("root"));
    match fs::create_dir(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).during("create", path),
    }
    chown(&path, Some(service.user), Some(service.user)).during("give away", &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).during("open up", &path)?;
    Ok(path)
}

/// Mount points directly on the root, which a jail lets go: it must keep no disk busy.
fn outermost_mounts() -> Result<Vec<std::ffi::CString>> {
    let mounts = mount::list(&SysRoot::host())?;
    let on_root = |target: &Path| target.parent().is_some();
    let mut found: Vec<&Path> = Vec::new();
    for mount in &mounts {
        let target = mount.target.as_path();
        if on_root(target) && !found.iter().any(|outer| target.starts_with(outer)) {
            found.push(target);
        }
    }
    found.into_iter().map(c_string).collect()
}

pub(super) fn with_null<'a>(
    null: &'a fs::File,
    mut descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
) -> Vec<(BorrowedFd<'a>, RawFd)> {
    debug_assert!(null.as_raw_fd() >= 0);
    descriptors.insert(0, (null.as_fd(), 0));
    descriptors
}

pub(super) fn unknown(id: UnitId) -> Error {
    Error::invalid("start", format_args!("unit {}", id.0), "nobody knows it")
}

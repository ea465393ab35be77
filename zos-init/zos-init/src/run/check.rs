//! Looking at a service from outside: its liveness check, and whether its socket answers.

use std::os::fd::AsFd;

use zos_host::process::{self, Capabilities, Exit, Program, Root, Spawn, c_string};
use zos_host::{Result, unix};

use super::{Node, launch};
use crate::boot::machine;
use crate::supervise::{Event, UnitId};

const SIGKILL: i32 = 9;

impl Node {
    /// Whether a service's socket takes a connection now.
    pub(super) fn answers(&self, unit: UnitId) -> bool {
        let socket = self.services.get(&unit).and_then(|service| service.ready_socket.as_ref());
        socket.is_some_and(|path| unix::connect(path).is_ok())
    }

    /// Runs a service's check; gives the answer if there is one already.
    pub(super) fn check(&mut self, unit: UnitId) -> Option<Event> {
        match self.start_check(unit) {
            Ok(true) => None,
            // Its file knows none any more.
            Ok(false) => Some(Event::Checked { unit, failed: None }),
            Err(error) => Some(Event::Checked { unit, failed: Some(error.line()) }),
        }
    }

    /// In the service's cgroup and fence, as its user, without its capabilities. What it prints stands in the service's
    /// log. False: there is no check.
    fn start_check(&mut self, id: UnitId) -> Result<bool> {
        let service = self.services.get(&id).cloned().ok_or_else(|| launch::unknown(id))?;
        let Some(program) = service.check.first() else { return Ok(false) };
        let group = machine::service_cgroup(&service.name)?.open()?;
        let (output, end) = process::output_pipe(service.user)?;
        self.listen_to(id, service.name.clone(), &service.log, output)?;
        let mut environment = launch::environment(&service)?;
        // As systemd and others name it, for who wants to look at the process.
        if let Some(live) = self.live.get(&id) {
            environment.push(format!("MAINPID={}", live.child.pid));
        }
        let child = Spawn {
            program: Program::Path(c_string(program)?),
            arguments: service.check.iter().map(c_string).collect::<Result<_>>()?,
            environment: environment.iter().map(c_string).collect::<Result<_>>()?,
            listen_pid: false,
            descriptors: launch::with_null(&self.null, vec![(end.as_fd(), 1), (end.as_fd(), 2)]),
            cgroup: Some(group.as_fd()),
            user: service.user,
            group: service.user,
            capabilities: Capabilities::NONE,
            limits: launch::LIMITS.to_vec(),
            namespaces: Vec::new(),
            root: Root::Inherited,
            dir: Some(c_string(&service.dir)?),
            sandbox: service.sandbox.fence(program)?,
        }
        .start()?;
        self.checks.insert(id, child);
        Ok(true)
    }

    /// Kills a check that takes too long; its end is told as any other's.
    pub(super) fn end_check(&mut self, unit: UnitId) {
        if let Some(check) = self.checks.get(&unit) {
            let _ = check.signal(SIGKILL);
        }
    }

    /// A process has ended that is no unit's own: a check's, or an orphan's.
    pub(super) fn check_ended(&mut self, pid: i32, exit: Exit) {
        let found = self.checks.iter().find(|(_, child)| child.pid == pid).map(|(id, _)| *id);
        let Some(unit) = found else { return };
        let Some(child) = self.checks.remove(&unit) else { return };
        let failed = match (child.failure(), exit) {
            (Some((step, why)), _) => Some(format!("{step} failed: {why}")),
            (None, Exit::Code(0)) => None,
            (None, exit) => Some(exit.to_string()),
        };
        self.event(Event::Checked { unit, failed });
    }
}

//! Paths by landlock (Documentation/userspace-api/landlock.rst): what may be read, written and executed.
//!
//! ```text
//!  Paths { read, write, exec } ──▶ Ruleset (a descriptor) ──▶ the child restricts itself with it
//!  a list that is absent restricts nothing; an empty one forbids all of its kind
//! ```
//! A rule holds for a file or a folder as it is when the rule is made. **What is mounted over that folder later
//! is another one**, which the rule does not cover: the kernel looks at the mounted root and then at the
//! parents of the mount point, never at the covered folder. So a daemon whose folder of `/state` is mounted
//! only after its start can't have `read` or `write` here; read-only mounts ([`super::Mounts`]) fence it.
//!
//! The folders that [`super::Mounts`] makes private are exempt: the child adds a rule for each.
//!
//! With any list a process also signals nobody outside its fence, and reaches no abstract socket there.
//! Absent: TCP ports (which a daemon uses is in its own code, and netd needs all).

use std::ffi::CStr;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use nix::libc;

use crate::error::{Error, Result};

/// The newest interface that is made use of; an older kernel gives what it has.
const NEWEST: ABI = ABI::V6;

/// The kinds of access that every kernel with landlock knows (linux/landlock.h, up to MAKE_SYM).
pub(super) const FIRST: u64 = 0x1fff;

/// Paths by what may be done with them and all below them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// May be read.
    pub read: Option<Vec<String>>,
    /// May be read, changed, made, renamed and removed. Never device nodes made.
    pub write: Option<Vec<String>>,
    /// May be read and executed.
    pub exec: Option<Vec<String>>,
}

/// What a process restricts itself to.
#[derive(Debug)]
pub struct Ruleset {
    pub(super) rules: OwnedFd,
    /// Kinds of access that a folder of its own ([`super::Mounts`]) allows.
    pub(super) own: u64,
}

impl Paths {
    /// The rules, with the right to execute `program` itself; `None` when nothing is restricted, or when this
    /// kernel has no landlock ([`supported`] tells). A path that isn't there is left out.
    pub fn ruleset(&self, program: &str) -> Result<Option<Ruleset>> {
        if *self == Self::default() {
            return Ok(None);
        }
        self.build(program)
            .map_err(|error| Error::invalid("make landlock rules for", program, error))
    }

    fn build(&self, program: &str) -> std::result::Result<Option<Ruleset>, RulesetError> {
        let handled = self.handled();
        let mut rules = landlock::Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(handled)?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let (read, exec) = (read(), read() | AccessFs::Execute);
        let lists = [(&self.read, read), (&self.write, read | write()), (&self.exec, exec)];
        for (list, access) in lists {
            for path in list.iter().flatten() {
                add(&mut rules, path, access & handled)?;
            }
        }
        add(&mut rules, program, exec & handled)?;
        let own = ((read | write()) & handled).bits();
        Ok(Option::<OwnedFd>::from(rules).map(|rules| Ruleset { rules, own }))
    }

    /// The kinds of access that need a rule.
    fn handled(&self) -> BitFlags<AccessFs> {
        let kinds =
            [(&self.read, read()), (&self.write, write()), (&self.exec, AccessFs::Execute.into())];
        // No fence lets device nodes be made: only capabilities, or nothing, stood before that.
        let nodes = AccessFs::MakeBlock | AccessFs::MakeChar;
        kinds.iter().filter(|(list, _)| list.is_some()).fold(nodes, |all, (_, kind)| all | *kind)
    }
}

fn read() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn write() -> BitFlags<AccessFs> {
    let nodes = AccessFs::MakeBlock | AccessFs::MakeChar;
    AccessFs::from_write(NEWEST) & !nodes
}

fn add(
    rules: &mut landlock::RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> std::result::Result<(), RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(()) };
    // What makes no sense for a file would be refused for it.
    let access =
        if Path::new(path).is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    if !access.is_empty() {
        rules.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(())
}

/// In the child: a rule more, for a folder that only the child has.
pub(super) fn add_own(rules: RawFd, access: u64, folder: &CStr) -> io::Result<()> {
    // linux/landlock.h: struct landlock_path_beneath_attr
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        folder: RawFd,
    }
    const LANDLOCK_RULE_PATH_BENEATH: libc::c_uint = 1;
    // SAFETY: a live C string and integers; the descriptor ends with exec.
    let fd = unsafe { libc::open(folder.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    crate::sys::check(fd)?;
    let rule = PathBeneath { access, folder: fd };
    // SAFETY: the kernel reads the structure of this kind of rule, which outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules,
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// This kernel has landlock, and it is in use.
#[must_use]
pub fn supported() -> bool {
    let everything = Paths { exec: Some(Vec::new()), ..Paths::default() };
    matches!(everything.build("/"), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_restricts_its_own_kind_only() {
        let list = || Some(Vec::new());
        let nodes = AccessFs::MakeBlock | AccessFs::MakeChar;
        for (paths, expected) in [
            (Paths::default(), nodes),
            (Paths { read: list(), ..Paths::default() }, nodes | read()),
            (Paths { write: list(), ..Paths::default() }, nodes | write()),
            (Paths { exec: list(), ..Paths::default() }, nodes | AccessFs::Execute),
            (Paths { read: list(), write: list(), exec: list() }, AccessFs::from_all(NEWEST)),
        ] {
            assert_eq!(paths.handled(), expected, "{paths:?}");
        }
        assert!(Paths::default().ruleset("/bin/sh").unwrap().is_none());
    }
}

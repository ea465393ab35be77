//! A unit's fence: the key `sandbox` of its file.
//!
//! ```text
//!  seccomp = "daemon"                        system calls, by a profile's name
//!  read, write, exec = ["/etc", ...]         paths (landlock); an absent list restricts nothing
//!  read-only = ["/"], writable = ["/run"]    its own view of the tree: no writes there, but here
//!  private = ["/tmp"], hidden = ["/sys"]     an empty folder of its own; nothing at all
//!  no-new-privs = true
//! ```

use zos_host::Result;
use zos_host::cmdline::nearest;
use zos_host::process::{self, Mounts, Paths, Profile};

use super::form::Form;

/// What a unit's processes give up beside capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// The system calls that it may make.
    pub(crate) seccomp: Option<Profile>,
    /// The paths that it may use.
    pub(crate) paths: Paths,
    /// Folders that it can't change anything in.
    pub(crate) read_only: Vec<String>,
    /// Folders below those in which it can.
    pub(crate) writable: Vec<String>,
    /// Folders that are empty and its own.
    pub(crate) private: Vec<String>,
    /// Files and folders that are empty.
    pub(crate) hidden: Vec<String>,
    /// Nothing that it executes has more rights than itself.
    pub(crate) no_new_privs: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            seccomp: None,
            paths: Paths::default(),
            read_only: Vec::new(),
            writable: Vec::new(),
            private: Vec::new(),
            hidden: Vec::new(),
            no_new_privs: true,
        }
    }
}

impl Sandbox {
    /// The fence for one process that executes `program`, made of what is there now.
    pub(crate) fn fence(&self, program: &str) -> Result<process::Sandbox> {
        let lists = [&self.read_only, &self.writable, &self.private, &self.hidden];
        let mounts = if lists.iter().all(|list| list.is_empty()) {
            None
        } else {
            let [read_only, writable, private, hidden] = lists;
            Some(Mounts::new(read_only, writable, private, hidden)?)
        };
        Ok(process::Sandbox {
            no_new_privs: self.no_new_privs,
            mounts,
            paths: self.paths.ruleset(program)?,
            seccomp: self.seccomp,
        })
    }

    /// It names paths, so it needs landlock.
    pub(crate) fn wants_landlock(&self) -> bool {
        self.paths != Paths::default()
    }
}

/// Takes `sandbox` from a unit's file.
pub(super) fn parse(form: &mut Form<'_>) -> Sandbox {
    form.within("sandbox", read).unwrap_or_default()
}

fn read(form: &mut Form<'_>) -> Sandbox {
    let sandbox = Sandbox {
        seccomp: profile(form),
        paths: Paths {
            read: present(form, "read"),
            write: present(form, "write"),
            exec: present(form, "exec"),
        },
        read_only: paths(form, "read-only"),
        writable: paths(form, "writable"),
        private: paths(form, "private"),
        hidden: paths(form, "hidden"),
        no_new_privs: form.flag("no-new-privs").unwrap_or(true),
    };
    if !sandbox.no_new_privs && (sandbox.seccomp.is_some() || sandbox.wants_landlock()) {
        let what =
            "`sandbox.no-new-privs` = false leaves no room for a seccomp profile or for paths";
        form.refuse_as_a_whole(what.to_owned());
    }
    if !sandbox.writable.is_empty() && sandbox.read_only.is_empty() {
        let what = "`sandbox.writable` means nothing without `sandbox.read-only`";
        form.refuse_as_a_whole(what.to_owned());
    }
    // A new root over the one that the process has would leave it where it is.
    let root = |list: &[String]| list.iter().any(|path| path == "/");
    if root(&sandbox.private) || root(&sandbox.hidden) || root(&sandbox.writable) {
        let what = "`sandbox`: / can be read-only, and nothing else";
        form.refuse_as_a_whole(what.to_owned());
    }
    sandbox
}

fn profile(form: &mut Form<'_>) -> Option<Profile> {
    let (line, name) = form.text("seccomp")?;
    let profile = Profile::parse(&name);
    if profile.is_none() {
        let meant = match nearest(&name, Profile::names()) {
            Some(known) => format!("; did you mean {known}?"),
            None => format!("; known are {}", Profile::names().collect::<Vec<_>>().join(", ")),
        };
        form.refuse(line, format!("`sandbox.seccomp`: unknown profile {name}{meant}"));
    }
    profile
}

/// A list that is absent is another thing than an empty one.
fn present(form: &mut Form<'_>, key: &'static str) -> Option<Vec<String>> {
    let there = form.has(key);
    let list = paths(form, key);
    there.then_some(list)
}

fn paths(form: &mut Form<'_>, key: &'static str) -> Vec<String> {
    let texts = form.texts(key);
    for (line, path) in &texts {
        let plain = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if path != "/" && (!path.starts_with('/') || !plain || path.contains('\0')) {
            let what = format!("`sandbox.{key}`: {path} is not a plain absolute path");
            form.refuse(*line, what);
        }
    }
    texts.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sandbox(text: &str) -> std::result::Result<Sandbox, Vec<String>> {
        let mut form = Form::open("a.toml", text).unwrap();
        let sandbox = parse(&mut form);
        let problems: Vec<String> = form.close().iter().map(ToString::to_string).collect();
        if problems.is_empty() { Ok(sandbox) } else { Err(problems) }
    }

    fn list(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_whole_sandbox() {
        let whole = sandbox(
            "[sandbox]\nseccomp = \"storage\"\nread = [\"/etc\"]\nwrite = [\"/run/zos/net\", \"/tmp\"]\n\
             exec = []\nread-only = [\"/\"]\nwritable = [\"/state\"]\nprivate = [\"/tmp\"]\n\
             hidden = [\"/sys/firmware\"]\nno-new-privs = true\n",
        );
        let expected = Sandbox {
            seccomp: Some(Profile::Storage),
            paths: Paths {
                read: Some(list(&["/etc"])),
                write: Some(list(&["/run/zos/net", "/tmp"])),
                exec: Some(Vec::new()),
            },
            read_only: list(&["/"]),
            writable: list(&["/state"]),
            private: list(&["/tmp"]),
            hidden: list(&["/sys/firmware"]),
            no_new_privs: true,
        };
        assert_eq!(whole, Ok(expected));
        assert_eq!(sandbox(""), Ok(Sandbox::default()));
        assert_eq!(sandbox("sandbox = {}"), Ok(Sandbox::default()));
        let bare = sandbox("sandbox = { no-new-privs = false }").unwrap();
        assert!(!bare.no_new_privs && !bare.wants_landlock());
    }

    #[test]
    fn mistakes_have_their_line() {
        let known = "daemon, net, vm, storage";
        let rows = [
            (
                "\nsandbox = { seccomp = \"deamon\" }",
                "a.toml:2: `sandbox.seccomp`: unknown profile deamon; did you mean daemon?",
            ),
            (
                "sandbox = { seccomp = \"xyzzyplugh\" }",
                &*format!(
                    "a.toml:1: `sandbox.seccomp`: unknown profile xyzzyplugh; known are {known}"
                ),
            ),
            ("sandbox = true", "a.toml:1: `sandbox` is a boolean, not a table"),
            (
                "[sandbox]\nread = [\"/etc\",\n\"etc\"]",
                "a.toml:3: `sandbox.read`: etc is not a plain absolute path",
            ),
            (
                "sandbox = { hidden = [\"/a/../b\"] }",
                "a.toml:1: `sandbox.hidden`: /a/../b is not a plain absolute path",
            ),
            (
                "[sandbox]\nreed = []",
                "a.toml:2: unknown key `sandbox.reed`; did you mean `sandbox.read`?",
            ),
            (
                "sandbox = { no-new-privs = false, exec = [] }",
                "a.toml:1: `sandbox.no-new-privs` = false leaves no room for a seccomp profile or for paths",
            ),
            (
                "sandbox = { writable = [\"/run\"] }",
                "a.toml:1: `sandbox.writable` means nothing without `sandbox.read-only`",
            ),
            (
                "sandbox = { private = [\"/\"] }",
                "a.toml:1: `sandbox`: / can be read-only, and nothing else",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(sandbox(text), Err(vec![expected.to_owned()]), "{text}");
        }
    }

    #[test]
    fn every_service_of_the_image_has_a_fence() {
        let units = super::super::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        assert!(units.services.len() >= 8, "{:?}", units.problems);
        for service in &units.services {
            let (name, fence) = (&service.name, &service.sandbox);
            assert!(fence.seccomp.is_some() && fence.no_new_privs, "{name}");
            if name == "storaged" {
                // What it mounts is for everybody, and landlock forbids mounting.
                assert_eq!(
                    *fence,
                    Sandbox { seccomp: Some(Profile::Storage), ..Sandbox::default() }
                );
                continue;
            }
            assert!(fence.paths.exec.is_some(), "{name} may execute anything");
            assert_eq!((&*fence.read_only, &*fence.private), (&*list(&["/"]), &*list(&["/tmp"])));
            let state = fence.writable.contains(&"/state".to_owned());
            let keeps = ["identityd", "netd", "provisiond"].contains(&name.as_str());
            assert_eq!(state, keeps, "{name} and /state");
            // Its other copy is for the same, and hidden from the same.
            let both = |list: &[String]| {
                let has = |path: &str| list.iter().any(|listed| listed == path);
                has("/state") == has("/mirror")
            };
            assert!(both(&fence.writable) && both(&fence.hidden), "{name} and /mirror");
            // A rule for /state would be one for the folder that is covered later.
            assert_eq!(fence.paths.write.is_none(), keeps, "{name} and landlock");
        }
    }
}

//! What a process gives up beside capabilities: parts of the file tree, paths and system calls.
//!
//! ```text
//!  parent  Mounts::new   Paths::ruleset        Profile::filters        memory that the child only passes on
//!             │             │                      │
//!  child   mounts ▸ ... ▸ no_new_privs ▸ landlock ▸ seccomp ▸ exec     each a step that can be told
//! ```
//! The three fences overlap on purpose: mounts decide what is there, landlock what may be done with it,
//! seccomp how the kernel may be asked at all.

use super::landlock::Ruleset;
use super::private::Mounts;
use super::seccomp::Profile;

/// The fence of one process.
#[derive(Debug)]
pub struct Sandbox {
    /// Nothing that it executes has more rights than itself (set-uid bits, file capabilities).
    /// Landlock and seccomp need it.
    pub no_new_privs: bool,
    /// Its own view of the file tree; `None`: its parent's, and no mount namespace for it.
    pub mounts: Option<Mounts>,
    /// Which paths it may use, and how.
    pub paths: Option<Ruleset>,
    /// Which system calls.
    pub seccomp: Option<Profile>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { no_new_privs: true, mounts: None, paths: None, seccomp: None }
    }
}

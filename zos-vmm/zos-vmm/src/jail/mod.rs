//! What the process gives up by itself, whoever started it: paths (landlock) and system calls
//! (seccomp, a filter for each kind of thread). Namespaces, an empty root, a user of its own and
//! limits are given by PID 1.
//!
//! ```text
//!  open everything ─▶ landlock, no new privileges ─▶ threads, each enters its filter ─▶ guest runs
//! ```
//!
//! | A broken-into thread may try | What happens |
//! |---|---|
//! | open, connect, mount, clone, exec, ptrace, kill ... | not on any list: the process dies |
//! | map executable memory, or a descriptor | only memory of no file, without `PROT_EXEC` |
//! | other requests of KVM, of the tap | only those that its kind needs |

mod calls;
mod ring;
mod seccomp;

pub use ring::disk_ring;
pub use seccomp::{Kind, Seccomp};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, Scope};

/// Gives up every path, every connection and every signal to others, as far as this kernel's
/// landlock knows them; a kernel without landlock leaves that to seccomp.
///
/// # Errors
/// Landlock is there and refuses.
pub fn give_up_paths() -> Result<(), RulesetError> {
    let newest = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()?;
    Ok(())
}

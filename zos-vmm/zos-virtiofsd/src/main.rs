//! zos-virtiofsd: serves one folder to one VM, over vhost-user.
//!
//! ```text
//!  descriptors ─▶ folder, socket ─▶ give up: capabilities, paths (landlock), calls (seccomp)
//!              ─▶ file system of the crate virtiofsd ─▶ accept the VMM ─▶ serve until it is gone
//! ```
//!
//! In the jail (PID 1's template `virtiofsd`) there are no arguments: the descriptors `socket`
//! (listening) and `folder` are passed, and the folder must lie on a mount with nodev, nosuid and
//! noexec. For developers: `zos-virtiofsd --socket-path PATH --shared-dir FOLDER`; as root it makes
//! such a mount in a mount namespace of its own, and the folder becomes its root.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a link that leads out, absolute or by `..` | the guest's kernel follows links; a raw request gets the link itself, and landlock ends at the folder |
//! | open a device or a pipe | refused by type; and the mount has nodev |
//! | make a device | no capability, and no right by landlock |
//! | be another user | all of the guest's users are the folder's owner |
//! | make set-user-id programs | they do nothing on the host: nosuid |
//! | keep a million files open | the limit of descriptors, less what the program needs |
//! | a request that isn't one | the program ends, and the guest has lost the folder |
//! | fill the log | two hundred lines, then silence |
//!
//! What is absent: arguments from a tenant, file handles, extended attributes, lists of access
//! rights, a pool of threads.

mod give_up;
mod lines;
mod passed;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    lines::install();
    match passed::take().and_then(serve::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zos-virtiofsd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

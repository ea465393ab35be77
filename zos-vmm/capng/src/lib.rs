//! What `virtiofsd` uses of the crate `capng`, without libcap-ng: that is a C library, which a static
//! build for another processor would have to have. The workspace's `[patch.crates-io]` puts this in
//! its place.
//!
//! ```text
//!  get_caps_process: kernel ─▶ staged (this thread's)   update: staged   apply: staged ─▶ kernel
//! ```
//!
//! What is absent: everything that `virtiofsd` doesn't call.
#![forbid(unsafe_code)]

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::cell::Cell;
use std::fmt;

/// Number of a capability (`linux/capability.h`).
pub type Capability = u32;
/// What the calls give.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The kernel refuses the staged sets.
    ApplyCapabilities,
    /// No capability has this name.
    GetCapabilityId(String),
    /// The kernel doesn't tell.
    GetProcessCapabilities,
    /// No capability has this number.
    UpdateCapability(Capability),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplyCapabilities => f.write_str("set the thread's capabilities"),
            Self::GetCapabilityId(name) => write!(f, "no capability is called {name}"),
            Self::GetProcessCapabilities => f.write_str("read the thread's capabilities"),
            Self::UpdateCapability(number) => write!(f, "no capability has the number {number}"),
        }
    }
}

/// A set of a thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type;

impl Type {
    /// What it can do now.
    pub const EFFECTIVE: Self = Self;
}

/// Which sets a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set(bool);

impl Set {
    /// Those of the thread.
    pub const CAPS: Self = Self(false);
    /// Those, and the bounding set.
    pub const BOTH: Self = Self(true);
}

/// What is done with a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms, reason = "so they are called where they are used")]
pub enum Action {
    /// Taken away.
    DROP,
    /// Given.
    ADD,
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CUpdate {
    /// What is done.
    pub action: Action,
    /// To which set.
    pub cap_type: Type,
    /// With which capability.
    pub capability: Capability,
}

thread_local! {
    static STAGED: Cell<Option<CapabilitySets>> = const { Cell::new(None) };
}

/// A capability's number.
///
/// # Errors
/// None has this name.
pub fn name_to_capability(name: &str) -> Result<Capability> {
    let one = CapabilitySet::from_name(name);
    one.map(|one| one.bits().trailing_zeros())
        .ok_or_else(|| Error::GetCapabilityId(name.to_owned()))
}

/// Stages what the thread has.
///
/// # Errors
/// The kernel doesn't tell.
pub fn get_caps_process() -> Result<()> {
    let sets = capabilities(None).map_err(|_| Error::GetProcessCapabilities)?;
    STAGED.set(Some(sets));
    Ok(())
}

/// Stages nothing at all.
pub fn clear(_: Set) {
    let none = CapabilitySet::empty();
    STAGED.set(Some(CapabilitySets { effective: none, permitted: none, inheritable: none }));
}

/// Changes what is staged.
///
/// # Errors
/// A capability that isn't one.
#[allow(clippy::needless_pass_by_value, reason = "so it is called")]
pub fn update(updates: Vec<CUpdate>) -> Result<()> {
    let mut sets = staged()?;
    for CUpdate { action, capability, .. } in updates {
        let one = bit(capability).ok_or(Error::UpdateCapability(capability))?;
        sets.effective.set(one, action == Action::ADD);
    }
    STAGED.set(Some(sets));
    Ok(())
}

/// Gives what is staged to the kernel. Of the bounding set, with [`Set::BOTH`], what isn't permitted
/// is taken away.
///
/// # Errors
/// The kernel refuses.
pub fn apply(set: Set) -> Result<()> {
    let sets = staged()?;
    let failed = |_| Error::ApplyCapabilities;
    if set == Set::BOTH {
        for one in known().filter(|one| !sets.permitted.contains(*one)) {
            // One that this kernel doesn't know is nobody's.
            if rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
                rustix::thread::remove_capability_from_bounding_set(one).map_err(failed)?;
            }
        }
    }
    set_capabilities(None, sets).map_err(failed)
}

/// Whether the thread has it, as staged.
#[must_use]
pub fn have_capability(_: Type, capability: Capability) -> bool {
    let sets = staged().ok();
    sets.zip(bit(capability)).is_some_and(|(sets, one)| sets.effective.contains(one))
}

fn staged() -> Result<CapabilitySets> {
    if STAGED.get().is_none() {
        get_caps_process()?;
    }
    STAGED.get().ok_or(Error::GetProcessCapabilities)
}

/// Every capability that has a name.
fn known() -> impl Iterator<Item = CapabilitySet> {
    CapabilitySet::all().iter_names().map(|(_, one)| one)
}

fn bit(capability: Capability) -> Option<CapabilitySet> {
    known().find(|one| one.bits().trailing_zeros() == capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        for (name, bit) in [
            ("CHOWN", CapabilitySet::CHOWN),
            ("FSETID", CapabilitySet::FSETID),
            ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
            ("MKNOD", CapabilitySet::MKNOD),
            ("SETFCAP", CapabilitySet::SETFCAP),
            ("CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(super::bit(name_to_capability(name).unwrap()), Some(bit), "{name}");
        }
        assert!(name_to_capability("CAP_CHOWN").is_err());
        let capability = 41;
        let change = CUpdate { action: Action::ADD, cap_type: Type::EFFECTIVE, capability };
        assert_eq!(update(vec![change]), Err(Error::UpdateCapability(41)));
    }

    /// A thread of its own, since what it gives up is gone for good.
    #[test]
    fn what_is_cleared_is_gone() {
        let gone = std::thread::spawn(|| {
            clear(Set::CAPS);
            apply(Set::CAPS).unwrap();
            get_caps_process().unwrap();
            (0..41).all(|number| !have_capability(Type::EFFECTIVE, number))
        });
        assert!(gone.join().unwrap());
    }
}

//! Who the node is: the decision, apart from the disk and the bus.
//!
//! ```text
//!  settled ┐                ┌▶ Kept         the key lies on a disk and is the node for good
//!  found   ┴─▶ choose ─▶ ───┤
//!                           ├▶ Make         no trace of an earlier identity: a new one may be kept
//!                           └▶ Ephemeral    a key for this boot only, and a fault that says why
//! ```

use ed25519_dalek::SigningKey;
use zos_api::local::storage::Settled;
use zos_types::Fault;

use crate::key::Found;

/// The fault of an identity that the next boot won't have.
pub const EPHEMERAL: &str = "identity.ephemeral";
/// The fault of a key file that is no key.
pub const UNREADABLE: &str = "identity.key-unreadable";

/// What is to be done about the node's key.
#[derive(Debug)]
pub enum Choice {
    /// Use this key; it was here before. It may lie in memory, with a fault that says so.
    Use(Box<SigningKey>, Option<Fault>),
    /// Draw a key and keep it, with a fault when what keeps it is memory.
    Make(Option<Fault>),
    /// Draw a key and keep nothing.
    Ephemeral(Fault),
}

/// Chooses by what the disks say and what the state holds.
pub fn choose(settled: &Settled, found: Found) -> Choice {
    let in_memory = (!settled.durable).then(|| {
        let why = settled.identity_refusal.clone().unwrap_or_else(|| {
            "no disk keeps the node's state; connect an empty disk and boot again".to_owned()
        });
        Fault::new(EPHEMERAL, format!("this identity is lost with the next boot: {why}"))
    });
    match (found, &settled.identity_refusal) {
        (Found::Key(key), _) => Choice::Use(key, in_memory),
        (Found::Unreadable(why), _) => Choice::Ephemeral(Fault::new(
            UNREADABLE,
            format!(
                "{why}; it is left as it is, and the node has another identity for this boot: \
                 restore the file, or say zos.identity=new with an empty disk connected"
            ),
        )),
        // In memory there is nothing to be overwritten, and a restarted identityd finds it again.
        (Found::Missing, None) => Choice::Make(in_memory),
        (Found::Missing, Some(_)) if !settled.durable => Choice::Make(in_memory),
        (Found::Missing, Some(why)) => Choice::Ephemeral(Fault::new(
            EPHEMERAL,
            format!("no new identity is made, this one is for this boot only: {why}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Found {
        Found::Key(SigningKey::from_bytes(&[3; 32]).into())
    }

    #[test]
    fn choices() {
        let check = |durable: bool, refusal: Option<&str>, found: Found, expected: &str| {
            let settled = Settled {
                path: "/state".into(),
                durable,
                identity_refusal: refusal.map(str::to_owned),
            };
            let name = |fault: Option<Fault>| fault.map_or("".into(), |f| f.id);
            let chosen = match choose(&settled, found) {
                Choice::Use(_, fault) => format!("use {}", name(fault)),
                Choice::Make(fault) => format!("make {}", name(fault)),
                Choice::Ephemeral(fault) => format!("ephemeral {}", fault.id),
            };
            assert_eq!(chosen.trim_end(), expected, "{durable} {refusal:?}");
        };
        let refusal = Some("sda holds node x");
        let broken = || Found::Unreadable("no key".into());
        check(true, None, Found::Missing, "make");
        check(true, None, key(), "use");
        check(true, refusal, key(), "use");
        check(true, refusal, Found::Missing, "ephemeral identity.ephemeral");
        check(true, None, broken(), "ephemeral identity.key-unreadable");
        check(true, refusal, broken(), "ephemeral identity.key-unreadable");
        check(false, None, Found::Missing, "make identity.ephemeral");
        check(false, refusal, Found::Missing, "make identity.ephemeral");
        check(false, None, key(), "use identity.ephemeral");
        check(false, None, broken(), "ephemeral identity.key-unreadable");
    }
}

//! A key that the twin holds: what the node keeps of it, in the file that else holds a sealed key.
//!
//! ```text
//!  made           salt (32, random)                              locked: there is no key yet
//!  first unlock   check = HKDF-SHA256(key, salt, "org.zos.storage.check.v1") ─▶ its file, durable ─▶ device
//!  later ones     the same check? ─┬─ yes ─▶ device
//!                                  └─ no ──▶ refused: with another key it would read as noise
//! ```
//! The key itself is in the kernel's table of the device, for as long as there is one, and nowhere else. The check tells
//! a key from another one, and nothing about it: a key has 64 random bytes.

use std::io;

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;
use zos_daemon::CallError;
use zos_types::volume::Sealing;

use super::device::KEY;
use super::keys::Sealed;

/// Bytes of a salt, and of a check.
const WORD: usize = 32;

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct TwinKey {
    /// What the twin derives it with; no secret.
    #[serde(with = "hex::serde")]
    pub(super) salt: [u8; WORD],
    /// What tells it from others; none: it was never given.
    #[serde(default, with = "checked", skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<[u8; WORD]>,
}

/// A key that may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is the volume's.
    Same,
    /// It is the first one; with this it becomes the volume's.
    First(TwinKey),
}

impl TwinKey {
    /// For a new volume.
    pub(super) fn draw() -> Result<Self, CallError> {
        let mut salt = [0; WORD];
        getrandom::fill(&mut salt).map_err(|error| CallError::failed(&error))?;
        Ok(Self { salt, check: None })
    }

    /// As it lies where a sealed key would: whoever copies that, copies this.
    pub(super) fn kept(&self) -> Result<Sealed, CallError> {
        let bytes = serde_json::to_vec(self).map_err(|error| CallError::failed(&error))?;
        Ok(Sealed { bytes, sealing: Sealing::Beside })
    }

    /// Of what lies on each of a volume's pools: the first one that was given counts, since it may have been written to
    /// some of them only.
    pub(super) fn of(files: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> io::Result<Self> {
        let mut found = Err(io::Error::other("none of its pools is here"));
        for bytes in files {
            let read = bytes.and_then(|bytes| Ok(serde_json::from_slice::<Self>(&bytes)?));
            match read {
                Ok(kept) if kept.check.is_some() => return Ok(kept),
                Ok(kept) => found = Ok(kept),
                Err(error) if found.is_err() => found = Err(error),
                Err(_) => {}
            }
        }
        found
    }

    /// Judges what was handed over.
    pub(super) fn judge(&self, volume: &str, key: &[u8]) -> Result<Judged, CallError> {
        let halves = key.len() == KEY && key[..KEY / 2] != key[KEY / 2..];
        if !halves {
            let detail = format!("a key has {KEY} bytes, and its halves differ");
            return Err(CallError::invalid(detail));
        }
        let found = self.reckon(key);
        match self.check {
            None => Ok(Judged::First(Self { check: Some(*found), ..self.clone() })),
            Some(check) if check == *found => Ok(Judged::Same),
            Some(_) => Err(CallError::Conflict {
                detail: format!(
                    "it is not the key of volume {volume}, which was first opened with another one"
                ),
                next_version: None,
            }),
        }
    }

    fn reckon(&self, key: &[u8]) -> Zeroizing<[u8; WORD]> {
        let mut check = Zeroizing::new([0; WORD]);
        Hkdf::<Sha256>::new(Some(&self.salt), key)
            .expand(b"org.zos.storage.check.v1", &mut *check)
            .expect("32 bytes are within HKDF's limit");
        check
    }
}

/// A check in hex, or none.
mod checked {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::WORD;

    #[expect(clippy::ref_option, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(
        check: &Option<[u8; WORD]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&check.map(hex::encode).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; WORD]>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut check = [0; WORD];
        hex::decode_to_slice(&text, &mut check).map_err(D::Error::custom)?;
        Ok(Some(check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> Vec<u8> {
        (0..64).map(|i| first.wrapping_add(i)).collect()
    }

    #[test]
    fn the_first_key_is_the_volumes_and_no_other() {
        let new = TwinKey { salt: [3; WORD], check: None };
        let Judged::First(kept) = new.judge("a/b", &key(1)).unwrap() else { panic!() };
        assert_eq!(kept.judge("a/b", &key(1)).unwrap(), Judged::Same);
        let other = kept.judge("a/b", &key(2));
        assert!(matches!(other, Err(CallError::Conflict { .. })), "{other:?}");
        // A record that was written down and read again says the same.
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<TwinKey>(&text).unwrap(), kept);
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<TwinKey>(&text).unwrap(), new);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let new = TwinKey { salt: [3; WORD], check: None };
        for bytes in [&key(0)[..63], &[&key(0)[..], &[1]].concat(), &[], &[7; 64]] {
            assert!(matches!(new.judge("a/b", bytes), Err(CallError::Invalid { .. })));
        }
    }

    #[test]
    fn salts_differ_and_so_do_checks() {
        let (a, b) = (TwinKey::draw().unwrap(), TwinKey::draw().unwrap());
        assert_ne!(a.salt, b.salt);
        let check = |new: &TwinKey| match new.judge("a/b", &key(1)).unwrap() {
            Judged::First(kept) => kept.check.unwrap(),
            Judged::Same => panic!(),
        };
        assert_ne!(check(&a), check(&b));
        assert!(!key(1).windows(8).any(|part| check(&a).windows(8).any(|c| c == part)));
    }

    #[test]
    fn the_key_that_was_given_counts_wherever_it_was_written() {
        let new = TwinKey { salt: [3; WORD], check: None };
        let given = TwinKey { check: Some([4; WORD]), ..new.clone() };
        let kept = |key: &TwinKey| Ok(key.kept().unwrap().bytes);
        let lost = || Err(io::Error::other("a bad block"));
        assert_eq!(TwinKey::of([kept(&new), kept(&given)]).unwrap(), given);
        assert_eq!(TwinKey::of([kept(&given), lost()]).unwrap(), given);
        assert_eq!(TwinKey::of([lost(), kept(&new)]).unwrap(), new);
        assert_eq!(TwinKey::of([Ok(b"{".to_vec()), kept(&given)]).unwrap(), given);
        assert!(TwinKey::of([lost(), Ok(Vec::new())]).is_err());
        assert!(TwinKey::of([]).is_err());
    }

    #[test]
    fn a_record_that_says_nonsense_is_no_record() {
        let salt = "00".repeat(32);
        let check =
            |text: String| assert!(serde_json::from_str::<TwinKey>(&text).is_err(), "{text}");
        check("{}".into());
        check(r#"{"salt": "00"}"#.into());
        check(format!(r#"{{"salt": "{salt}", "check": "00"}}"#));
        check(format!(r#"{{"salt": "{salt}", "check": ""}}"#));
    }
}

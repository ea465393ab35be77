//! Who somebody is: an Ed25519 public key, written in z-base-32.
//!
//! 32 bytes are 256 bits are 52 characters of 5 bits; the last character carries 1 bit and 4 spare
//! ones, which must be zero. Decoding checks this by encoding again.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Zooko's alphabet, in the order of its values (z-base-32, as pkarr writes keys).
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
/// Characters of a written id.
pub const LENGTH: usize = 52;

/// A node's or a twin's id.
///
/// Holding one proves that the bytes are a point on the curve and not one of the eight small-order
/// points, so that `verify_strict` may be used with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

/// The id of a node.
pub type NodeId = Id;
/// The id of a digital twin.
pub type TwinId = Id;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 52 characters.
    #[error("an id has 52 characters, this has {0}")]
    Length(usize),
    /// A character outside the z-base-32 alphabet.
    #[error("`{0}` is no z-base-32 character")]
    Character(char),
    /// The spare bits of the last character are not zero.
    #[error("the last character has spare bits set")]
    SpareBits,
    /// The bytes are no usable Ed25519 public key.
    #[error("not an Ed25519 public key")]
    Key,
}

impl Id {
    /// Takes a public key's 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, IdError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| IdError::Key)?;
        if key.is_weak() {
            return Err(IdError::Key);
        }
        Ok(Self(bytes))
    }

    /// The public key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key, to verify signatures with.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("an Id holds a checked key")
    }

    /// The first eight characters, for people who have seen the rest.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl From<&VerifyingKey> for Id {
    fn from(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(LENGTH);
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in self.0 {
            bits = (bits << 8) | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                text.push(char::from(ALPHABET[((bits >> held) & 31) as usize]));
            }
        }
        text.push(char::from(ALPHABET[((bits << (5 - held)) & 31) as usize]));
        f.write_str(&text)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let count = text.chars().count();
        if count != LENGTH {
            return Err(IdError::Length(count));
        }
        let mut bytes = [0u8; 32];
        let (mut bits, mut held, mut at) = (0u32, 0u32, 0);
        for character in text.chars() {
            let value = ALPHABET
                .iter()
                .position(|&a| char::from(a) == character)
                .ok_or(IdError::Character(character))?;
            bits = (bits << 5) | u32::try_from(value).expect("below 32");
            held += 5;
            if held >= 8 && at < bytes.len() {
                held -= 8;
                bytes[at] = u8::try_from((bits >> held) & 0xff).expect("masked");
                at += 1;
            }
        }
        let id = Self::from_bytes(bytes)?;
        if id.to_string() != text {
            return Err(IdError::SpareBits);
        }
        Ok(id)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Id {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        crate::unit::string_schema(
            "An Ed25519 public key in z-base-32.",
            "^[ybndrfg8ejkmcpqxot1uwisza345h769]{52}$",
        )
    }
}

impl utoipa::ToSchema for Id {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From an independent implementation's vector.
    const TWIN: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";

    #[test]
    fn known_keys_are_written_as_others_write_them() {
        let key = ed25519_dalek::SigningKey::from_bytes(&std::array::from_fn(|i| {
            u8::try_from(i).unwrap()
        }));
        assert_eq!(Id::from(&key.verifying_key()).to_string(), TWIN);
        assert_eq!(TWIN.parse::<Id>().unwrap().as_bytes(), &key.verifying_key().to_bytes());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let check = |text: &str, error: IdError| assert_eq!(text.parse::<Id>(), Err(error));
        check("", IdError::Length(0));
        check(&TWIN[..51], IdError::Length(51));
        check(&TWIN.replace('y', "l"), IdError::Character('l'));
        check(&TWIN.to_uppercase(), IdError::Character('Y'));
        // the same key with a spare bit set
        check(&format!("{}b", &TWIN[..51]), IdError::SpareBits);
        check(&"y".repeat(52), IdError::Key);
    }

    proptest! {
        #[test]
        fn an_id_survives_writing_and_reading(seed: [u8; 32]) {
            let key = ed25519_dalek::SigningKey::from_bytes(&seed);
            let id = Id::from(&key.verifying_key());
            prop_assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in ".{0,60}") {
            let _ = text.parse::<Id>();
        }
    }
}

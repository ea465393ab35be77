//! Small secrets that only this node can read: XChaCha20-Poly1305 under a key derived from the root.
//!
//! ```text
//!  root seed ─ HKDF-SHA256(salt "zos", info "org.zos.identity.seal.v1") ─▶ 256-bit key
//!  sealed    = 0x01 ‖ nonce (24, random) ‖ ciphertext ‖ tag (16)          AAD = context
//! ```
//! The root key has three uses, kept apart so that none can be turned into another: it signs
//! certificates (a DER structure that begins with 0x30), and what it will sign later begins with
//! `zos:<purpose>:`; for secrets only keys derived from it by a named purpose are used, never itself.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The largest secret, in bytes.
pub const MAX_SECRET: usize = 4096;
/// The longest context, in bytes.
pub const MAX_CONTEXT: usize = 512;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// Why something was not sealed or unsealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too large a secret, or too long a context.
    #[error("a secret has at most {MAX_SECRET} bytes and its context at most {MAX_CONTEXT}")]
    TooLarge,
    /// Sealed by another node, for another context, or changed since; which, can't be told.
    #[error("it was not sealed by this node for this context, or it was changed since")]
    NotOurs,
    /// The kernel gave no random bytes.
    #[error("draw a nonce: {0}")]
    Random(getrandom::Error),
}

/// Seals and unseals. Its key is wiped when it is dropped.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    /// The node's sealer.
    pub fn new(root: &SigningKey) -> Self {
        let seed = Zeroizing::new(root.to_bytes());
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(b"zos"), seed.as_ref())
            .expand(b"org.zos.identity.seal.v1", key.as_mut())
            .expect("32 bytes are within HKDF's limit");
        Self { cipher: XChaCha20Poly1305::new(&Key::from(*key)) }
    }

    /// Encrypts a secret for a context.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        if secret.len() > MAX_SECRET || context.len() > MAX_CONTEXT {
            return Err(SealError::TooLarge);
        }
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload { msg: secret, aad: context.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a few KiB are within the cipher's limit");
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// Decrypts what was sealed for the same context.
    pub fn unseal(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let fits = (1 + NONCE + TAG..=1 + NONCE + MAX_SECRET + TAG).contains(&sealed.len());
        if !fits || sealed[0] != VERSION {
            return Err(SealError::NotOurs);
        }
        let (nonce, text) = sealed[1..].split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().expect("split there");
        let payload = Payload { msg: text, aad: context.as_bytes() };
        let secret =
            self.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::NotOurs)?;
        Ok(Zeroizing::new(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer(first: u8) -> Sealer {
        let seed = std::array::from_fn(|i| first + u8::try_from(i).unwrap());
        Sealer::new(&SigningKey::from_bytes(&seed))
    }

    #[test]
    fn a_secret_is_read_only_by_its_node_in_its_context() {
        let sealed = sealer(0x20).seal("volume:a/b", b"secret").unwrap();
        let check = |node: u8, context: &str, secret: Result<&[u8], SealError>| {
            let found = sealer(node).unseal(context, &sealed);
            assert_eq!(found.as_ref().map(|s| &s[..]).map_err(Clone::clone), secret);
        };
        check(0x20, "volume:a/b", Ok(b"secret"));
        check(0x20, "volume:a/c", Err(SealError::NotOurs));
        check(0x20, "", Err(SealError::NotOurs));
        check(0x21, "volume:a/b", Err(SealError::NotOurs));
    }

    #[test]
    fn sealing_twice_gives_other_bytes() {
        let sealer = sealer(0);
        assert_ne!(sealer.seal("x", b"same").unwrap(), sealer.seal("x", b"same").unwrap());
    }

    #[test]
    fn limits() {
        let sealer = sealer(0);
        let sealed = sealer.seal("x", &[7; MAX_SECRET]).unwrap();
        assert_eq!(sealer.unseal("x", &sealed).unwrap().len(), MAX_SECRET);
        assert_eq!(sealer.seal("x", &[7; MAX_SECRET + 1]), Err(SealError::TooLarge));
        assert_eq!(sealer.seal(&"x".repeat(MAX_CONTEXT + 1), b""), Err(SealError::TooLarge));
    }

    /// Sealed by the first version of this code: what lies on disks must stay readable.
    #[test]
    fn what_was_sealed_once_stays_readable() {
        let sealed = hex::decode(VECTOR).unwrap();
        assert_eq!(&sealer(0x20).unseal("volume:a/b", &sealed).unwrap()[..], b"secret");
    }
    const VECTOR: &str = "0193e459568b2afb632752ca7df83a6089faf84f73dd7ff6a8\
        11f5ee43d57fadb880dc29998068ee7a1ed911f0ef07";

    proptest! {
        #[test]
        fn any_change_is_noticed(secret: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let sealer = sealer(1);
            let mut sealed = sealer.seal("c", &secret[..secret.len().min(64)]).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.unseal("c", &sealed).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, context: String) {
            prop_assert!(sealer(1).unseal(&context, &bytes).is_err());
        }
    }
}

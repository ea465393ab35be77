//! Small secrets that only this node can read: XChaCha20-Poly1305 under a key derived from the root, or from a
//! wrapping secret that only the machine's TPM gives out.
//!
//! ```text
//!  root seed        ─ HKDF-SHA256(salt "zos", info "org.zos.identity.seal.v1") ─▶ 256-bit key
//!  sealed beside    = 0x01 ‖ nonce (24, random) ‖ ciphertext ‖ tag (16)           AAD = context
//!
//!  wrapping secret  ─ HKDF-SHA256(salt "zos", info "org.zos.identity.seal.v2") ─▶ 256-bit key
//!  sealed by a TPM  = 0x02 ‖ which secret (8) ‖ nonce ‖ ciphertext ‖ tag          AAD = context
//! ```
//! What was sealed beside stays readable when the machine gets a TPM; from then on all is sealed by it.
//!
//! The root key has three uses, kept apart so that none can be turned into another: it signs
//! certificates (a DER structure that begins with 0x30), and what it will sign later begins with
//! `zos:<purpose>:`; for secrets only keys derived from it by a named purpose are used, never itself.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;
use zos_types::volume::Sealing;

use crate::wrap::{Id, Wraps};

/// The largest secret, in bytes.
pub const MAX_SECRET: usize = 4096;
/// The longest context, in bytes.
pub const MAX_CONTEXT: usize = 512;

/// Sealed under the root key.
const BESIDE: u8 = 1;
/// Sealed under a wrapping secret.
const BY_TPM: u8 = 2;
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
    /// Sealed by a TPM that this machine doesn't have, or that was cleared.
    #[error(
        "it is sealed to a TPM that this machine doesn't have or that was cleared; the node's faults say what to do"
    )]
    Elsewhere,
    /// The kernel gave no random bytes.
    #[error("draw a nonce: {0}")]
    Random(getrandom::Error),
}

/// Seals and unseals. Its keys are wiped when it is dropped.
pub struct Sealer {
    beside: XChaCha20Poly1305,
    by_tpm: Vec<(Id, XChaCha20Poly1305)>,
    shut: Vec<Id>,
}

impl Sealer {
    /// The node's sealer.
    pub fn new(root: &SigningKey, wraps: &Wraps) -> Self {
        let seed = Zeroizing::new(root.to_bytes());
        let beside = cipher(&seed, b"org.zos.identity.seal.v1");
        let by_tpm = |(id, secret): &(Id, crate::wrap::Secret)| {
            (*id, cipher(secret, b"org.zos.identity.seal.v2"))
        };
        let by_tpm = wraps.open.iter().map(by_tpm).collect();
        Self { beside, by_tpm, shut: wraps.shut.clone() }
    }

    /// What it seals with.
    pub fn sealing(&self) -> Sealing {
        if self.by_tpm.is_empty() { Sealing::Beside } else { Sealing::Tpm }
    }

    /// Encrypts a secret for a context.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        if secret.len() > MAX_SECRET || context.len() > MAX_CONTEXT {
            return Err(SealError::TooLarge);
        }
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload { msg: secret, aad: context.as_bytes() };
        let (head, cipher) = match self.by_tpm.first() {
            Some((id, cipher)) => ([&[BY_TPM][..], id].concat(), cipher),
            None => (vec![BESIDE], &self.beside),
        };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a few KiB are within the cipher's limit");
        Ok([&head[..], &nonce, &sealed].concat())
    }

    /// Decrypts what was sealed for the same context.
    pub fn unseal(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::NotOurs)?;
        let (cipher, rest) = match *version {
            BESIDE => (&self.beside, rest),
            BY_TPM => {
                let (id, rest) = rest.split_first_chunk().ok_or(SealError::NotOurs)?;
                let found = self.by_tpm.iter().find(|(known, _)| known == id);
                let Some((_, cipher)) = found else {
                    let shut = self.shut.contains(id);
                    return Err(if shut { SealError::Elsewhere } else { SealError::NotOurs });
                };
                (cipher, rest)
            }
            _ => return Err(SealError::NotOurs),
        };
        if rest.len() > NONCE + MAX_SECRET + TAG {
            return Err(SealError::NotOurs);
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE>().ok_or(SealError::NotOurs)?;
        let payload = Payload { msg: text, aad: context.as_bytes() };
        let secret =
            cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::NotOurs)?;
        Ok(Zeroizing::new(secret))
    }
}

fn cipher(secret: &[u8; 32], purpose: &[u8]) -> XChaCha20Poly1305 {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(b"zos"), secret)
        .expand(purpose, key.as_mut())
        .expect("32 bytes are within HKDF's limit");
    XChaCha20Poly1305::new(&Key::from(*key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer(first: u8) -> Sealer {
        let seed = std::array::from_fn(|i| first + u8::try_from(i).unwrap());
        Sealer::new(&SigningKey::from_bytes(&seed), &Wraps::default())
    }

    /// A sealer with these wrapping secrets, and others that stay shut.
    fn with_tpm(open: &[u8], shut: &[u8]) -> Sealer {
        let root =
            SigningKey::from_bytes(&std::array::from_fn(|i| 0x20 + u8::try_from(i).unwrap()));
        let open = open.iter().map(|n| ([*n; 8], Zeroizing::new([*n; 32]))).collect();
        let shut = shut.iter().map(|n| [*n; 8]).collect();
        Sealer::new(&root, &Wraps { open, shut, faults: Vec::new() })
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

    #[test]
    fn what_a_tpm_sealed_needs_it_and_what_lies_beside_does_not() {
        let (bare, first) = (with_tpm(&[], &[]), with_tpm(&[1], &[]));
        assert_eq!((bare.sealing(), first.sealing()), (Sealing::Beside, Sealing::Tpm));
        let (beside, by_first) = (bare.seal("c", b"a").unwrap(), first.seal("c", b"b").unwrap());
        let further = with_tpm(&[2], &[1]);
        let by_second = further.seal("c", b"c").unwrap();
        let check = |sealer: &Sealer, sealed: &[u8], expected: Result<&[u8], SealError>| {
            let found = sealer.unseal("c", sealed);
            assert_eq!(found.as_ref().map(|s| &s[..]).map_err(Clone::clone), expected);
        };
        check(&bare, &beside, Ok(b"a"));
        check(&first, &beside, Ok(b"a"));
        check(&further, &beside, Ok(b"a"));
        check(&first, &by_first, Ok(b"b"));
        check(&further, &by_first, Err(SealError::Elsewhere));
        check(&with_tpm(&[], &[1]), &by_first, Err(SealError::Elsewhere));
        check(&with_tpm(&[2, 1], &[]), &by_first, Ok(b"b"));
        check(&with_tpm(&[2, 1], &[]), &by_second, Ok(b"c"));
        // Of a secret that this node never had.
        check(&bare, &by_first, Err(SealError::NotOurs));
        assert_eq!(first.unseal("d", &by_first), Err(SealError::NotOurs));
    }

    /// As [`VECTOR`], under wrapping secret 1.
    #[test]
    fn what_a_tpm_sealed_once_stays_readable() {
        let sealed = hex::decode(VECTOR_TPM).unwrap();
        assert_eq!(&with_tpm(&[1], &[]).unseal("volume:a/b", &sealed).unwrap()[..], b"secret");
    }
    const VECTOR_TPM: &str = "0201010101010101019bb5c82b7b9bb532d94fcbaec222af527fc84a5e3b6e58\
        a4431aef4b5aedfb258e118ed1057d8e0dff8ddb32cda7";

    proptest! {
        #[test]
        fn any_change_is_noticed(secret: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            for sealer in [sealer(1), with_tpm(&[1], &[])] {
            let mut sealed = sealer.seal("c", &secret[..secret.len().min(64)]).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.unseal("c", &sealed).is_err());
            }
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, context: String) {
            prop_assert!(sealer(1).unseal(&context, &bytes).is_err());
            prop_assert!(with_tpm(&[1], &[2]).unseal(&context, &bytes).is_err());
        }
    }
}

//! How a twin hands a volume's key over to a node: HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256, ChaCha20-Poly1305) to a key that identityd draws at each of its starts.
//!
//! ```text
//!  node  X25519 pair, new ─▶ public key ‖ root key's signature ─── GET /v1/node/sealing-key ──▶ twin: verify
//!  twin  salt, node ─ HKDF(twin's key) ─▶ volume's key ─ HPKE, AAD = what for ─▶ sealed ── PUT ──▶ node: open
//! ```
//! The request is signed by the twin for this run of the node's API, and what is in it can be opened by this run of
//! identityd alone: who wrote it all down can use it neither again nor later, even with the node's root key. Nobody
//! but the twin's own request says whose volume is meant, and the words in the AAD must be the same ones.
//!
//! **The volume's key** is HKDF-SHA256 of the twin's key with a salt that the node drew for the volume, and the node's id
//! in `info`. By the salt a volume that is made anew under the same name has another key, and a copy of a volume has
//! the same one. By the node's id no other node that knows the salt gets this key out of a twin.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::Sha256;
use zeroize::Zeroizing;
use zos_types::{NodeId, TwinId, WorkloadName};

/// Bytes of a volume's key: two of AES-256, as XTS needs them.
pub const KEY: usize = 64;
/// Bytes of a volume's salt.
pub const SALT: usize = 32;
/// Bytes of what is handed over: encapsulated key, the volume's key, the tag.
pub const SEALED: usize = 32 + KEY + 16;

/// HPKE's `info`.
const INFO: &[u8] = b"zos:handover:v1";

/// A volume's key; wiped when it goes.
pub type Key = Zeroizing<[u8; KEY]>;

/// Why something was not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandoverError {
    /// The sealing key isn't the node's.
    #[error("the sealing key is not signed by the node")]
    NotTheNodes,
    /// It is no X25519 key.
    #[error("the sealing key is no X25519 key")]
    Key,
    /// Sealed to another key, for something else, or changed since; which, can't be told.
    #[error(
        "it was not sealed to this node's present sealing key for this volume; ask for the sealing key again"
    )]
    NotOurs,
}

/// What a sealed key is for.
pub fn context(node: &NodeId, twin: &TwinId, volume: &WorkloadName) -> String {
    format!("zos:volume-key:{node}:{twin}/{volume}")
}

/// A volume's key, from a twin's.
pub fn derive(twin: &SigningKey, node: &NodeId, salt: &[u8; SALT]) -> Key {
    let seed = Zeroizing::new(twin.to_bytes());
    let info = format!("zos:volume-key:v1:{node}");
    let mut key = Zeroizing::new([0; KEY]);
    Hkdf::<Sha256>::new(Some(salt), &*seed)
        .expand(info.as_bytes(), &mut *key)
        .expect("64 bytes are within HKDF's limit");
    key
}

/// The node's side of it: a key pair for one run. Its private half is wiped when it goes.
pub struct Opener {
    private: <X25519HkdfSha256 as Kem>::PrivateKey,
    /// The X25519 public key.
    pub public: [u8; 32],
    /// The root key's signature over it.
    pub signature: [u8; 64],
}

impl Opener {
    /// Draws a pair, and has the node vouch for it.
    pub fn draw(root: &SigningKey) -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let public = public.to_bytes().into();
        Self { private, public, signature: root.sign(&vouched(&public)).to_bytes() }
    }

    /// Opens what a twin sealed.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HandoverError> {
        let (point, text) = sealed.split_first_chunk::<32>().ok_or(HandoverError::NotOurs)?;
        let point = Deserializable::from_bytes(point).map_err(|_| HandoverError::NotOurs)?;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &point,
            INFO,
            text,
            context.as_bytes(),
        );
        opened.map(Zeroizing::new).map_err(|_| HandoverError::NotOurs)
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

/// The twin's side of it: seals to a key that the node vouches for.
pub fn seal(
    node: &NodeId,
    public: &[u8; 32],
    signature: &[u8; 64],
    context: &str,
    key: &[u8],
) -> Result<Vec<u8>, HandoverError> {
    let root = VerifyingKey::from_bytes(node.as_bytes()).map_err(|_| HandoverError::NotTheNodes)?;
    root.verify_strict(&vouched(public), &Signature::from_bytes(signature))
        .map_err(|_| HandoverError::NotTheNodes)?;
    let public = Deserializable::from_bytes(public).map_err(|_| HandoverError::Key)?;
    let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        INFO,
        key,
        context.as_bytes(),
    );
    let (point, text) = sealed.map_err(|_| HandoverError::Key)?;
    Ok([&point.to_bytes()[..], &text].concat())
}

/// What the root key signs: nothing else that it ever signs begins so.
fn vouched(public: &[u8; 32]) -> Vec<u8> {
    [&b"zos:sealing-key:"[..], public].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root(first: u8) -> SigningKey {
        SigningKey::from_bytes(&[first; 32])
    }

    fn id(key: &SigningKey) -> NodeId {
        NodeId::from(&key.verifying_key())
    }

    #[test]
    fn a_key_arrives_at_one_run_of_one_node_for_one_thing() {
        let (node, again) = (Opener::draw(&root(1)), Opener::draw(&root(1)));
        let sealed = seal(&id(&root(1)), &node.public, &node.signature, "a", &[7; KEY]).unwrap();
        assert_eq!(sealed.len(), SEALED);
        assert_eq!(node.open("a", &sealed).unwrap()[..], [7; KEY]);
        assert_eq!(node.open("b", &sealed), Err(HandoverError::NotOurs));
        assert_eq!(again.open("a", &sealed), Err(HandoverError::NotOurs));
    }

    #[test]
    fn only_what_the_node_vouches_for_is_sealed_to() {
        let (ours, other) = (Opener::draw(&root(1)), Opener::draw(&root(2)));
        let check = |public: &[u8; 32], signature: &[u8; 64], expected| {
            assert_eq!(seal(&id(&root(1)), public, signature, "", &[]).err(), expected);
        };
        check(&ours.public, &ours.signature, None);
        check(&other.public, &other.signature, Some(HandoverError::NotTheNodes));
        check(&other.public, &ours.signature, Some(HandoverError::NotTheNodes));
        check(&ours.public, &[0; 64], Some(HandoverError::NotTheNodes));
        // Vouched for, and of small order: what is shared with it everybody knows.
        let signature = root(1).sign(&vouched(&[0; 32])).to_bytes();
        check(&[0; 32], &signature, Some(HandoverError::Key));
    }

    /// What volumes on disks were made with: HKDF of RFC 5869 by another implementation.
    #[test]
    fn a_key_is_by_twin_node_and_salt() {
        let node = id(&root(1));
        let key = derive(&root(9), &node, &[5; SALT]);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, DERIVED);
        assert_ne!(key, derive(&root(8), &node, &[5; SALT]));
        assert_ne!(key, derive(&root(9), &id(&root(2)), &[5; SALT]));
        assert_ne!(key, derive(&root(9), &node, &[6; SALT]));
        assert_ne!(key[..KEY / 2], key[KEY / 2..]);
    }
    const DERIVED: &str = "2ed9b008c378fd0bee9f7d516f3de55f15dde0f82930c032d840a463b61d32da\
        0b1b0e0a4087a26c21aadd3c9353e7b9be892c56f3b6551da3e5d6e5f5e8a95f";

    proptest! {
        #[test]
        fn any_change_is_noticed(at in 0..SEALED, bit in 0..8u8) {
            let node = Opener::draw(&root(1));
            let mut sealed =
                seal(&id(&root(1)), &node.public, &node.signature, "c", &[1; KEY]).unwrap();
            // The topmost bit of a point of X25519 says nothing (RFC 7748, section 5), but HPKE hashes it along.
            sealed[at] ^= 1 << bit;
            prop_assert!(node.open("c", &sealed).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(Opener::draw(&root(1)).open("c", &bytes).is_err());
        }
    }
}

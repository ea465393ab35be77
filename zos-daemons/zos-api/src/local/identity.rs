//! `org.zos.Identity`: the node's key. It signs and certifies; the key never leaves it.

use serde::{Deserialize, Serialize};
use zos_types::NodeId;
use zos_types::volume::Sealing;

use super::interface;

interface! {
    /// The node's key.
    "Identity" on "/run/zos/identity.sock";
    /// Who the node is. Waits until it knows.
    Describe [Storage Net Capacity Vm Provision Api Console] -> Identity;
    /// A certificate (X.509 DER) for a TLS key: name `<node id>.zos`, signed by the node's key,
    /// valid 1970..9999.
    CertifyTls [Api] (
        /// The public key: SubjectPublicKeyInfo, DER in base64, of an ECDSA P-256 key.
        spki: String,
    ) -> Certificate;
    /// Encrypts a small secret so that only this node can read it.
    Seal [Storage] (
        /// What it is for; the same words are needed to unseal.
        context: String,
        /// At most 4 KiB, in base64.
        data: String,
    ) -> Sealed;
    /// Reads what was sealed. `Failed` when that needs a TPM that isn't here.
    Unseal [Storage] (
        /// As at sealing.
        context: String,
        /// As sealed, in base64.
        data: String,
    ) -> Secret;
    /// The key that twins seal to when they hand something over: new at each start of identityd.
    SealingKey [Api] -> PublicSealingKey;
    /// Opens what a twin sealed to that key. `Invalid` when it wasn't, or for something else.
    Open [Storage] (
        /// What it is for, in the words of `zos_api::handover::context`, which the twin used.
        context: String,
        /// As sealed, in base64.
        sealed: String,
    ) -> Secret;
}

/// Who the node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Whether it is lost with the next boot.
    pub ephemeral: bool,
    /// What keys of new volumes are sealed with.
    pub sealing: Sealing,
}

/// What was sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// In base64.
    pub data: String,
    /// With what.
    pub sealing: Sealing,
}

/// The key that twins seal to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublicSealingKey {
    /// An X25519 public key, in base64.
    pub key: String,
    /// The node's Ed25519 signature over `zos:sealing-key:` and the key's 32 bytes, in base64.
    pub signature: String,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// X.509 DER, in base64.
    pub der: String,
}

/// A secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret {
    /// In base64.
    pub data: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

//! `org.zos.Identity`: the node's key. It signs and certifies; the key never leaves it.

use serde::{Deserialize, Serialize};
use zos_types::NodeId;

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
    ) -> Secret;
    /// Reads what was sealed.
    Unseal [Storage] (
        /// As at sealing.
        context: String,
        /// As sealed, in base64.
        data: String,
    ) -> Secret;
}

/// Who the node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Whether it is lost with the next boot.
    pub ephemeral: bool,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// X.509 DER, in base64.
    pub der: String,
}

/// A secret, sealed or not.
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

//! Is it the node? A certificate is checked with the node's id and nothing else.
//!
//! ```text
//!  leaf ── signed by ── node id (Ed25519)      is the TLS key this node's?
//!    └─ P-256 key ── signs ── the handshake    does the peer hold the TLS key?
//! ```
//!
//! Names, dates and authorities don't matter: a node has no name that somebody else could vouch
//! for, and its clock may be wrong.

use std::sync::{Mutex, PoisonError};

use ed25519_dalek::Signature;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zos_types::NodeId;

/// Takes a certificate only from the node asked for, or, asked for none, from any node that its
/// certificate names and that signed it.
#[derive(Debug)]
pub(super) struct Pin {
    wanted: Option<NodeId>,
    seen: Mutex<Option<NodeId>>,
    provider: CryptoProvider,
}

/// Why a certificate is not the node's.
#[derive(Debug, thiserror::Error)]
pub(super) enum PinError {
    #[error("its certificate can't be read")]
    Unreadable,
    #[error("its certificate names no node")]
    Nameless,
    #[error("its certificate is that of node {0}")]
    Other(NodeId),
    #[error("its certificate is not signed by the node's key")]
    Signature,
}

impl Pin {
    pub(super) fn new(wanted: Option<NodeId>, provider: CryptoProvider) -> Self {
        Self { wanted, seen: Mutex::new(None), provider }
    }

    /// The node of the last good certificate.
    pub(super) fn seen(&self) -> Option<NodeId> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, der: &[u8]) -> Result<NodeId, PinError> {
        let (rest, leaf) = X509Certificate::from_der(der).map_err(|_| PinError::Unreadable)?;
        if !rest.is_empty() {
            return Err(PinError::Unreadable);
        }
        let named = named(&leaf);
        let node = self.wanted.or(named).ok_or(PinError::Nameless)?;
        let wrong = || match named.filter(|named| *named != node) {
            Some(other) => PinError::Other(other),
            None => PinError::Signature,
        };
        if leaf.tbs_certificate.signature.algorithm != OID_SIG_ED25519 {
            return Err(wrong());
        }
        let signed = leaf.tbs_certificate.as_ref();
        let signature =
            Signature::from_slice(&leaf.signature_value.data).map_err(|_| PinError::Signature)?;
        if der != envelope(signed, &signature) {
            return Err(PinError::Signature);
        }
        node.verifying_key().verify_strict(signed, &signature).map_err(|_| wrong())?;
        Ok(node)
    }
}

/// The only certificate that says this with this signature (RFC 5280, section 4.1; RFC 8410, section
/// 3). What stands around the signed part is not signed: a reader that is lenient about it would
/// take many.
fn envelope(signed: &[u8], signature: &Signature) -> Vec<u8> {
    const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    const BITS: [u8; 3] = [3, 65, 0];
    let length = signed.len() + ED25519.len() + BITS.len() + Signature::BYTE_SIZE;
    // Two bytes of length, as DER has it from 256 to 65,535 bytes; no leaf of ours has others.
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    [&[0x30, 0x82, high, low], signed, &ED25519, &BITS, &signature.to_bytes()].concat()
}

/// The node in the name `<node id>.zos`.
fn named(leaf: &X509Certificate<'_>) -> Option<NodeId> {
    let names = leaf.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => name.strip_suffix(".zos")?.parse().ok(),
        _ => None,
    })
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let node = self
            .check(end_entity)
            .map_err(|e| CertificateError::Other(OtherError(std::sync::Arc::new(e))))?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use zos_types::Id;

    use super::*;

    const SPKI: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];

    fn node(seed: u8) -> (SigningKey, NodeId) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = Id::from(&key.verifying_key());
        (key, id)
    }

    /// A leaf by identityd; its point is none, which is the handshake's matter.
    fn leaf(seed: u8) -> Vec<u8> {
        let spki = [&SPKI[..], &[4; 65]].concat();
        identityd::certificate::certify(&node(seed).0, &spki).unwrap()
    }

    fn pin(wanted: Option<u8>) -> Pin {
        let provider = rustls::crypto::ring::default_provider();
        Pin::new(wanted.map(|seed| node(seed).1), provider)
    }

    #[test]
    fn a_leaf_is_taken_for_its_node_alone() {
        let check = |wanted: Option<u8>, der: &[u8], error: Option<&str>| {
            let result = pin(wanted).check(der);
            let words = result.err().map(|e| e.to_string());
            assert_eq!(words.is_some(), error.is_some(), "{words:?}");
            assert!(words.unwrap_or_default().contains(error.unwrap_or_default()));
        };
        check(Some(1), &leaf(1), None);
        check(None, &leaf(1), None);
        check(Some(2), &leaf(1), Some(&node(1).1.to_string()));
        check(Some(1), &[], Some("can't be read"));
        check(Some(1), &[leaf(1), vec![0]].concat(), Some("can't be read"));
    }

    #[test]
    fn what_stands_around_the_signed_part_is_fixed() {
        let good = leaf(1);
        let tail = good.len() - Signature::BYTE_SIZE - 10;
        for at in (0..4).chain(tail..tail + 10) {
            for bit in 0..8 {
                let mut der = good.clone();
                der[at] ^= 1 << bit;
                assert!(pin(Some(1)).check(&der).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))] // Ed25519 is slow unoptimised

        #[test]
        fn a_changed_leaf_is_never_taken(at: prop::sample::Index, bit in 0..8u8, pinned: bool) {
            let mut der = leaf(1);
            let at = at.index(der.len());
            der[at] ^= 1 << bit;
            let result = pin(pinned.then_some(1)).check(&der);
            prop_assert!(result.is_err(), "byte {} of {}", at, der.len());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(der: Vec<u8>) {
            prop_assert!(pin(None).check(&der).is_err());
        }
    }
}

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
        let ed25519 = [&leaf.signature_algorithm, &leaf.tbs_certificate.signature]
            .iter()
            .all(|algorithm| algorithm.algorithm == OID_SIG_ED25519);
        if !ed25519 || leaf.signature_value.unused_bits != 0 {
            return Err(wrong());
        }
        let signature =
            Signature::from_slice(&leaf.signature_value.data).map_err(|_| PinError::Signature)?;
        node.verifying_key()
            .verify_strict(leaf.tbs_certificate.as_ref(), &signature)
            .map_err(|_| wrong())?;
        Ok(node)
    }
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

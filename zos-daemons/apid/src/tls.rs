//! TLS: a fresh P-256 key at each start, certified by the node's key, sent alone as the leaf.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsAcceptor;
use zos_api::local::CallError;
use zos_api::local::identity::{Certificate, CertifyTls};

/// Makes a key, has it certified, and gives what accepts TLS with it.
pub async fn acceptor(
    certify: impl AsyncFnOnce(CertifyTls) -> Result<Certificate, CallError>,
) -> anyhow::Result<TlsAcceptor> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| anyhow!("make a TLS key"))?;
    let pkcs8 = PrivatePkcs8KeyDer::from(document.as_ref().to_vec());
    let key = any_ecdsa_type(&PrivateKeyDer::from(pkcs8)).context("load the TLS key")?;
    let spki = key.public_key().context("encode the TLS key")?;
    let request = CertifyTls { spki: STANDARD.encode(&spki) };
    let certificate = certify(request).await.context("have the TLS key certified")?;
    let der = STANDARD.decode(certificate.der).context("decode the TLS certificate")?;

    let certified = CertifiedKey::new(vec![CertificateDer::from(der)], key);
    certified.keys_match().context("check the TLS certificate")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

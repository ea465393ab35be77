//! Certificates for TLS keys: an X.509 v3 leaf (RFC 5280) that the node's key signs (RFC 8410).
//!
//! ```text
//!  subject CN  <node id>.zos      SAN  DNS:<node id>.zos
//!  issuer  CN  <node id>          valid 1970-01-01 .. 9999-12-31 (RFC 5280 4.1.2.5: no expiry)
//!  key         ECDSA P-256        signature  Ed25519 by the node
//! ```
//! It is sent alone, without its issuer; a client that knows the node id has the issuer's key.

use ed25519_dalek::{Signer, SigningKey};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use zos_types::NodeId;

/// SubjectPublicKeyInfo of an uncompressed point on P-256 up to the point: one form in DER
/// (RFC 5480, sections 2.1.1.1 and 2.2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// 0x04 and two coordinates of 32 bytes.
const P256_POINT: usize = 65;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key isn't of the one kind that is certified.
    #[error("the key is no SubjectPublicKeyInfo of an uncompressed ECDSA P-256 key")]
    Key,
    /// The kernel gave no random bytes.
    #[error("draw a serial number")]
    Random(#[source] getrandom::Error),
    /// It could not be written.
    #[error("write the certificate")]
    Encode(#[source] rcgen::Error),
}

/// The name that a node's certificates are for.
pub fn name(node: &NodeId) -> String {
    format!("{node}.zos")
}

/// Certifies a TLS key: DER in, DER out.
pub fn certify(root: &SigningKey, spki: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(CertificateError::Random)?;
    certify_with(root, spki, serial)
}

fn certify_with(
    root: &SigningKey,
    spki: &[u8],
    mut serial: [u8; 16],
) -> Result<Vec<u8>, CertificateError> {
    let point = spki.strip_prefix(&P256_SPKI).ok_or(CertificateError::Key)?;
    if point.len() != P256_POINT || point[0] != 4 {
        return Err(CertificateError::Key);
    }
    // Positive and never zero (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;

    let node = NodeId::from(&root.verifying_key());
    let named = |name: String| {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::CommonName, name);
        distinguished
    };
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = named(name(&node));
    leaf.subject_alt_names =
        vec![SanType::DnsName(name(&node).try_into().map_err(CertificateError::Encode)?)];
    leaf.not_before = date_time_ymd(1970, 1, 1);
    // 23:59:59 of that day is RFC 5280's value for a certificate without an end.
    leaf.not_after = date_time_ymd(9999, 12, 31) + std::time::Duration::from_secs(86_399);
    leaf.serial_number = Some(SerialNumber::from_slice(&serial));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_identifier_method = KeyIdMethod::PreSpecified(Vec::new());

    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = named(node.to_string());
    issuer.key_identifier_method = KeyIdMethod::PreSpecified(node.as_bytes()[..20].to_vec());
    let public = root.verifying_key().to_bytes();
    let issuer = Issuer::new(issuer, Root { key: root, public });
    let certificate = leaf.signed_by(&TlsKey(point), &issuer).map_err(CertificateError::Encode)?;
    Ok(certificate.der().to_vec())
}

/// The key that is certified.
struct TlsKey<'a>(&'a [u8]);

impl PublicKeyData for TlsKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The key that certifies.
struct Root<'a> {
    key: &'a SigningKey,
    public: [u8; 32],
}

impl PublicKeyData for Root<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Root<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signature;
    use x509_parser::prelude::*;

    use super::*;

    /// The node of the contract's vector.
    const NODE: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo";

    fn root() -> SigningKey {
        SigningKey::from_bytes(&std::array::from_fn(|i| 0x20 + u8::try_from(i).unwrap()))
    }

    fn spki() -> Vec<u8> {
        // The base point of P-256.
        let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        [&P256_SPKI[..], &hex::decode(point).unwrap()].concat()
    }

    #[test]
    fn a_certificate_says_what_it_should_and_is_signed_by_the_node() {
        let der = certify_with(&root(), &spki(), [0; 16]).unwrap();
        let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(certificate.version(), X509Version::V3);
        assert_eq!(certificate.issuer().to_string(), format!("CN={NODE}"));
        assert_eq!(certificate.subject().to_string(), format!("CN={NODE}.zos"));
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let name = format!("{NODE}.zos");
        assert_eq!(names.value.general_names, [GeneralName::DNSName(&name)]);
        assert_eq!(certificate.validity().not_before.timestamp(), 0);
        assert_eq!(certificate.validity().not_after.to_datetime().year(), 9999);
        assert_eq!(certificate.public_key().raw, spki());
        assert_eq!(certificate.signature_algorithm.algorithm.to_id_string(), "1.3.101.112");
        assert!(!certificate.is_ca());
        let signature = Signature::from_slice(&certificate.signature_value.data).unwrap();
        let signed = certificate.tbs_certificate.as_ref();
        root().verifying_key().verify_strict(signed, &signature).unwrap();
    }

    #[test]
    fn the_same_input_gives_the_same_certificate_and_serials_differ() {
        let make = |serial| certify_with(&root(), &spki(), serial).unwrap();
        assert_eq!(make([7; 16]), make([7; 16]));
        assert_ne!(certify(&root(), &spki()).unwrap(), certify(&root(), &spki()).unwrap());
    }

    #[test]
    fn other_keys_are_refused() {
        let check = |spki: &[u8]| {
            assert!(matches!(certify(&root(), spki), Err(CertificateError::Key)));
        };
        check(&[]);
        check(&spki()[1..]);
        check(&spki()[..90]);
        check(&[&spki()[..], &[0]].concat());
        let mut compressed = spki();
        compressed[26] = 2;
        check(&compressed);
    }
}

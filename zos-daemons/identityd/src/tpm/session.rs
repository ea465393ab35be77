//! A session with a TPM: who listens on the bus learns no secret, and who changes something is noticed (TPM 2.0
//! Library, part 1, sections 19 and 21).
//!
//! ```text
//!  ephemeral P-256 key × the primary's public key ─ ECDH, KDFe ─▶ salt ─ KDFa, both nonces ─▶ key
//!  command   first parameter ^ KDFa(key, nonces)      HMAC(key, hash of names and parameters ‖ nonces)
//!  answer    the same, with the TPM's next nonce
//! ```
//! What is sealed has no password of its own: that the right chip has it is all that is asked.

use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey};
use ring::hmac;
use ring::rand::SystemRandom;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::wire::{self, AUTHORIZED, PLAIN, Reader, Writer};
use super::{Loaded, Port, Primary, SHA256, TpmError, exchange};

const START_AUTH_SESSION: u32 = 0x176;
/// TPM_RH_NULL.
const NULL: u32 = 0x4000_0007;
/// TPM_SE_HMAC.
const HMAC: u8 = 0;
/// TPM_ALG_XOR: every TPM has it (part 1, section 21.2).
const XOR: u16 = 0x000a;

/// The session lasts beyond this command.
const CONTINUE: u8 = 0x01;
/// The command's first parameter is encrypted.
const DECRYPT: u8 = 0x20;
/// The answer's first parameter is to be encrypted.
const ENCRYPT: u8 = 0x40;

/// Bytes of a nonce, of a hash and of a coordinate.
const WORD: usize = 32;

/// Which way a secret goes, as a command's or an answer's first parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Secret {
    None,
    In,
    Out,
}

/// A command under a session.
pub(super) struct Command<'a> {
    pub(super) what: &'static str,
    pub(super) code: u32,
    /// What it is done to; the session authorizes it.
    pub(super) object: &'a Loaded,
    pub(super) parameters: &'a [u8],
    pub(super) secret: Secret,
    /// Whether the answer begins with a handle.
    pub(super) makes: bool,
}

/// A session that was begun.
pub(super) struct Session {
    pub(super) handle: u32,
    key: Zeroizing<[u8; WORD]>,
    /// The TPM's last nonce.
    nonce: Vec<u8>,
}

impl Session {
    /// Begins one that only the holder of the primary key can follow.
    pub(super) fn begin(port: &mut dyn Port, primary: &Primary) -> Result<Self, TpmError> {
        const WHAT: &str = "TPM2_StartAuthSession";
        let random = |_| TpmError::Random;
        let own =
            EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(random)?;
        let public = own.compute_public_key().map_err(random)?;
        let (x, y) = public.as_ref()[1..].split_at(WORD);
        let peer = [&[4][..], &primary.x, &primary.y].concat();
        let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
        let salt = agreement::agree_ephemeral(own, &peer, |shared| {
            kdf_e(shared, b"SECRET", x, &primary.x)
        });
        let salt =
            salt.map_err(|_| TpmError::Malformed(WHAT, "the primary is no point of P-256"))?;

        let (mut point, mut command) = (Writer::default(), Writer::default());
        point.sized(x).sized(y);
        let caller = draw()?;
        command.u32(primary.object.handle).u32(NULL).sized(&caller).sized(point.done());
        command.u8(HMAC).u16(XOR).u16(SHA256).u16(SHA256);
        let answer = exchange(port, WHAT, PLAIN, START_AUTH_SESSION, &[command.done()])?;
        let mut answer = wire::body(WHAT, PLAIN, &answer)?;
        let (handle, nonce) = (answer.u32()?, answer.sized()?.to_vec());
        answer.end()?;
        let key = kdf_a(salt.as_ref(), b"ATH", &nonce, &caller, WORD);
        let key = Zeroizing::new(key[..].try_into().expect("as long as asked for"));
        Ok(Self { handle, key, nonce })
    }

    /// Does a command; gives the handle of what it made, and the answer's parameters.
    pub(super) fn run(
        &mut self,
        port: &mut dyn Port,
        command: &Command<'_>,
    ) -> Result<(u32, Zeroizing<Vec<u8>>), TpmError> {
        let Command { what, code, object, parameters, secret, makes } = *command;
        let caller = draw()?;
        let attributes = CONTINUE
            | match secret {
                Secret::None => 0,
                Secret::In => DECRYPT,
                Secret::Out => ENCRYPT,
            };
        let mut parameters = Zeroizing::new(parameters.to_vec());
        if secret == Secret::In {
            self.cover(what, &mut parameters, &caller, &self.nonce)?;
        }
        let hash = Sha256::new()
            .chain_update(code.to_be_bytes())
            .chain_update(&object.name)
            .chain_update(&*parameters)
            .finalize();
        let (key, message) = self.signed(&hash, &caller, &self.nonce, attributes);
        let tag = hmac::sign(&key, &message);
        let (mut body, mut authorization) = (Writer::default(), Writer::default());
        authorization.u32(self.handle).sized(&caller).u8(attributes).sized(tag.as_ref());
        let length = u32::try_from(authorization.done().len()).expect("about a hundred bytes");
        body.u32(object.handle).u32(length).bytes(authorization.done());
        let answer = exchange(port, what, AUTHORIZED, code, &[body.done(), &parameters])?;

        let mut answer = wire::body(what, AUTHORIZED, &answer)?;
        let handle = if makes { answer.u32()? } else { 0 };
        let length = answer.u32()? as usize;
        let parameters = answer.take(length)?;
        let (nonce, attributes, told) = (answer.sized()?, answer.u8()?, answer.sized()?);
        answer.end()?;
        let hash = Sha256::new()
            .chain_update(0_u32.to_be_bytes())
            .chain_update(code.to_be_bytes())
            .chain_update(parameters)
            .finalize();
        let (key, message) = self.signed(&hash, nonce, &caller, attributes);
        hmac::verify(&key, &message, told)
            .map_err(|_| TpmError::Malformed(what, "it isn't the TPM's"))?;
        let mut parameters = Zeroizing::new(parameters.to_vec());
        if secret == Secret::Out {
            self.cover(what, &mut parameters, nonce, &caller)?;
        }
        self.nonce = nonce.to_vec();
        Ok((handle, parameters))
    }

    /// What proves a command or an answer: a key, and what is signed with it.
    fn signed(
        &self,
        hash: &[u8],
        newer: &[u8],
        older: &[u8],
        attributes: u8,
    ) -> (hmac::Key, Vec<u8>) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.key);
        (key, [hash, newer, older, &[attributes]].concat())
    }

    /// Covers or uncovers the first parameter, which says its own length.
    fn cover(
        &self,
        what: &'static str,
        parameters: &mut [u8],
        newer: &[u8],
        older: &[u8],
    ) -> Result<(), TpmError> {
        let length = Reader::new(what, parameters).sized()?.len();
        let mask = kdf_a(&*self.key, b"XOR", newer, older, length);
        for (byte, mask) in parameters[2..2 + length].iter_mut().zip(&*mask) {
            *byte ^= mask;
        }
        Ok(())
    }
}

fn draw() -> Result<[u8; WORD], TpmError> {
    let mut nonce = [0; WORD];
    getrandom::fill(&mut nonce).map_err(|_| TpmError::Random)?;
    Ok(nonce)
}

/// KDFa (part 1, section 11.4.10.2): NIST SP 800-108 in counter mode with HMAC-SHA256.
fn kdf_a(key: &[u8], label: &[u8], u: &[u8], v: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let bits = u32::try_from(length * 8).expect("no parameter has that many").to_be_bytes();
    let mut stream = Zeroizing::new(Vec::with_capacity(length + WORD));
    for counter in 1_u32.. {
        if stream.len() >= length {
            break;
        }
        let mut context = hmac::Context::with_key(&key);
        for part in [&counter.to_be_bytes()[..], label, &[0], u, v, &bits] {
            context.update(part);
        }
        stream.extend_from_slice(context.sign().as_ref());
    }
    stream.truncate(length);
    stream
}

/// KDFe (part 1, section 11.4.10.3) for one block: NIST SP 800-56A with SHA-256.
fn kdf_e(shared: &[u8], label: &[u8], u: &[u8], v: &[u8]) -> Zeroizing<[u8; WORD]> {
    let hash = Sha256::new().chain_update(1_u32.to_be_bytes()).chain_update(shared);
    let hash = hash.chain_update(label).chain_update([0]).chain_update(u).chain_update(v);
    Zeroizing::new(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_as_long_as_asked_for_and_by_all_that_goes_in() {
        let check = |length| {
            let made = |key: &[u8], label: &[u8], u: &[u8], v: &[u8]| {
                kdf_a(key, label, u, v, length).to_vec()
            };
            let first = made(b"k", b"XOR", b"u", b"v");
            assert_eq!(first.len(), length);
            for other in [
                made(b"l", b"XOR", b"u", b"v"),
                made(b"k", b"ATH", b"u", b"v"),
                made(b"k", b"XOR", b"w", b"v"),
                made(b"k", b"XOR", b"u", b"w"),
            ] {
                assert_ne!(first, other);
            }
        };
        for length in [32, 33, 64, 200] {
            check(length);
        }
        assert_eq!(kdf_a(b"k", b"XOR", b"u", b"v", 0).len(), 0);
    }
}

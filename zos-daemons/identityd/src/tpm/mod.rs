//! A TPM 2.0, as far as a small secret is sealed to it (TCG, "TPM 2.0 Library", parts 1 to 3; the primary key by
//! the template of "TCG TPM v2.0 Provisioning Guidance", section 7.5.1).
//!
//! ```text
//!  seal      CreatePrimary ─▶ session ─▶ Create(secret) ─▶ Blob { parent, public, private }     for a file
//!  unseal    CreatePrimary ─▶ is it that parent? ─▶ session ─▶ Load ─▶ Unseal ─▶ secret
//! ```
//! The primary key is made anew from the chip's own seed each time, and is the same until the chip's owner hierarchy is
//! cleared: nothing is kept in the TPM. No PCR is asked (docs/adr/0003). Commands are written by hand: six of them,
//! and a session needs their bare parameters.

mod port;
mod session;
mod wire;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::port::{DEVICE, Port, Stream};
use self::session::{Command, Secret, Session};
use self::wire::{AUTHORIZED, HEADER, PLAIN, Reader, Writer};

const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;

/// TPM_RH_OWNER.
const OWNER: u32 = 0x4000_0001;
/// TPM_RS_PW: a password, and here an empty one.
const PASSWORD: u32 = 0x4000_0009;

/// TPM_ALG_SHA256.
const SHA256: u16 = 0x000b;
const AES: u16 = 0x0006;
const KEYED_HASH: u16 = 0x0008;
const NO_ALGORITHM: u16 = 0x0010;
const ECC: u16 = 0x0023;
const CFB: u16 = 0x0043;
const NIST_P256: u16 = 0x0003;

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
const STORAGE_KEY: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, userWithAuth, noDA.
const SEALED: u32 = 0x0000_0452;

/// Why a TPM didn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// It can't be reached.
    #[error("{0}: talk to the TPM")]
    Io(&'static str, #[source] std::io::Error),
    /// It says no, by this response code.
    #[error("{0}: the TPM answers {1:#010x}")]
    Refused(&'static str, u32),
    /// Its answer can't be, and why.
    #[error("{0}: the TPM's answer is malformed: {1}")]
    Malformed(&'static str, &'static str),
    /// Its primary key isn't the one that the secret was sealed under.
    #[error("the TPM is another than the one that sealed this, or was cleared since")]
    OtherParent,
    /// The kernel gave no random bytes.
    #[error("draw random bytes for the TPM")]
    Random,
}

/// A sealed secret: without its TPM it is nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// The name of the key that it is sealed under.
    pub parent: Vec<u8>,
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// What TPM2B_PRIVATE holds.
    pub private: Vec<u8>,
}

/// Something in the TPM.
#[derive(Clone, Debug)]
struct Loaded {
    handle: u32,
    /// The hash of its public part.
    name: Vec<u8>,
}

/// The key that others are sealed under.
struct Primary {
    object: Loaded,
    x: [u8; 32],
    y: [u8; 32],
}

/// A TPM.
pub struct Tpm {
    port: Box<dyn Port + Send>,
}

impl std::fmt::Debug for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tpm")
    }
}

impl Tpm {
    /// The TPM behind a port. Nothing is asked yet.
    pub fn behind(port: impl Port + Send + 'static) -> Self {
        Self { port: Box::new(port) }
    }

    /// Seals a secret, at most 128 bytes of it.
    pub fn seal(&mut self, secret: &[u8]) -> Result<Blob, TpmError> {
        self.with_primary(|port, primary, session| {
            let (mut sensitive, mut public, mut parameters) =
                (Writer::default(), Writer::default(), Writer::default());
            // No password, the secret.
            sensitive.sized(&[]).sized(secret);
            public.u16(KEYED_HASH).u16(SHA256).u32(SEALED).sized(&[]).u16(NO_ALGORITHM).sized(&[]);
            // Nothing from outside, no PCR.
            parameters.sized(sensitive.done()).sized(public.done()).sized(&[]).u32(0);
            let create = Command {
                what: "TPM2_Create",
                code: CREATE,
                object: &primary.object,
                parameters: parameters.done(),
                secret: Secret::In,
                makes: false,
            };
            let (_, answer) = session.run(port, &create)?;
            let mut answer = Reader::new(create.what, &answer);
            let private = answer.sized()?.to_vec();
            let public = answer.sized()?.to_vec();
            Ok(Blob { parent: primary.object.name.clone(), public, private })
        })
    }

    /// Gives back what was sealed by this TPM.
    pub fn unseal(&mut self, blob: &Blob) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.with_primary(|port, primary, session| {
            if primary.object.name != blob.parent {
                return Err(TpmError::OtherParent);
            }
            let mut parameters = Writer::default();
            parameters.sized(&blob.private).sized(&blob.public);
            let load = Command {
                what: "TPM2_Load",
                code: LOAD,
                object: &primary.object,
                parameters: parameters.done(),
                secret: Secret::None,
                makes: true,
            };
            let (handle, _) = session.run(port, &load)?;
            let unseal = Command {
                what: "TPM2_Unseal",
                code: UNSEAL,
                object: &Loaded { handle, name: name(&blob.public) },
                parameters: &[],
                secret: Secret::Out,
                makes: false,
            };
            let unsealed = session.run(port, &unseal);
            flush(port, handle);
            let (_, answer) = unsealed?;
            let mut answer = Reader::new(unseal.what, &answer);
            let secret = Zeroizing::new(answer.sized()?.to_vec());
            answer.end()?;
            Ok(secret)
        })
    }

    /// Whatever comes of it, nothing stays in the TPM.
    fn with_primary<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Port, &Primary, &mut Session) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let port = self.port.as_mut();
        let (handle, answer) = create_primary(port)?;
        let done = primary(handle, &answer).and_then(|primary| {
            let mut session = Session::begin(port, &primary)?;
            let done = work(port, &primary, &mut session);
            flush(port, session.handle);
            done
        });
        flush(port, handle);
        done
    }
}

/// Makes the storage primary key of the owner hierarchy; its handle and the answer's parameters.
fn create_primary(port: &mut dyn Port) -> Result<(u32, Vec<u8>), TpmError> {
    const WHAT: &str = "TPM2_CreatePrimary";
    let (mut public, mut body) = (Writer::default(), Writer::default());
    public.u16(ECC).u16(SHA256).u32(STORAGE_KEY).sized(&[]);
    public.u16(AES).u16(128).u16(CFB).u16(NO_ALGORITHM).u16(NIST_P256).u16(NO_ALGORITHM);
    public.sized(&[0; 32]).sized(&[0; 32]);
    let mut sensitive = Writer::default();
    sensitive.sized(&[]).sized(&[]);
    // An authorization by an empty password: handle, no nonce, no attributes, no password.
    body.u32(OWNER).u32(9).u32(PASSWORD).sized(&[]).u8(0).sized(&[]);
    body.sized(sensitive.done()).sized(public.done()).sized(&[]).u32(0);
    let answer = exchange(port, WHAT, AUTHORIZED, CREATE_PRIMARY, &[body.done()])?;
    let mut answer = wire::body(WHAT, AUTHORIZED, &answer)?;
    let (handle, length) = (answer.u32()?, answer.u32()? as usize);
    Ok((handle, answer.take(length)?.to_vec()))
}

/// Reads the primary key that a TPM says it has made.
fn primary(handle: u32, parameters: &[u8]) -> Result<Primary, TpmError> {
    const WHAT: &str = "TPM2_CreatePrimary";
    const OTHER: &str = "the key is not as asked for";
    let public = Reader::new(WHAT, parameters).sized()?;
    let mut reader = Reader::new(WHAT, public);
    reader.is_u16(ECC, OTHER)?;
    reader.is_u16(SHA256, OTHER)?;
    if reader.u32()? != STORAGE_KEY || !reader.sized()?.is_empty() {
        return Err(TpmError::Malformed(WHAT, OTHER));
    }
    for wanted in [AES, 128, CFB, NO_ALGORITHM, NIST_P256, NO_ALGORITHM] {
        reader.is_u16(wanted, OTHER)?;
    }
    let (x, y) = (coordinate(reader.sized()?)?, coordinate(reader.sized()?)?);
    reader.end()?;
    Ok(Primary { object: Loaded { handle, name: name(public) }, x, y })
}

/// A coordinate in full: older TPMs leave leading zeros out.
fn coordinate(told: &[u8]) -> Result<[u8; 32], TpmError> {
    let mut full = [0; 32];
    let from = full.len().checked_sub(told.len());
    let from = from.ok_or(TpmError::Malformed("TPM2_CreatePrimary", "a coordinate is too long"))?;
    full[from..].copy_from_slice(told);
    Ok(full)
}

/// The name of what has this public part (part 1, section 16).
fn name(public: &[u8]) -> Vec<u8> {
    [&SHA256.to_be_bytes()[..], &Sha256::digest(public)].concat()
}

/// The kernel forgets it too when the device is closed; a TPM without it has few places.
fn flush(port: &mut dyn Port, handle: u32) {
    if let Err(error) =
        exchange(port, "TPM2_FlushContext", PLAIN, FLUSH_CONTEXT, &[&handle.to_be_bytes()])
    {
        tracing::warn!("{}", zos_daemon::CallError::failed(&error));
    }
}

/// Sends a command; the answer is as it came.
fn exchange(
    port: &mut dyn Port,
    what: &'static str,
    tag: u16,
    code: u32,
    parts: &[&[u8]],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let length = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    let size = u32::try_from(length).expect("a few hundred bytes");
    let mut command = Writer::default();
    command.u16(tag).u32(size).u32(code);
    for part in parts {
        command.bytes(part);
    }
    port.exchange(command.done()).map_err(|error| TpmError::Io(what, error))
}

#[cfg(test)]
mod tests;

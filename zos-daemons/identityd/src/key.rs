//! The key file: `key.pem`, PKCS#8 in PEM (RFC 5958, RFC 8410), mode 0600.
//!
//! ```text
//!  read ─▶ Missing ─ write ─▶ key.pem.new ─ fsync ─ rename ─ fsync of the folder ─▶ Key
//!       ├▶ Key
//!       └▶ Unreadable    left as it is, for a person to look at; never overwritten
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use zeroize::Zeroizing;

/// The file's name in the daemon's folder.
pub const FILE: &str = "key.pem";
/// No key's PEM is longer.
const MAX_PEM: u64 = 4096;

/// What the folder holds.
#[derive(Debug)]
pub enum Found {
    /// No key was ever kept here.
    Missing,
    /// The key.
    Key(Box<SigningKey>),
    /// Something that is no key, or that can't be read; why, in words.
    Unreadable(String),
}

/// Why no key could be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel gave no random bytes.
    #[error("draw a key")]
    Random(#[source] getrandom::Error),
    /// The key could not be written as PKCS#8.
    #[error("encode the key")]
    Encode(#[source] ed25519_dalek::pkcs8::Error),
    /// The disk said no.
    #[error("keep the key")]
    Write(#[source] io::Error),
}

/// Looks for the key in a folder. A folder that isn't there holds none.
pub fn read(folder: &Path) -> Found {
    let path = folder.join(FILE);
    let mut pem = Zeroizing::new(String::new());
    let read = File::open(&path).and_then(|file| file.take(MAX_PEM).read_to_string(&mut pem));
    match read {
        Ok(_) => match SigningKey::from_pkcs8_pem(&pem) {
            Ok(key) => Found::Key(Box::new(key)),
            Err(error) => {
                Found::Unreadable(format!("{} holds no Ed25519 key: {error}", path.display()))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
        Err(error) => Found::Unreadable(format!("read {}: {error}", path.display())),
    }
}

/// Whether a file of the daemon's folder is whole, as far as can be told without a TPM.
pub fn is_sound(name: &str, bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    match name {
        FILE => text.is_ok_and(|pem| SigningKey::from_pkcs8_pem(pem).is_ok()),
        _ => serde_json::from_slice::<serde_json::Value>(bytes).is_ok(),
    }
}

/// Draws a new key from the kernel's random numbers, which block until they are good.
pub fn draw() -> Result<SigningKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Keeps a key for good: durable when this returns. A key that is there already is an error.
pub fn write(folder: &Path, key: &SigningKey) -> Result<(), KeyError> {
    // Without the public half, which OpenSSL before 3.2 doesn't read.
    let bytes = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let pem = bytes.to_pkcs8_pem(LineEnding::LF).map_err(KeyError::Encode)?;
    place(folder, FILE, pem.as_bytes()).map_err(KeyError::Write)
}

/// Puts a new file into the folder for good, readable by this daemon alone: durable when this returns. What is there
/// already is never overwritten.
pub(crate) fn place(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (new, path) = (folder.join(format!("{name}.new")), folder.join(name));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A link fails where a rename would replace: a key is never overwritten.
    fs::hard_link(&new, &path)?;
    fs::remove_file(&new)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&std::array::from_fn(|i| 0x20 + u8::try_from(i).unwrap()))
    }

    #[test]
    fn a_key_is_found_as_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Found::Missing));
        write(folder.path(), &key()).unwrap();
        let Found::Key(found) = read(folder.path()) else { panic!() };
        assert_eq!(*found, key());
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!folder.path().join("key.pem.new").exists());
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &key()).unwrap();
        assert!(write(folder.path(), &draw().unwrap()).is_err());
        let Found::Key(found) = read(folder.path()) else { panic!() };
        assert_eq!(*found, key());
        // and the left-over of the failed attempt is in nobody's way
        fs::remove_file(folder.path().join(FILE)).unwrap();
        write(folder.path(), &key()).unwrap();
    }

    #[test]
    fn what_is_no_key_is_told_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let check = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(folder.path()), Found::Unreadable(_)));
            assert_eq!(fs::read(&path).unwrap(), text);
        };
        check(b"");
        check(b"\xff\xfe");
        check(b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n");
        check(&[b'A'; 10_000]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read(folder.path()), Found::Unreadable(_)));
    }

    /// What `openssl genpkey -algorithm ed25519` writes for this seed.
    #[test]
    fn the_form_is_the_one_that_others_read() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &key()).unwrap();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        let expected = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/\n\
            -----END PRIVATE KEY-----\n";
        assert_eq!(text, expected);
    }
}

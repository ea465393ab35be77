//! The twin's key: one file, PKCS#8 PEM, readable by its owner alone.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};

use crate::exit::Usage;

/// Where the key is: as told, else in the user's configuration.
pub(crate) fn path(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = told {
        return Ok(path.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_CONFIG_HOME")
        .or_else(|| Some(set("HOME")?.join(".config")))
        .map(|folder| folder.join("zos/key"))
        .ok_or_else(|| Usage("there is no HOME; say with --key where the key is".into()).into())
}

/// Makes a new key. A file that is there stays as it is.
pub(crate) fn create(path: &Path) -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("draw a key: {e}"))?;
    let key = SigningKey::from_bytes(&seed);
    // without the public key, the form that every OpenSSL reads (RFC 5958, version 1)
    let pem = KeypairBytes { secret_key: key.to_bytes(), public_key: None }
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|e| anyhow!("write the key as PEM: {e}"))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} is there already and is never replaced; name another with --key",
                path.display()
            )
        }
        file => file.with_context(|| format!("make {}", path.display()))?,
    };
    file.write_all(pem.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(key)
}

/// Reads the key; none when there is no such file.
pub(crate) fn load(path: &Path) -> anyhow::Result<Option<SigningKey>> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(|| format!("read {shown}"))?,
    };
    if metadata.mode() & 0o077 != 0 {
        bail!("others may read the key {shown}; take that away: chmod 600 {shown}");
    }
    let pem = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
    let key = SigningKey::from_pkcs8_pem(&pem)
        .map_err(|e| anyhow!("{shown} is no Ed25519 key in PKCS#8 PEM: {e}"))?;
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zos/key");
        assert!(load(&path).unwrap().is_none());
        let key = create(&path).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), key);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(create(&path).unwrap_err().to_string().contains("never replaced"));
        assert_eq!(load(&path).unwrap().unwrap(), key);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    /// `openssl genpkey -algorithm ed25519` of the seed 00 01 … 1f (RFC 8410, section 7).
    #[test]
    fn a_key_made_by_openssl_is_read() {
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
            -----END PRIVATE KEY-----\n";
        let key = SigningKey::from_pkcs8_pem(pem).unwrap();
        assert_eq!(
            zos_types::Id::from(&key.verifying_key()).to_string(),
            "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy"
        );
    }
}

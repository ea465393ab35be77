//! `zos unlock`: a volume's key, from a file or from the twin's own, handed over sealed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use zeroize::Zeroizing;
use zos_api::client::Client;
use zos_api::handover::{KEY, Key};
use zos_types::deployment::KeyHolder;
use zos_types::volume::VolumeKey;
use zos_types::{NodeId, WorkloadName};

use crate::cli::Unlock;
use crate::exit::Usage;
use crate::output::Output;

/// A volume that was opened.
#[derive(Serialize)]
struct Unlocked<'a> {
    volume: &'a WorkloadName,
    /// Whether this key is the volume's from now on; else it was before.
    first: bool,
}

pub(super) async fn run(unlock: &Unlock, client: &Client, output: Output) -> anyhow::Result<()> {
    let Unlock { volume, key_file, made_on } = unlock;
    let file = key_file.as_deref().map(read).transpose()?;
    let first = hand_over(client, volume, file, *made_on).await?;
    let shown = Unlocked { volume, first };
    output.show(&shown, || {
        let note = if first { "; this is its key from now on" } else { "" };
        format!("opened {volume}{note}\n")
    })
}

/// Hands a volume's key over, from the twin's own without another; tells whether it is the first one.
pub(super) async fn hand_over(
    client: &Client,
    volume: &WorkloadName,
    key: Option<Key>,
    made_on: Option<NodeId>,
) -> anyhow::Result<bool> {
    let VolumeKey { holder, salt, given, .. } = client.volume_key(volume).await?;
    if holder == KeyHolder::Node {
        bail!("the node holds the key of {volume}, and opens it by itself");
    }
    let key = match key {
        Some(key) => key,
        None => client.derive_key(&salt.unwrap_or_default(), made_on)?,
    };
    client.unlock(volume, &key).await?;
    Ok(!given)
}

/// A key that lies in a file, as it is.
fn read(path: &Path) -> anyhow::Result<Key> {
    let shown = path.display();
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY + 1));
    let file = File::open(path).with_context(|| format!("open {shown}"))?;
    // One more tells a longer file from a key.
    file.take(KEY as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("read {shown}"))?;
    let wrong = || {
        Usage(format!(
            "{shown} is no key: exactly {KEY} bytes, as from `head -c {KEY} /dev/urandom`"
        ))
    };
    let key: Key = Zeroizing::new(bytes[..].try_into().map_err(|_| wrong())?);
    if key[..KEY / 2] == key[KEY / 2..] {
        return Err(Usage(format!("{shown} is no key: its two halves are the same")).into());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], good: bool| {
            let path = folder.path().join("key");
            std::fs::write(&path, bytes).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok_and(|key| key[..] == *bytes), good, "{}", bytes.len());
        };
        let key: Vec<u8> = (0..64).collect();
        check(&key, true);
        check(&key[..63], false);
        check(&[&key[..], b"\n"].concat(), false);
        check(&[], false);
        check(&[9; 64], false);
        assert!(read(&folder.path().join("absent")).is_err());
    }
}

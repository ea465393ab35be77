//! Volumes over a folder that stands for a pool; devices are tested where there is device-mapper.

use zos_types::Bytes;
use zos_types::deployment::Class;
use zos_types::unit::{GIB, MIB};

use super::*;
use crate::disk::header::{self, Header};

/// Seals by turning bytes around, and checks the context.
struct Turned;

impl Keys for Turned {
    async fn seal(&self, context: String, secret: &[u8]) -> Result<Vec<u8>, CallError> {
        Ok(secret.iter().rev().copied().chain(context.bytes()).collect())
    }

    async fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let secret = sealed.strip_suffix(context.as_bytes()).unwrap();
        Ok(Zeroizing::new(secret.iter().rev().copied().collect()))
    }
}

fn pool(root: &tempfile::TempDir, id: u64, class: Class) -> Pool {
    let _ = std::fs::create_dir(root.path().join("@volumes"));
    let header = Header { disk_size: GIB, ..header::sample(id) };
    Pool { header, disk: "sda".into(), class, block: 512, root: root.path().to_owned() }
}

fn wanted(name: &str, size: u64) -> CreateVolume {
    CreateVolume {
        twin: "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap(),
        name: name.parse().unwrap(),
        size: Bytes(size),
        class: Class::Ssd,
        integrity: Integrity::None,
        key: KeyHolder::Node,
        holds: Default::default(),
    }
}

#[tokio::test]
async fn a_volume_is_made_once_and_found_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let mut volumes = Volumes::default();
    volumes.add_pool(pool(&root, 1, Class::Ssd)).unwrap();
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap();
    assert_eq!(made.change, Change::Created);
    let again = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap();
    assert_eq!((again.change, &again.volume), (Change::Unchanged, &made.volume));
    let other = volumes.create(wanted("web/data", 2 * MIB), &Turned).await;
    assert!(matches!(other, Err(CallError::Conflict { .. })), "{other:?}");

    let mut restarted = Volumes::default();
    restarted.add_pool(pool(&root, 1, Class::Ssd)).unwrap();
    assert_eq!(restarted.list(), vec![made.volume.clone()]);
    assert_eq!(restarted.rooms(), volumes.rooms());
    assert_eq!(restarted.rooms()[0].reserved, Bytes(MIB));

    restarted.delete(made.volume.twin, made.volume.name.clone()).await.unwrap();
    restarted.delete(made.volume.twin, made.volume.name.clone()).await.unwrap();
    assert!(restarted.list().is_empty());
    assert_eq!(restarted.rooms()[0].reserved, Bytes(0));
}

#[tokio::test]
async fn what_is_not_offered_names_its_field() {
    let mut volumes = Volumes::default();
    let mut check = async |change: fn(&mut CreateVolume), field: &str| {
        let mut wanted = wanted("web/data", MIB);
        change(&mut wanted);
        let refused = volumes.create(wanted, &Turned).await.unwrap_err();
        let (CallError::Invalid { errors, .. } | CallError::Full { errors, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(errors.iter().map(|e| &*e.pointer).collect::<Vec<_>>(), [field]);
    };
    check(|w| w.integrity = Integrity::Detect, "/integrity").await;
    check(|w| w.integrity = Integrity::Repair, "/integrity").await;
    check(|w| w.key = KeyHolder::Twin, "/key").await;
    check(|w| w.size = Bytes(0), "/size").await;
    check(|w| w.size = Bytes(4097), "/size").await;
    // no pool at all
    check(|_| (), "/size").await;
}

#[tokio::test]
async fn a_full_pool_says_what_is_left() {
    let root = tempfile::tempdir().unwrap();
    let mut volumes = Volumes::default();
    volumes.add_pool(pool(&root, 1, Class::Hdd)).unwrap();
    let refused = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap_err();
    assert_eq!(refused.to_string(), "no room for 1 MiB on ssd: at most 0 B can be had on ssd now");
    volumes.drop_pool(&format!("{:016x}", 1));
    assert!(volumes.rooms().is_empty());
}

#[test]
fn device_names_fit_and_differ() {
    let twin: TwinId = wanted("a/b", 1).twin;
    let name = |text: &str| device::name(&twin, &text.parse().unwrap());
    assert_eq!(name("a/b").len(), 36);
    assert_ne!(name("a/b"), name("a/c"));
}

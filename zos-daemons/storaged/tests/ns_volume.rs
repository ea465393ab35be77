//! Volumes against the running kernel: a loop device stands for the disk, and dm-crypt is the real
//! one. Needs root, btrfs and device-mapper; says why it was skipped where one is missing.

mod disks;

use std::fs::File;
use std::os::unix::fs::FileExt;

use disks::{Disk, Mounts, places, with_disks};
use storaged::pool::{self, Plan};
use storaged::volume::{Keys, Sealed, Volumes};
use zeroize::Zeroizing;
use zos_api::local::CallError;
use zos_api::local::storage::CreateVolume;
use zos_types::Bytes;
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::volume::Sealing;

/// Doesn't seal at all.
struct Plain;

impl Keys for Plain {
    async fn seal(&self, _: String, secret: &[u8]) -> Result<Sealed, CallError> {
        Ok(Sealed { bytes: secret.to_vec(), sealing: Sealing::Beside })
    }

    async fn unseal(&self, _: String, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CallError> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

#[test]
fn a_volume_is_encrypted_survives_a_restart_and_is_busy_while_open() {
    with_disks(|folder| {
        if !std::path::Path::new("/dev/mapper/control").exists() {
            eprintln!("skipped: needs device-mapper");
            return;
        }
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let plan = Plan { owner: None, state: true, state_pools: vec![], instead_of: None };
        let pool = pool::adopt(&disk.disk(), &plan, &places).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(pool));
    });
}

async fn live(pool: pool::Pool) {
    let twin = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap();
    let name: zos_types::WorkloadName = "web/data".parse().unwrap();
    let wanted = CreateVolume {
        twin,
        name: name.clone(),
        size: Bytes(64 << 20),
        class: Class::Ssd,
        integrity: Integrity::None,
        key: KeyHolder::Node,
        from: None,
        holds: Content::Disk,
    };
    let restart = || {
        let volumes = Volumes::default();
        assert!(volumes.add_pool(pool.clone()).unwrap().is_empty());
        volumes
    };
    let volumes = restart();
    volumes.create(wanted.clone(), &Plain).await.unwrap();
    let (volume, fd) = volumes.open(twin, name.clone(), Content::Disk, &Plain).await.unwrap();
    assert_eq!(volume.size, Bytes(64 << 20));
    let device = File::from(fd);
    // A new volume's ends are clear, and only a new one's are cleared.
    let mut end = vec![1; 1 << 20];
    for at in [0, 63 << 20] {
        device.read_exact_at(&mut end, at).unwrap();
        assert!(end.iter().all(|byte| *byte == 0), "noise at {at}");
    }
    let words = b"what a twin writes ".repeat(1000);
    device.write_all_at(&words, 0).unwrap();
    device.sync_all().unwrap();

    // Another storaged finds the same device, while the guest goes on.
    let again = restart();
    let (_, fd) = again.open(twin, name.clone(), Content::Disk, &Plain).await.unwrap();
    let mut read = vec![0; words.len()];
    File::from(fd).read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, words);
    for refused in [again.close(twin, name.clone()).await, volumes.delete(twin, name.clone()).await]
    {
        assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
    }

    // On the disk it is noise, and all of the file is there.
    let file = pool.root.join("@volumes").join(format!("{twin}/web.data"));
    let stored = std::fs::read(&file).unwrap();
    assert_eq!(stored.len(), 64 << 20);
    assert!(!stored.windows(19).any(|bytes| bytes == b"what a twin writes "));

    drop(device);
    again.close(twin, name.clone()).await.unwrap();
    again.close(twin, name.clone()).await.unwrap();
    let (_, fd) = again.open(twin, name.clone(), Content::Disk, &Plain).await.unwrap();
    File::from(fd).read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, words);
    let last = restart();
    last.delete(twin, name.clone()).await.unwrap();
    assert!(!file.exists() && last.list().is_empty());
    let gone = last.open(twin, name, Content::Disk, &Plain).await;
    assert!(matches!(gone, Err(CallError::NotFound { .. })), "{gone:?}");
}

//! identityd's way to a TPM against one that isn't ours: swtpm on this machine, without a node.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use identityd::tpm::{Port, Stream, Tpm, TpmError};
use identityd::wrap::{self, Make, Wraps};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use qemu_tests::swtpm::Swtpm;

fn tpm(swtpm: &Swtpm) -> Tpm {
    Tpm::behind(Stream(swtpm.connect().unwrap()))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_secret_is_given_back_by_the_tpm_that_sealed_it_alone() {
    let (first, second) = (folder(), folder());
    let swtpm = Swtpm::server(first.path()).unwrap();
    let blob = tpm(&swtpm).seal(b"a secret").unwrap();
    assert_eq!(&tpm(&swtpm).unseal(&blob).unwrap()[..], b"a secret");
    for part in [&blob.public, &blob.private] {
        assert!(!part.windows(8).any(|bytes| bytes == b"a secret"));
    }
    // Many times over: what is loaded is let go again, and a TPM without a resource manager has three places.
    let mut again = tpm(&swtpm);
    for _ in 0..8 {
        assert_eq!(&again.unseal(&blob).unwrap()[..], b"a secret");
    }
    drop(again);

    // Switched off and on it is the same one.
    drop(swtpm);
    let swtpm = Swtpm::server(first.path()).unwrap();
    assert_eq!(&tpm(&swtpm).unseal(&blob).unwrap()[..], b"a secret");
    let other = Swtpm::server(second.path()).unwrap();
    assert!(matches!(tpm(&other).unseal(&blob), Err(TpmError::OtherParent)));

    let mut changed = blob.clone();
    changed.private[40] ^= 1;
    assert!(matches!(tpm(&swtpm).unseal(&changed), Err(TpmError::Refused("TPM2_Load", _))));
    let mut changed = blob;
    changed.parent[5] ^= 1;
    assert!(matches!(tpm(&swtpm).unseal(&changed), Err(TpmError::OtherParent)));
}

/// Whatever is written to the bus and read from it.
struct Listener(Stream<std::os::unix::net::UnixStream>, Arc<std::sync::Mutex<Vec<u8>>>);

impl Port for Listener {
    fn exchange(&mut self, command: &[u8]) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
        let answer = self.0.exchange(command)?;
        let mut heard = self.1.lock().unwrap();
        heard.extend_from_slice(command);
        heard.extend_from_slice(&answer);
        Ok(answer)
    }
}

#[test]
fn who_listens_on_the_bus_hears_no_secret() {
    let state = folder();
    let swtpm = Swtpm::server(state.path()).unwrap();
    let heard = Arc::<std::sync::Mutex<Vec<u8>>>::default();
    let stream = Stream(swtpm.connect().unwrap());
    let mut listened = Tpm::behind(Listener(stream, Arc::clone(&heard)));
    let secret = [0x5a; 32];
    let blob = listened.seal(&secret).unwrap();
    assert_eq!(listened.unseal(&blob).unwrap()[..], secret);
    let heard = heard.lock().unwrap();
    assert!(heard.len() > 1000 && !heard.windows(16).any(|bytes| bytes == [0x5a; 16]));
}

/// Changes one bit of one answer.
struct Meddler {
    way: Stream<std::os::unix::net::UnixStream>,
    answers: usize,
    at: (usize, usize, u8),
    met: Arc<AtomicUsize>,
}

impl Port for Meddler {
    fn exchange(&mut self, command: &[u8]) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
        let mut answer = self.way.exchange(command)?;
        let (which, byte, bit) = self.at;
        if self.answers == which {
            let byte = byte % answer.len();
            answer[byte] ^= 1 << bit;
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        self.answers += 1;
        Ok(answer)
    }
}

/// Who changes what a TPM answers gets a refusal or nothing at all, and never another secret taken for the right one.
#[test]
fn who_meddles_on_the_bus_changes_no_secret() {
    let state = folder();
    let swtpm = Swtpm::server(state.path()).unwrap();
    let blob = tpm(&swtpm).seal(b"a secret").unwrap();
    let met = Arc::<AtomicUsize>::default();
    let mut runner =
        TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let run = runner.run(&(0..7_usize, any::<usize>(), 0..8_u8), |at| {
        let way = Stream(swtpm.connect().unwrap());
        let met = Arc::clone(&met);
        let mut meddled = Tpm::behind(Meddler { way, answers: 0, at, met });
        if let Ok(secret) = meddled.unseal(&blob) {
            prop_assert_eq!(&secret[..], b"a secret");
        }
        drop(meddled);
        // A handle that was meddled with is still loaded: as after the kernel closed its device.
        reset(&swtpm);
        Ok(())
    });
    run.unwrap();
    assert!(met.load(Ordering::Relaxed) > 100);
    assert_eq!(&tpm(&swtpm).unseal(&blob).unwrap()[..], b"a secret");
}

/// Flushes everything that is loaded: what the kernel's resource manager does when a device is closed.
fn reset(swtpm: &Swtpm) {
    let mut way = Stream(swtpm.connect().unwrap());
    for kind in [0x8000_0000_u32, 0x0200_0000] {
        for number in 0..3 {
            let mut flush = vec![0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65];
            flush.extend_from_slice(&(kind + number).to_be_bytes());
            way.exchange(&flush).unwrap();
        }
    }
}

/// What became of a folder's wrapping secrets.
fn told(wraps: &Wraps) -> (usize, usize, Vec<&str>) {
    let faults = wraps.faults.iter().map(|fault| fault.id.as_str()).collect();
    (wraps.open.len(), wraps.shut.len(), faults)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_node_keeps_what_its_tpm_sealed_whatever_becomes_of_the_tpm() {
    let (state, first, second) = (folder(), folder(), folder());
    let (a, b) = (Swtpm::server(first.path()).unwrap(), Swtpm::server(second.path()).unwrap());
    let load = |tpm: Option<Tpm>, make| wrap::load(state.path(), Ok(tpm), make);

    // No TPM, or a state that doesn't last: nothing is made.
    assert_eq!(told(&load(None, Make::First)), (0, 0, vec![]));
    assert_eq!(told(&load(Some(tpm(&a)), Make::Never)), (0, 0, vec![]));
    assert!(files(state.path()).is_empty());

    // The first boot with a TPM makes one, every other finds it.
    let made = load(Some(tpm(&a)), Make::First);
    assert_eq!(told(&made), (1, 0, vec![]));
    let kept = files(state.path());
    assert_eq!(kept.len(), 1);
    let found = load(Some(tpm(&a)), Make::First);
    assert!(told(&found) == (1, 0, vec![]) && found.open == made.open);

    // Another TPM, none, one that fails: nothing is opened, and nothing changes.
    assert_eq!(told(&load(Some(tpm(&b)), Make::First)), (0, 1, vec![wrap::OTHER]));
    assert_eq!(told(&load(None, Make::First)), (0, 1, vec![wrap::MISSING]));
    let failing =
        wrap::load(state.path(), Err(io::ErrorKind::PermissionDenied.into()), Make::First);
    assert_eq!(told(&failing), (0, 1, vec![wrap::FAILED]));
    assert_eq!(files(state.path()), kept);
    assert!(load(Some(tpm(&a)), Make::First).open == made.open);

    // By the farmer's word there is a further one, beside the first.
    let further = load(Some(tpm(&b)), Make::Further);
    assert!(told(&further) == (1, 1, vec![]) && further.open != made.open, "{:?}", further.faults);
    assert_eq!(files(state.path()).len(), 2);
    assert!(load(Some(tpm(&b)), Make::Further).open == further.open);
    assert!(load(Some(tpm(&a)), Make::First).open == made.open);
    assert_eq!(files(state.path()).len(), 2);
    assert!(files(state.path()).contains(&kept[0]));

    // A file that is broken, or newer than this code, is told and left, and none is made instead.
    let (name, text) = &kept[0];
    for (bad, word) in [("{".to_owned(), "EOF"), (newer(text), "newer version")] {
        std::fs::write(state.path().join(name), &bad).unwrap();
        let wraps = load(Some(tpm(&a)), Make::First);
        assert!(wraps.open.is_empty(), "{wraps:?}");
        let detail: Vec<&str> = wraps.faults.iter().map(|fault| fault.detail.as_str()).collect();
        assert!(detail.iter().any(|detail| detail.contains(word)), "{detail:?}");
        assert_eq!(std::fs::read_to_string(state.path().join(name)).unwrap(), bad);
        assert_eq!(files(state.path()).len(), 2);
    }
}

fn newer(text: &[u8]) -> String {
    String::from_utf8(text.to_vec()).unwrap().replace("\"version\": 1", "\"version\": 2")
}

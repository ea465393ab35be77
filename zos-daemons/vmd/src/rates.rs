//! What all VMs of a twin share of the node's disks and networks, as the farmer set it; unlimited unless he did.
//!
//! ```text
//!  zos.twin.disk=200MiB,5000       bytes a second, and operations: requests
//!  zos.twin.receive=100MiB         the same for frames that its guests receive
//!  zos.twin.transmit=50MiB,20000   and for those that they send
//! ```
//! A burst is what comes in a second. The buckets are a file for each twin (`zos_vmm_spec::rates`), which each of its
//! VMs maps. It lies in the runtime folder, so that a new vmd finds the one that VMs have mapped; none of them
//! can cut it, since their filters have no call for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zos_daemon::{Config, Reader};
use zos_types::Bytes;
use zos_vmm_spec::rates::{FILE_BYTES, MOST, TwinRates};
use zos_vmm_spec::{Bucket, Rate};

/// The farmer's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings(pub TwinRates);

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut rate = |key| {
            let rule = "write bytes a second, and operations if you like: 200MiB or 200MiB,5000";
            reader.with(key, rule, parse).unwrap_or_default()
        };
        Self(TwinRates {
            disk: rate("twin.disk"),
            receive: rate("twin.receive"),
            transmit: rate("twin.transmit"),
        })
    }
}

fn parse(text: &str) -> Option<Rate> {
    let (bytes, operations) = match text.split_once(',') {
        Some((bytes, operations)) => (bytes, Some(operations.trim().parse().ok()?)),
        None => (text, None),
    };
    let bytes = bytes.trim().parse::<Bytes>().ok()?.0;
    let bucket = |per_second: u64| {
        (1..=MOST).contains(&per_second).then_some(Bucket { per_second, burst: per_second })
    };
    let operations = match operations {
        Some(count) => Some(bucket(count)?),
        None => None,
    };
    Some(Rate { bytes: Some(bucket(bytes)?), operations })
}

/// Opens a twin's buckets, or makes them; buckets of other rates are made anew.
pub fn open(path: &Path, rates: &TwinRates) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            Read::by_ref(&mut file).take(FILE_BYTES as u64).read_to_end(&mut bytes)?;
            if TwinRates::read(&bytes).as_ref() == Ok(rates) {
                return Ok(file);
            }
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = options.create_new(true).mode(0o600).open(path)?;
    file.write_all(&rates.file())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn settings(words: &[(&str, &str)]) -> (TwinRates, Vec<String>) {
        let words = words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (Settings(rates), faults) = Reader::config(&words.collect());
        (rates, faults.into_iter().map(|fault| fault.id).collect())
    }

    #[test]
    fn what_the_farmer_may_write() {
        assert_eq!(settings(&[]), (TwinRates::default(), vec![]));
        let bucket = |per_second| Some(Bucket { per_second, burst: per_second });
        for (text, bytes, operations) in [
            ("200MiB", Some(200 << 20), None),
            ("4096, 7", Some(4096), Some(7)),
            ("1", Some(1), None),
            ("0", None, None),
            ("1MiB,0", None, None),
            ("1MiB,", None, None),
            ("fast", None, None),
            ("99999999TiB", None, None),
        ] {
            for key in ["twin.disk", "twin.receive", "twin.transmit"] {
                let (rates, faults) = settings(&[(key, text)]);
                let told = [rates.disk, rates.receive, rates.transmit];
                let told = told.into_iter().find(|rate| *rate != Rate::default());
                let rate =
                    |bytes| Rate { bytes: bucket(bytes), operations: operations.and_then(bucket) };
                assert_eq!(told, bytes.map(rate), "{key}={text}");
                assert_eq!(faults.is_empty(), bytes.is_some(), "{key}={text}: {faults:?}");
            }
        }
    }

    #[test]
    fn buckets_are_found_again_unless_their_rates_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("twin.rates");
        let (rates, _) = settings(&[("twin.disk", "1MiB")]);
        let first = open(&path, &rates).unwrap().metadata().unwrap();
        assert_eq!((first.len(), first.mode() & 0o777), (FILE_BYTES as u64, 0o600));
        assert_eq!(open(&path, &rates).unwrap().metadata().unwrap().ino(), first.ino());
        let (others, _) = settings(&[("twin.disk", "2MiB")]);
        let mut bytes = Vec::new();
        open(&path, &others).unwrap();
        File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(TwinRates::read(&bytes), Ok(others));
        fs::write(&path, "no buckets").unwrap();
        assert_eq!(open(&path, &rates).unwrap().metadata().unwrap().len(), FILE_BYTES as u64);
    }
}

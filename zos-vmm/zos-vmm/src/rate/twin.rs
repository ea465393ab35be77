//! The buckets that all VMs of a twin draw from: a file of `zos_vmm_spec::rates`, mapped.

use super::Limiter;
use super::bucket::Bucket;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vm_memory::{FileOffset, MmapRegion};
use zos_vmm_spec::rates::{FILE_BYTES, Flow, NotRates, TwinRates};

/// A twin's buckets.
#[derive(Clone, Debug)]
pub struct Twin {
    mapping: Arc<MmapRegion<()>>,
    rates: TwinRates,
}

/// Why a file can't be drawn from.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// Reading it.
    #[error("read the twin's rates")]
    Read(#[source] std::io::Error),
    /// It is another file.
    #[error(transparent)]
    Form(#[from] NotRates),
    /// Mapping it.
    #[error("map the twin's rates")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
}

impl Twin {
    /// Maps a file; its rates are read once, its buckets go on as they are.
    ///
    /// # Errors
    /// It isn't one of a twin's rates, or can't be mapped for writing.
    pub fn open(file: File) -> Result<Self, TwinError> {
        let mut bytes = [0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(TwinError::Read)?;
        let rates = TwinRates::read(&bytes)?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, 0), FILE_BYTES);
        Ok(Self { mapping: Arc::new(mapping.map_err(TwinError::Map)?), rates })
    }

    /// The shared part of a device's limiter.
    pub(super) fn limiter(&self, flow: Flow) -> Limiter {
        let rate = self.rates.of(flow);
        let [bytes, operations] = flow.places();
        let shared = |bucket: Option<_>, at| {
            let share = |bucket| Arc::new(Bucket::shared(bucket, self.mapping.clone(), at));
            bucket.map(share).into_iter().collect()
        };
        let (bytes, operations) = (shared(rate.bytes, bytes), shared(rate.operations, operations));
        Limiter { shared: true, ..Limiter::over(bytes, operations) }
    }
}

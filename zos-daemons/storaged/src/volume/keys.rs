//! Where a volume's key comes from and what it is sealed with.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;
use zos_api::local::identity::{Seal, Unseal};
use zos_daemon::{Bus, CallError};
use zos_types::volume::Sealing;

/// identityd answers at once, or it is being started again.
const SEALING: Duration = Duration::from_secs(20);

/// A sealed key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// What may lie on a disk.
    pub bytes: Vec<u8>,
    /// What opens it.
    pub sealing: Sealing,
}

/// Seals and unseals volumes' keys.
pub trait Keys: Send + Sync {
    /// Encrypts a secret for a context.
    fn seal(
        &self,
        context: String,
        secret: &[u8],
    ) -> impl Future<Output = Result<Sealed, CallError>> + Send;
    /// Decrypts what was sealed for the same context.
    fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, CallError>> + Send;
}

/// identityd seals.
impl Keys for Bus {
    async fn seal(&self, context: String, secret: &[u8]) -> Result<Sealed, CallError> {
        let data = BASE64_STANDARD.encode(secret);
        let sealed = soon(self.call(Seal { context, data })).await?;
        Ok(Sealed { bytes: decode(&sealed.data)?, sealing: sealed.sealing })
    }

    async fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let data = BASE64_STANDARD.encode(sealed);
        let secret = Zeroizing::new(soon(self.call(Unseal { context, data })).await?.data);
        decode(&secret).map(Zeroizing::new)
    }
}

/// The volume waits meanwhile, so not for ever.
async fn soon<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(SEALING, call).await;
    answer.unwrap_or_else(|_| Err(CallError::busy("identityd does not answer")))
}

fn decode(text: &str) -> Result<Vec<u8>, CallError> {
    BASE64_STANDARD.decode(text).map_err(|error| CallError::failed(&error))
}

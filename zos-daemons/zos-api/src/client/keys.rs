//! Keys of volumes that the twin holds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zos_types::volume::VolumeKey;
use zos_types::{Id, NodeId, WorkloadName};

use super::{Client, ClientError, body};
use crate::handover::{self, KEY, Key, SALT};
use crate::local::identity::PublicSealingKey;
use crate::node::KeyHandover;

impl Client {
    /// The key that the node wants things sealed to, by what it says.
    pub async fn sealing_key(&self) -> Result<PublicSealingKey, ClientError> {
        self.public("/v1/node/sealing-key").await
    }

    /// What is known of a volume's key.
    pub async fn volume_key(&self, volume: &WorkloadName) -> Result<VolumeKey, ClientError> {
        body(&self.signed("GET", &path(volume), &[]).await?)
    }

    /// The key of a volume with this salt that was made on a node; none: on this one.
    pub fn derive_key(&self, salt: &str, made_on: Option<NodeId>) -> Result<Key, ClientError> {
        let twin = self.key.as_ref().ok_or(ClientError::NoKey)?;
        let node = made_on.or_else(|| self.node_id());
        let node = node.ok_or_else(|| ClientError::Protocol("it has not answered yet".into()))?;
        let salt: [u8; SALT] = bytes("salt", salt)?;
        Ok(handover::derive(twin, &node, &salt))
    }

    /// Hands a volume's key over, sealed to a key that the node vouches for.
    pub async fn unlock(&self, volume: &WorkloadName, key: &[u8; KEY]) -> Result<(), ClientError> {
        let twin = self.key.as_ref().ok_or(ClientError::NoKey)?;
        let PublicSealingKey { key: public, signature } = self.sealing_key().await?;
        let node = self.node_id();
        let node = node.ok_or_else(|| ClientError::Protocol("it has not answered".into()))?;
        let (public, signature) = (bytes("sealing key", &public)?, bytes("signature", &signature)?);
        let context = handover::context(&node, &Id::from(&twin.verifying_key()), volume);
        let sealed = handover::seal(&node, &public, &signature, &context, key)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        let handover = KeyHandover { sealed: STANDARD.encode(sealed) };
        let text = serde_json::to_vec(&handover);
        let text = text.map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.signed("PUT", &path(volume), &text).await.map(drop)
    }
}

fn path(WorkloadName { deployment, workload }: &WorkloadName) -> String {
    format!("/v1/deployments/{deployment}/workloads/{workload}/key")
}

fn bytes<const N: usize>(what: &str, text: &str) -> Result<[u8; N], ClientError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| ClientError::Protocol(format!("its {what} is not {N} bytes in base64")))
}

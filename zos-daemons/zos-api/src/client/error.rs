//! How a request to a node fails.

use zos_types::Problem;

use super::Address;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("reach {address}")]
    Unreachable {
        /// Where.
        address: Address,
        /// How it failed.
        source: std::io::Error,
    },
    /// Somebody answers, but is not the node asked for.
    #[error("{address} is not the node asked for: {detail}")]
    WrongNode {
        /// Where.
        address: Address,
        /// What its certificate says.
        detail: String,
    },
    /// The node says no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// A signed request was wanted without a key.
    #[error("this needs the twin's key")]
    NoKey,
    /// The answer is none of this API.
    #[error("the node answered otherwise than expected: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The node's refusal, if that is what it is.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

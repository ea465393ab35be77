//! How a local call fails.

use serde::{Deserialize, Serialize};
use zos_types::FieldError;

/// An answer other than success, the same words on every interface (`org.zos.Error.<Variant>`).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
pub enum CallError {
    /// There is no such thing.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.NotFound")]
    NotFound {
        /// Which thing, in words.
        detail: String,
    },
    /// What was asked for breaks rules; asking again is no use.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Invalid")]
    Invalid {
        /// All in one sentence.
        detail: String,
        /// Field by field.
        #[serde(default)]
        errors: Vec<FieldError>,
    },
    /// It contradicts what is there.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Conflict")]
    Conflict {
        /// What stands against it.
        detail: String,
        /// With deployments: the version that would be taken.
        #[serde(default)]
        next_version: Option<u64>,
    },
    /// The node has no room for it.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Full")]
    Full {
        /// What there is too little of.
        detail: String,
        /// Field by field.
        #[serde(default)]
        errors: Vec<FieldError>,
    },
    /// This caller may not call this method.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Denied")]
    Denied {
        /// Who may not do what.
        detail: String,
    },
    /// Not now; asking again later may help.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Busy")]
    Busy {
        /// What it waits for.
        detail: String,
    },
    /// It was tried and went wrong.
    #[error("{detail}")]
    #[serde(rename = "org.zos.Error.Failed")]
    Failed {
        /// What was tried, on what, and the cause.
        detail: String,
    },
}

impl CallError {
    /// It was tried and went wrong: an error with all its causes, in one line.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            detail = format!("{detail}: {cause}");
            source = cause.source();
        }
        Self::Failed { detail }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::NotFound { detail: detail.into() }
    }

    /// Rules are broken.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into(), errors: Vec::new() }
    }

    /// Not now.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::Busy { detail: detail.into() }
    }
}

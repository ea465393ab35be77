//! What became of a deployment.
//!
//! ```text
//!  pending ─▶ preparing ─▶ running | ready ─▶ stopping ─▶ (gone)
//!                 ▲            │
//!                 │            ├─▶ locked          waits for the twin's key; so does a VM that needs it
//!                 │            ├─▶ at-risk, rebuilding     a thing to keep that works, on one copy of two
//!                 │ retry_at   ├─▶ stopped          a VM that ended and is not to run again
//!                 ├─ degraded ◀┤                    a step failed; it is tried again
//!                 └─ quarantined                    a VM that ends again and again; it is left alone for long
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deployment::Deployment;
use crate::name::Name;
use crate::volume::VolumeStatus;

/// The state of a workload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Admitted; nothing was done yet.
    Pending,
    /// Being made or started.
    Preparing,
    /// A VM that runs.
    Running,
    /// A thing to keep that exists.
    Ready,
    /// A thing to keep that waits for its twin's key, or a VM that needs such a thing.
    Locked {
        /// Why, and what to do.
        reason: String,
    },
    /// It works, and its data has no second copy any more, or its disk fails.
    AtRisk {
        /// Why, and what is done about it.
        reason: String,
    },
    /// It works, and a second copy of its data is being made.
    Rebuilding {
        /// Why, and how far it is.
        reason: String,
    },
    /// A VM that ended and stays so.
    Stopped {
        /// How it ended.
        cause: String,
    },
    /// A step failed; it is tried again.
    Degraded {
        /// What failed.
        fault: String,
        /// When it is tried again.
        #[schema(value_type = String, format = DateTime)]
        retry_at: Timestamp,
    },
    /// A VM that ends again and again. It is kept, and left alone until it is changed or a long time has
    /// passed.
    Quarantined {
        /// How it ended the last time, and how often in a row.
        cause: String,
        /// When it is started again, unchanged.
        #[schema(value_type = String, format = DateTime)]
        retry_at: Timestamp,
    },
    /// Being taken down.
    Stopping,
}

impl State {
    /// Whether it is as it was asked for, or has ended as it may: nothing more is to be waited for.
    pub fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Running
                | Self::Ready
                | Self::AtRisk { .. }
                | Self::Rebuilding { .. }
                | Self::Stopped { .. }
        )
    }

    /// The state's name, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Locked { .. } => "locked",
            Self::AtRisk { .. } => "at-risk",
            Self::Rebuilding { .. } => "rebuilding",
            Self::Stopped { .. } => "stopped",
            Self::Degraded { .. } => "degraded",
            Self::Quarantined { .. } => "quarantined",
            Self::Stopping => "stopping",
        }
    }
}

/// One workload as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkloadStatus {
    /// Its state.
    #[serde(flatten)]
    pub state: State,
    /// Since when, by the node's clock.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How often a VM was started again.
    #[serde(default)]
    pub restarts: u32,
    /// A VM's address on its first network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<std::net::IpAddr>,
    /// More of a volume, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStatus>,
}

impl WorkloadStatus {
    /// A workload in a state since a time; what only some have is none.
    pub fn new(state: State, since: Timestamp) -> Self {
        Self { state, since, restarts: 0, address: None, volume: None }
    }
}

/// A deployment as it was asked for, and as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentStatus {
    /// Its name.
    pub name: Name,
    /// What was asked for.
    pub deployment: Deployment,
    /// Its workloads as they are. One that is no longer asked for stays until it is gone.
    pub workloads: BTreeMap<Name, WorkloadStatus>,
}

//! Local calls: varlink over Unix sockets.
//!
//! ```text
//!  Bus ── call, watch, insist ──▶ socket ──▶ Server ──▶ Router ──▶ a handler
//!   client.rs                    guard.rs    serve.rs   router.rs
//! ```
//! Framing, descriptors and peer credentials are zlink's; its server answers one call at a time,
//! and a daemon's calls may wait for long (for a disk, for a guest), so the serving loop here is
//! ours: a task for each connection (ADR 1).

mod client;
mod guard;
mod introspect;
mod router;
mod seats;
mod serve;

pub use client::{Bus, Watch};
pub use router::{Call, Router, Sink};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zos_api::local::CallError;

/// A call on the wire, before its method is known.
#[derive(Debug, Serialize, Deserialize)]
struct RawCall {
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

/// An error on the wire, before it is known whether it is one of ours.
#[derive(Debug, Serialize, Deserialize)]
struct RawError {
    error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

impl From<RawError> for CallError {
    fn from(raw: RawError) -> Self {
        let known = serde_json::to_value(&raw).and_then(serde_json::from_value::<Self>);
        known.unwrap_or_else(|_| Self::Failed {
            detail: format!("{} {}", raw.error, raw.parameters.unwrap_or_default()),
        })
    }
}

impl From<CallError> for RawError {
    fn from(error: CallError) -> Self {
        serde_json::to_value(error)
            .and_then(serde_json::from_value)
            .unwrap_or_else(|e| Self { error: e.to_string(), parameters: None })
    }
}

impl RawError {
    /// Which kind of error it is, as a metric's label.
    fn kind(&self) -> &'static str {
        match self.error.rsplit('.').next().unwrap_or_default() {
            "NotFound" => "not-found",
            "Invalid" | "InvalidParameter" => "invalid",
            "Conflict" => "conflict",
            "Full" => "full",
            "Denied" => "denied",
            "Busy" => "busy",
            _ => "failed",
        }
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

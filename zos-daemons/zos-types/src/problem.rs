//! How the node says no: RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::NodeId;

/// One field that breaks one rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901) into the request's body.
    pub pointer: String,
    /// Which rule is broken, in words that say what to write instead.
    pub rule: String,
}

impl FieldError {
    /// A rule broken at a pointer.
    pub fn new(pointer: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), rule: rule.into() }
    }
}

/// The prefix of every problem's `type`.
pub const URN: &str = "urn:zos:problem:";

/// An answer other than success (`application/problem+json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:zos:problem:<slug>`: what programs look at.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// This occurrence in words: what was wrong, and what to do.
    pub detail: String,
    /// The fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With a 401: the audience to sign for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// With a 401: the node's clock (RFC 3339), to date the next signature by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// With a 404 or 409 of a deployment: the version that the next `PUT` must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_version: Option<u64>,
}

impl Problem {
    /// A problem of a kind; `slug` is the end of its `type`.
    pub fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{URN}{slug}"),
            title: title.into(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
            audience: None,
            time: None,
            next_version: None,
        }
    }

    /// The end of `type`.
    pub fn slug(&self) -> &str {
        self.kind.strip_prefix(URN).unwrap_or(&self.kind)
    }
}

/// `<node id>/<epoch>`: whom a signed request is for. The epoch is a random word that changes with
/// each start of the API, so that no request can be replayed over a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audience {
    /// The node.
    pub node: NodeId,
    /// The API's epoch.
    pub epoch: String,
}

impl std::fmt::Display for Audience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.node, self.epoch)
    }
}

impl std::str::FromStr for Audience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, epoch) = text.split_once('/').ok_or("an audience is <node id>/<epoch>")?;
        let node = node.parse::<NodeId>().map_err(|e| e.to_string())?;
        let fits = (1..=64).contains(&epoch.len())
            && epoch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err("an epoch is 1 to 64 letters and digits".into());
        }
        Ok(Self { node, epoch: epoch.to_owned() })
    }
}

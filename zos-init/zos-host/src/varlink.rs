//! Varlink without a runtime: NUL-framed JSON over a Unix stream socket, descriptors beside it.
//!
//! ```text
//!  {"method":"org.zos.Init.ListUnits","parameters":{}}\0      ─▶
//!                                                             ◀─  {"parameters":{"units":[]}}\0
//!  {"method":"…WatchUnits","more":true}\0                     ─▶  ◀─ {"parameters":…,"continues":true}\0 …
//! ```
//! Format: varlink.org, "Method Call" and "Transport". Descriptors travel as SCM_RIGHTS with the first
//! byte of their message; a [`Connection`] queues them in order of arrival, and a call that
//! names N descriptors takes the first N of the queue.
//!
//! - [`Decoder`]: bytes in, messages out, bounded; no I/O.
//! - [`Connection`]: both directions over a non-blocking or blocking socket; PID 1's side.
//! - [`Client`]: blocking, one call at a time; for tools and tests.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod client;
mod connection;

pub use client::{CallError, Client, Replies};
pub use connection::{Connection, MAX_FDS, PeerCredentials, Received, peer_credentials};

/// Largest message that is taken, in bytes without the NUL.
pub const MAX_MESSAGE: usize = 1 << 20;

/// A method call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// `org.zos.Init.ListUnits`.
    pub method: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "or_null")]
    pub parameters: Map<String, Value>,
    /// More than one reply is wanted.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "or_null")]
    pub more: bool,
    /// No reply is wanted.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "or_null")]
    pub oneway: bool,
    /// The connection changes to another protocol afterwards; nobody here does.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "or_null")]
    pub upgrade: bool,
}

impl Call {
    /// A plain call.
    #[must_use]
    pub fn new(method: &str, parameters: Map<String, Value>) -> Self {
        Self { method: method.to_owned(), parameters, more: false, oneway: false, upgrade: false }
    }

    /// The method's interface and name: `("org.zos.Init", "ListUnits")`.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        self.method.rsplit_once('.')
    }
}

/// An answer: parameters of the method, or an error's name with its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Qualified name of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The result, or the error's parameters.
    #[serde(default, deserialize_with = "or_null")]
    pub parameters: Map<String, Value>,
    /// Another reply to the same call follows.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "or_null")]
    pub continues: bool,
}

impl Reply {
    /// The end of a call that went well.
    #[must_use]
    pub fn ok(parameters: Map<String, Value>) -> Self {
        Self { parameters, ..Self::default() }
    }

    /// One of several replies.
    #[must_use]
    pub fn continuing(parameters: Map<String, Value>) -> Self {
        Self { parameters, continues: true, ..Self::default() }
    }

    /// A failure by its name and parameters.
    #[must_use]
    pub fn failure(name: &str, parameters: Map<String, Value>) -> Self {
        Self { error: Some(name.to_owned()), parameters, continues: false }
    }

    /// A failure, with `{"detail": "..."}` for people.
    #[must_use]
    pub fn error(name: &str, detail: impl std::fmt::Display) -> Self {
        let mut parameters = Map::new();
        parameters.insert("detail".to_owned(), Value::String(detail.to_string()));
        Self::failure(name, parameters)
    }
}

/// Other implementations write `null` for what is left out.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A struct's JSON object, for [`Call::parameters`] and [`Reply::parameters`]; a value that is no
/// object (or cannot be written) gives an empty one.
pub fn object<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// A message as it goes over the wire: JSON and NUL.
pub fn encode<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(0);
    Ok(bytes)
}

/// A message was longer than the decoder's limit; the stream can't be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message is longer than {limit} bytes")]
pub struct TooLong {
    /// The limit.
    pub limit: usize,
}

/// Cuts a stream of bytes into messages. Never holds more than one message's limit and one read beyond it.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    partial: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Decoder {
    /// A decoder that takes messages of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), ready: VecDeque::new() }
    }

    /// Takes bytes as they came. After an error the stream is broken and stays so.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some(end) = bytes.iter().position(|b| *b == 0) {
            self.extend(&bytes[..end])?;
            self.ready.push_back(std::mem::take(&mut self.partial));
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes)
    }

    /// The next whole message, without its NUL.
    pub fn message(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// Nothing is held: neither a message nor a part of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.ready.is_empty()
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.partial.len() + bytes.len() > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A blocking client: one call at a time.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Call, Connection, Received, Reply};
use crate::error::{Context, Error};

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no: the error's name and its parameters.
    #[error("{name}: {}", .parameters.get("detail").and_then(Value::as_str).unwrap_or("no detail"))]
    Refused {
        /// `org.zos.Error.NotFound` ...
        name: String,
        /// As the server gave them; `detail` is for people.
        parameters: Map<String, Value>,
    },
    /// The reply doesn't have the shape that the caller expects.
    #[error("unexpected reply")]
    Shape(#[from] serde_json::Error),
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] Error),
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to a socket; each read waits for `timeout` at most.
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, Error> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).during("connect", path.display())?;
        stream.set_read_timeout(Some(timeout)).during("set timeout of", path.display())?;
        stream.set_write_timeout(Some(timeout)).during("set timeout of", path.display())?;
        Ok(Self { connection: Connection::new(stream.into()) })
    }

    /// Calls a method with the descriptors that its parameters name, and waits for its one reply.
    pub fn call<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: &P,
        fds: Vec<OwnedFd>,
    ) -> Result<R, CallError> {
        self.connection.send(&Call::new(method, super::object(parameters)), fds)?;
        let reply = self.reply()?;
        Ok(serde_json::from_value(Value::Object(reply.parameters))?)
    }

    /// Calls a method that answers again and again.
    pub fn watch<P: Serialize>(
        &mut self,
        method: &str,
        parameters: &P,
    ) -> Result<Replies<'_>, CallError> {
        let call = Call { more: true, ..Call::new(method, super::object(parameters)) };
        self.connection.send(&call, Vec::new())?;
        Ok(Replies { client: self, ended: false })
    }

    /// Descriptors that came with replies so far.
    pub fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        self.connection.take_fds(count)
    }

    fn reply(&mut self) -> Result<Reply, CallError> {
        let message = loop {
            if let Some(message) = self.connection.message() {
                break message;
            }
            match self.connection.receive()? {
                Received::Some => {}
                Received::Nothing => {
                    let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    return Err(Error::new("wait for", "reply", error).into());
                }
                Received::Closed => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(Error::new("wait for", "reply", error).into());
                }
            }
        };
        let reply: Reply = serde_json::from_slice(&message)?;
        match reply.error {
            Some(name) => Err(CallError::Refused { name, parameters: reply.parameters }),
            None => Ok(reply),
        }
    }
}

/// Replies of a call with `more`, until the server says that the last has come.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut Client,
    ended: bool,
}

impl Replies<'_> {
    /// Waits for the next reply; `None` after the last.
    pub fn reply<R: DeserializeOwned>(&mut self) -> Result<Option<R>, CallError> {
        if self.ended {
            return Ok(None);
        }
        let reply = self.client.reply()?;
        self.ended = !reply.continues;
        Ok(Some(serde_json::from_value(Value::Object(reply.parameters))?))
    }
}

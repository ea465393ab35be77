//! The calling side.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;
use zlink::varlink_service::Error as Refusal;
use zos_api::local::{CallError, Method};

use super::guard::Guarded;
use super::{RawCall, RawError};
use crate::Backoff;

type Connection = zlink::Connection<Guarded>;

/// The way to the other daemons: a connection for each call, so that a daemon that was started
/// again is simply met at the next one. A call waits as long as its answer takes.
#[derive(Clone, Debug)]
pub struct Bus {
    dir: PathBuf,
    within: Option<Duration>,
}

impl Default for Bus {
    fn default() -> Self {
        Self::at("/run/zos")
    }
}

impl Bus {
    /// A bus whose sockets lie in another folder, as tests have it.
    pub fn at(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), within: None }
    }

    /// The same bus, on which a call that is not answered in time is `Busy`. Streams may last.
    pub fn within(&self, bound: Duration) -> Self {
        Self { dir: self.dir.clone(), within: Some(bound) }
    }

    /// Calls a method on its interface's own socket.
    pub async fn call<M: Method>(&self, method: M) -> Result<M::Reply, CallError> {
        Ok(self.exchange(M::INTERFACE.socket, &method, Vec::new()).await?.0)
    }

    /// Calls a method on a given daemon's socket: for `org.zos.Service`, which all have.
    pub async fn call_on<M: Method>(&self, socket: &str, method: M) -> Result<M::Reply, CallError> {
        Ok(self.exchange(socket, &method, Vec::new()).await?.0)
    }

    /// Calls a method with descriptors beside it, and gives those beside its reply.
    pub async fn call_with_fds<M: Method>(
        &self,
        method: M,
        fds: Vec<OwnedFd>,
    ) -> Result<(M::Reply, Vec<OwnedFd>), CallError> {
        self.exchange(M::INTERFACE.socket, &method, fds).await
    }

    /// Calls a method that answers as a stream.
    pub async fn watch<M: Method>(&self, method: M) -> Result<Watch<M::Reply>, CallError> {
        let mut connection = self.connect(M::INTERFACE.socket).await?;
        let call = zlink::Call::new(raw(&method)?).set_more(true);
        connection.send_call(&call, Vec::new()).await.map_err(|e| broken(M::NAME, &e))?;
        Ok(Watch { connection, ended: false, name: M::NAME, reply: PhantomData })
    }

    /// Calls a method until it is answered, however often the other daemon has to be started first.
    /// Each kind of failure is logged once.
    pub async fn insist<M: Method>(&self, method: impl Fn() -> M) -> M::Reply {
        let (mut failures, mut said) = (0, None);
        loop {
            match self.call(method()).await {
                Ok(reply) => return reply,
                Err(error) => {
                    if said.as_ref() != Some(&error) {
                        tracing::warn!("{}: {error}; it is asked again", M::NAME);
                    }
                    said = Some(error);
                }
            }
            failures += 1;
            tokio::time::sleep(Backoff::default().jittered(failures)).await;
        }
    }

    /// Watches for ever: a stream that breaks or ends is asked for again. Ends when `take` says that
    /// it takes no more.
    pub async fn follow<M: Method, F>(
        &self,
        method: impl Fn() -> M,
        mut take: impl FnMut(M::Reply) -> F,
    ) where
        F: Future<Output = bool>,
    {
        let (mut failures, mut said) = (0, None);
        loop {
            let error = match self.watch(method()).await {
                Err(error) => error,
                Ok(mut watch) => loop {
                    match watch.next().await {
                        Some(Ok(value)) => {
                            (failures, said) = (0, None);
                            if !take(value).await {
                                return;
                            }
                        }
                        Some(Err(error)) => break error,
                        None => break CallError::busy("the stream has ended"),
                    }
                },
            };
            if said.as_ref() != Some(&error) {
                tracing::warn!("{}: {error}; it is watched again", M::NAME);
            }
            said = Some(error);
            failures += 1;
            tokio::time::sleep(Backoff::default().jittered(failures)).await;
        }
    }

    async fn exchange<M: Method>(
        &self,
        socket: &str,
        method: &M,
        fds: Vec<OwnedFd>,
    ) -> Result<(M::Reply, Vec<OwnedFd>), CallError> {
        let Some(bound) = self.within else { return self.ask(socket, method, fds).await };
        let late = |_| {
            let seconds = bound.as_secs_f64();
            CallError::busy(format!("{}: no answer within {seconds} s", M::NAME))
        };
        tokio::time::timeout(bound, self.ask(socket, method, fds)).await.map_err(late)?
    }

    async fn ask<M: Method>(
        &self,
        socket: &str,
        method: &M,
        fds: Vec<OwnedFd>,
    ) -> Result<(M::Reply, Vec<OwnedFd>), CallError> {
        let mut connection = self.connect(socket).await?;
        let call = zlink::Call::new(raw(method)?);
        connection.send_call(&call, fds).await.map_err(|e| broken(M::NAME, &e))?;
        let (reply, fds) =
            connection.receive_reply::<Value, RawError>().await.map_err(|e| broken(M::NAME, &e))?;
        let value = reply?.into_parameters().unwrap_or_else(|| Value::Object(Default::default()));
        Ok((parse(M::NAME, value)?, fds))
    }

    async fn connect(&self, socket: &str) -> Result<Connection, CallError> {
        let file = Path::new(socket).file_name().unwrap_or_default();
        let path = self.dir.join(file);
        let silent = |e: &dyn std::fmt::Display| {
            CallError::busy(format!("{} does not answer: {e}", path.display()))
        };
        let stream = UnixStream::connect(&path).await.map_err(|e| silent(&e))?;
        Ok(Connection::new(Guarded::called(stream).map_err(|e| silent(&e))?))
    }
}

/// The answers of a streaming call.
#[derive(Debug)]
pub struct Watch<R> {
    connection: Connection,
    ended: bool,
    name: &'static str,
    reply: PhantomData<fn() -> R>,
}

impl<R: serde::de::DeserializeOwned> Watch<R> {
    /// The next answer; none when the stream has ended. An error is the last.
    pub async fn next(&mut self) -> Option<Result<R, CallError>> {
        if self.ended {
            return None;
        }
        let received = self.connection.receive_reply::<Value, RawError>().await;
        let result = match received {
            Ok((Ok(reply), _)) => {
                self.ended = reply.continues() != Some(true);
                parse(self.name, reply.into_parameters().unwrap_or_default())
            }
            Ok((Err(error), _)) => Err(error.into()),
            Err(error) => Err(broken(self.name, &error)),
        };
        self.ended |= result.is_err();
        Some(result)
    }
}

fn raw<M: Method>(method: &M) -> Result<RawCall, CallError> {
    let parameters = serde_json::to_value(method).map_err(|e| CallError::failed(&e))?;
    Ok(RawCall { method: M::NAME.to_owned(), parameters: Some(parameters) })
}

fn parse<R: serde::de::DeserializeOwned>(name: &str, value: Value) -> Result<R, CallError> {
    serde_json::from_value(value)
        .map_err(|e| CallError::Failed { detail: format!("{name} answered otherwise: {e}") })
}

/// What the protocol itself refuses is no use to ask again; a connection that broke is.
fn broken(name: &str, error: &zlink::Error) -> CallError {
    let zlink::Error::VarlinkService(refusal) = error else {
        return CallError::busy(format!("{name}: {error}"));
    };
    match refusal.inner() {
        Refusal::InterfaceNotFound { .. } | Refusal::MethodNotFound { .. } => {
            CallError::not_found(format!("{name}: {error}"))
        }
        Refusal::InvalidParameter { .. } => CallError::invalid(format!("{name}: {error}")),
        _ => CallError::Failed { detail: format!("{name}: {error}") },
    }
}

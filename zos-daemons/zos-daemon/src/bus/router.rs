//! The answering side: which methods there are, who may call them, and what answers them.
//!
//! ```text
//!  Router::new(interface).on(..).on_fds(..).on_stream(..)
//!     └─ seal: is each method handled? ─▶ Server: + org.zos.Service, org.varlink.service
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use zos_api::local::service::{self, Faults, ListFaults, ReadMetrics};
use zos_api::local::{CallError, Interface, Method, User};

use super::serve::Server;
use super::{RawError, introspect};
use crate::metrics::Calls;
use crate::{DaemonError, FaultBoard, Metrics, Shutdown};

pub(super) type Answer = Result<(Value, Vec<OwnedFd>), RawError>;
pub(super) type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Answering = Box<dyn Fn(Call, Value, mpsc::Sender<Value>) -> Pending + Send + Sync>;

/// Who calls, and with what beside the call.
#[derive(Debug)]
pub struct Call {
    /// The caller; none is root. The router has checked that it may.
    pub user: Option<User>,
    /// The descriptors beside the call.
    pub fds: Vec<OwnedFd>,
}

/// Where a streaming handler sends all answers but its last.
#[derive(Debug)]
pub struct Sink<R> {
    replies: mpsc::Sender<Value>,
    reply: PhantomData<fn(R)>,
}

impl<R: serde::Serialize> Sink<R> {
    /// Sends an answer. Fails when the caller has gone; the handler then ends. It waits while the
    /// caller does not take those before it, so that a slow one costs no memory.
    pub async fn send(&self, reply: R) -> Result<(), CallError> {
        let value = serde_json::to_value(reply).map_err(|e| CallError::failed(&e))?;
        self.replies.send(value).await.map_err(|_| CallError::busy("the caller has gone"))
    }

    /// Waits until the caller has gone.
    pub async fn closed(&self) {
        self.replies.closed().await;
    }
}

/// What answers a method.
pub(super) struct Handler {
    /// Its full name.
    pub(super) name: &'static str,
    callers: &'static [User],
    /// Whether it answers as a stream, which has no end of its own to wait for on the way down.
    pub(super) streams: bool,
    /// Begins to answer.
    pub(super) answer: Answering,
}

/// What a daemon serves that has no interface of its own: `org.zos.Service`, as all do.
static BARE: Interface = Interface { methods: &[], ..service::INTERFACE };

/// The methods of one interface, each with its handler.
pub struct Router {
    interface: &'static Interface,
    handlers: BTreeMap<&'static str, Handler>,
}

impl Router {
    /// A router without handlers yet.
    pub fn new(interface: &'static Interface) -> Self {
        Self { interface, handlers: BTreeMap::new() }
    }

    /// Answers a method.
    pub fn on<M: Method, F>(self, handler: impl Fn(Call, M) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<M::Reply, CallError>> + Send + 'static,
    {
        self.add::<M>(false, move |call, method, _| {
            let answer = handler(call, method);
            Box::pin(async move { Ok((value(answer.await?)?, Vec::new())) })
        })
    }

    /// Answers a method with descriptors beside the reply.
    pub fn on_fds<M: Method, F>(
        self,
        handler: impl Fn(Call, M) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(M::Reply, Vec<OwnedFd>), CallError>> + Send + 'static,
    {
        self.add::<M>(false, move |call, method, _| {
            let answer = handler(call, method);
            Box::pin(async move {
                let (reply, fds) = answer.await?;
                Ok((value(reply)?, fds))
            })
        })
    }

    /// Answers a method with a stream: what goes into the sink, then the handler's result. A
    /// caller that did not ask for a stream gets the first of them.
    pub fn on_stream<M: Method, F>(
        self,
        handler: impl Fn(Call, M, Sink<M::Reply>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<M::Reply, CallError>> + Send + 'static,
    {
        self.add::<M>(true, move |call, method, replies| {
            let answer = handler(call, method, Sink { replies, reply: PhantomData });
            Box::pin(async move { Ok((value(answer.await?)?, Vec::new())) })
        })
    }

    fn add<M: Method>(
        mut self,
        streams: bool,
        handler: impl Fn(Call, M, mpsc::Sender<Value>) -> Pending + Send + Sync + 'static,
    ) -> Self {
        let answer: Answering = Box::new(move |call, parameters, replies| {
            match serde_path_to_error::deserialize(parameters) {
                Ok(method) => handler(call, method, replies),
                Err(error) => {
                    tracing::debug!("{}: {error}", M::NAME);
                    let refusal = introspect::invalid(&introspect::parameter(&error));
                    Box::pin(async move { Err(refusal) })
                }
            }
        });
        let handler = Handler { name: M::NAME, callers: M::CALLERS, streams, answer };
        self.handlers.insert(M::NAME, handler);
        self
    }

    /// Serves on a socket of the caller's own for ever, as a simulated daemon does. Methods without
    /// a handler are answered as if the interface did not have them.
    pub async fn simulate(self, listener: UnixListener) {
        Server::new(self, Calls::default(), Shutdown::default()).accept(listener).await;
    }

    /// Adds what every daemon answers, and checks that the interface is handled as declared.
    pub(crate) fn seal(
        self,
        faults: FaultBoard,
        metrics: &Metrics,
        shutdown: Shutdown,
    ) -> Result<Server, DaemonError> {
        let declared = |name: &str| self.interface.methods.iter().any(|m| m.0 == name);
        let missing = self.interface.methods.iter().find(|m| !self.handlers.contains_key(m.0));
        let foreign = self.handlers.keys().find(|name| !declared(name));
        if let Some(name) = missing.map(|m| m.0).or(foreign.copied()) {
            return Err(DaemonError::Handlers(name));
        }
        Ok(self.serving(faults, metrics, shutdown))
    }

    /// A server for a daemon without an interface of its own.
    pub(crate) fn bare(faults: FaultBoard, metrics: &Metrics, shutdown: Shutdown) -> Server {
        Self::new(&BARE).serving(faults, metrics, shutdown)
    }

    fn serving(self, faults: FaultBoard, metrics: &Metrics, shutdown: Shutdown) -> Server {
        let (calls, told) = (metrics.calls.clone(), metrics.clone());
        let router = self
            .on(move |_: Call, _: ListFaults| {
                let faults = faults.list();
                async move { Ok(Faults { faults }) }
            })
            .on(move |_: Call, _: ReadMetrics| {
                let text = told.text();
                async move { Ok(service::Metrics { text }) }
            });
        let server = Server::new(router, calls, shutdown);
        metrics.measure("callers", "Connections of local callers", server.count());
        server
    }

    /// The interfaces that are served, its own first.
    pub(super) fn interfaces(&self) -> Vec<&'static Interface> {
        let service = self.handlers.contains_key(ListFaults::NAME).then_some(&service::INTERFACE);
        [self.interface]
            .into_iter()
            .chain(service.filter(|s| s.name != self.interface.name))
            .collect()
    }

    /// The interface's name.
    pub(super) fn name(&self) -> &'static str {
        self.interface.name
    }

    /// What answers a method to a user.
    pub(super) fn handler(&self, method: &str, user: Option<User>) -> Result<&Handler, RawError> {
        let handler = self.handlers.get(method);
        let handler = handler.ok_or_else(|| introspect::not_found(&self.interfaces(), method))?;
        match user {
            Some(user) if !handler.callers.contains(&user) => {
                let detail = format!("user {user:?} may not call {method}");
                Err(CallError::Denied { detail }.into())
            }
            _ => Ok(handler),
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Router").field(&self.interface.name).finish()
    }
}

fn value(reply: impl serde::Serialize) -> Result<Value, CallError> {
    serde_json::to_value(reply).map_err(|e| CallError::failed(&e))
}

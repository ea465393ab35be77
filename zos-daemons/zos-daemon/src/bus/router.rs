//! The answering side.
//!
//! ```text
//!  accept ─▶ task: credentials ─▶ call ─▶ may this user? ─▶ handler ─▶ reply | replies … last
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use zlink::connection::{ReadConnection, WriteConnection};
use zlink::tokio::unix::Stream;
use zlink::{Connection, Reply};
use zos_api::local::service::{self, Faults, ListFaults, ReadMetrics};
use zos_api::local::{CallError, Interface, Method, User};

use super::{RawCall, RawError};
use crate::{DaemonError, FaultBoard, Metrics};

type Answer = Result<(Value, Vec<OwnedFd>), CallError>;
type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handler = Box<dyn Fn(Call, Value, mpsc::Sender<Value>) -> Pending + Send + Sync>;

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
    /// Sends an answer. Fails when the caller has gone; the handler then ends.
    pub async fn send(&self, reply: R) -> Result<(), CallError> {
        let value = serde_json::to_value(reply).map_err(|e| CallError::failed(&e))?;
        self.replies.send(value).await.map_err(|_| CallError::busy("the caller has gone"))
    }

    /// Waits until the caller has gone.
    pub async fn closed(&self) {
        self.replies.closed().await;
    }
}

/// The methods of one interface, each with its handler.
pub struct Router {
    interface: &'static Interface,
    handlers: BTreeMap<&'static str, (&'static [User], Handler)>,
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
        self.add::<M>(move |call, method, _| {
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
        self.add::<M>(move |call, method, _| {
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
        self.add::<M>(move |call, method, replies| {
            let answer = handler(call, method, Sink { replies, reply: PhantomData });
            Box::pin(async move { Ok((value(answer.await?)?, Vec::new())) })
        })
    }

    fn add<M: Method>(
        mut self,
        handler: impl Fn(Call, M, mpsc::Sender<Value>) -> Pending + Send + Sync + 'static,
    ) -> Self {
        let parse: Handler =
            Box::new(move |call, parameters, replies| match serde_json::from_value(parameters) {
                Ok(method) => handler(call, method, replies),
                Err(error) => {
                    let detail = format!("{}: {error}", M::NAME);
                    Box::pin(async move { Err(CallError::invalid(detail)) })
                }
            });
        self.handlers.insert(M::NAME, (M::CALLERS, parse));
        self
    }

    /// Serves on a socket of the caller's own for ever, as a simulated daemon does. Methods without
    /// a handler are answered with `NotFound`.
    pub async fn simulate(self, listener: UnixListener) {
        Sealed(Arc::new(self)).accept(listener).await;
    }

    /// Adds what every daemon answers, and checks that the interface is handled as declared.
    pub(crate) fn seal(self, faults: FaultBoard, metrics: &Metrics) -> Result<Sealed, DaemonError> {
        let declared = |name: &str| self.interface.methods.iter().any(|m| m.0 == name);
        let missing = self.interface.methods.iter().find(|m| !self.handlers.contains_key(m.0));
        let foreign = self.handlers.keys().find(|name| !declared(name));
        if let Some(name) = missing.map(|m| m.0).or(foreign.copied()) {
            return Err(DaemonError::Handlers(name));
        }
        let metrics = metrics.clone();
        let router = self
            .on(move |_: Call, _: ListFaults| {
                let faults = faults.list();
                async move { Ok(Faults { faults }) }
            })
            .on(move |_: Call, _: ReadMetrics| {
                let text = metrics.text();
                async move { Ok(service::Metrics { text }) }
            });
        Ok(Sealed(Arc::new(router)))
    }

    fn handler(&self, method: &str, user: Option<User>) -> Result<&Handler, CallError> {
        let (callers, handler) = self.handlers.get(method).ok_or_else(|| {
            CallError::not_found(format!("{} has no method {method}", self.interface.name))
        })?;
        match user {
            Some(user) if !callers.contains(&user) => {
                Err(CallError::Denied { detail: format!("user {user:?} may not call {method}") })
            }
            _ => Ok(handler),
        }
    }

    /// `org.varlink.service`: what any varlink client may ask.
    fn describe(&self, method: &str, parameters: Option<&Value>) -> Option<Value> {
        match method {
            "org.varlink.service.GetInfo" => Some(json!({
                "vendor": "ZOS", "product": self.interface.name, "version": env!("CARGO_PKG_VERSION"),
                "url": "", "interfaces": ["org.varlink.service", service::INTERFACE.name, self.interface.name],
            })),
            "org.varlink.service.GetInterfaceDescription" => {
                let wanted = parameters?.get("interface")?.as_str()?;
                [self.interface, &service::INTERFACE]
                    .into_iter()
                    .find(|interface| interface.name == wanted)
                    .map(|interface| json!({ "description": interface.text }))
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Router").field(&self.interface.name).finish()
    }
}

/// A router of which every method is handled.
#[derive(Debug)]
pub(crate) struct Sealed(Arc<Router>);

impl Sealed {
    /// Serves for ever: a task for each connection.
    pub(crate) async fn accept(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let router = Arc::clone(&self.0);
                    tokio::spawn(async move {
                        if let Err(error) = serve(&router, stream).await {
                            tracing::debug!("{}: {error}", router.interface.name);
                        }
                    });
                }
                Err(error) => {
                    // out of descriptors: wait for some connection to end
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Root; and who runs this process, if that is no user of a node's: a developer, whose simulated node
/// is all theirs.
fn is_root(uid: u32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    uid == 0 || (uid == own && User::from_id(own).is_none())
}

/// Serves one connection until the peer leaves.
async fn serve(router: &Router, stream: UnixStream) -> zlink::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let user = User::from_id(uid);
    if user.is_none() && !is_root(uid) {
        tracing::warn!("{}: user id {uid} may call nothing", router.interface.name);
        return Ok(());
    }
    let (mut read, mut write) = Connection::new(Stream::try_from(stream)?).split();
    loop {
        let (call, fds) = match read.receive_call::<RawCall>().await {
            Err(zlink::Error::UnexpectedEof) => return Ok(()),
            received => received?,
        };
        let RawCall { method, parameters } = call.method();
        if let Some(description) = router.describe(method, parameters.as_ref()) {
            write.send_reply(&Reply::new(Some(description)), Vec::new()).await?;
            continue;
        }
        match router.handler(method, user) {
            Err(error) => send_error(&mut write, error).await?,
            Ok(handler) => {
                let parameters = parameters.clone().unwrap_or_else(|| json!({}));
                let (sender, replies) = mpsc::channel(8);
                let answer = handler(Call { user, fds }, parameters, sender);
                if !forward(&mut read, &mut write, call.more(), answer, replies).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Sends a handler's answers as they come; false when the caller has gone meanwhile.
async fn forward<R, W>(
    read: &mut ReadConnection<R>,
    write: &mut WriteConnection<W>,
    more: bool,
    mut answer: Pending,
    mut replies: mpsc::Receiver<Value>,
) -> zlink::Result<bool>
where
    R: zlink::connection::socket::ReadHalf,
    W: zlink::connection::socket::WriteHalf,
{
    let last = loop {
        tokio::select! {
            biased;
            Some(reply) = replies.recv() => {
                if !more {
                    break Ok((reply, Vec::new()));
                }
                write.send_reply(&Reply::new(Some(reply)).set_continues(Some(true)), Vec::new()).await?;
            }
            answer = &mut answer => break answer,
            // Nothing may come before the answer, so this is the end of the connection.
            _ = read.receive_call::<RawCall>() => return Ok(false),
        }
    };
    while let Ok(reply) = replies.try_recv() {
        write.send_reply(&Reply::new(Some(reply)).set_continues(Some(true)), Vec::new()).await?;
    }
    match last {
        Ok((reply, fds)) => write.send_reply(&Reply::new(Some(reply)), fds).await?,
        Err(error) => send_error(write, error).await?,
    }
    Ok(true)
}

async fn send_error<W: zlink::connection::socket::WriteHalf>(
    write: &mut WriteConnection<W>,
    error: CallError,
) -> zlink::Result<()> {
    let raw = serde_json::to_value(error)
        .and_then(serde_json::from_value::<RawError>)
        .unwrap_or_else(|e| RawError { error: e.to_string(), parameters: None });
    write.send_error(&raw, Vec::new()).await
}

fn value(reply: impl serde::Serialize) -> Result<Value, CallError> {
    serde_json::to_value(reply).map_err(|e| CallError::failed(&e))
}

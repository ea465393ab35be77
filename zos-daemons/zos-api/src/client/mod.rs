//! A twin's or farmer's way to a node.
//!
//! ```text
//!  first signed request:  unsigned ─▶ 401 + audience + time ─▶ signed ─▶ answer
//!  later ones:            signed ─▶ answer
//!  after a restart of the node's API:  signed ─▶ 401 + audience + time ─▶ signed, once ─▶ answer
//! ```
//!
//! The node is known by its id alone ([`Address`]): its certificate must be signed by that key, and
//! the audience that it names must be itself, or a request could be carried to another node.

mod address;
mod disks;
mod error;
mod farmer;
mod keys;
mod pin;
mod snapshots;
mod transport;

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

pub use address::{Address, AddressError};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
pub use error::ClientError;
pub use farmer::ServiceLog;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use transport::{Sender, Transport};
use zos_types::machine::Node;
use zos_types::problem::Audience;
use zos_types::status::DeploymentStatus;
use zos_types::{Name, NodeId, Problem, WorkloadName};

use crate::node::{Applied, Deleted, DeploymentList, NodeCapacity};
use crate::signature::{Moment, Parts, sign};

/// How long a signature of ours holds, in seconds.
const LIFE: i64 = 60;

/// A client of one node, with or without a twin's key.
pub struct Client {
    transport: Transport,
    key: Option<SigningKey>,
    learned: Mutex<Option<Learned>>,
}

/// What the node told of itself.
#[derive(Clone, Debug)]
struct Learned {
    audience: Audience,
    /// The node's clock less ours, in seconds.
    ahead: i64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", self.transport.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is sent yet. Must be used within a tokio runtime.
    pub fn new(address: Address, key: Option<SigningKey>) -> Self {
        Self { transport: Transport::new(address), key, learned: Mutex::default() }
    }

    /// The node that answered, by its certificate; none before the first answer.
    pub fn node_id(&self) -> Option<NodeId> {
        self.transport.node()
    }

    /// Who and how the node is.
    pub async fn node(&self) -> Result<Node, ClientError> {
        let node: Node = self.public("/v1/node").await?;
        if Some(node.id) != self.node_id() {
            let detail = format!("it calls itself {}, which is not its certificate", node.id);
            return Err(ClientError::Protocol(detail));
        }
        self.learn(&node.audience, &node.time)?;
        Ok(node)
    }

    /// What the node has to give.
    pub async fn capacity(&self) -> Result<NodeCapacity, ClientError> {
        self.public("/v1/capacity").await
    }

    /// The twin's deployments.
    pub async fn list(&self) -> Result<DeploymentList, ClientError> {
        body(&self.signed("GET", "/v1/deployments", &[]).await?)
    }

    /// One deployment.
    pub async fn get(&self, name: &Name) -> Result<DeploymentStatus, ClientError> {
        body(&self.signed("GET", &format!("/v1/deployments/{name}"), &[]).await?)
    }

    /// Asks for a deployment, or what would become of it.
    pub async fn put(
        &self,
        name: &Name,
        deployment: &[u8],
        dry_run: bool,
    ) -> Result<Applied, ClientError> {
        let query = if dry_run { "?dry_run=true" } else { "" };
        body(&self.signed("PUT", &format!("/v1/deployments/{name}{query}"), deployment).await?)
    }

    /// Takes a deployment away.
    pub async fn delete(&self, name: &Name) -> Result<Deleted, ClientError> {
        body(&self.signed("DELETE", &format!("/v1/deployments/{name}"), &[]).await?)
    }

    /// A VM's console as far as the node holds it; with `follow`, also what comes.
    pub async fn log(&self, name: &WorkloadName, follow: bool) -> Result<Log, ClientError> {
        self.log_from(name, 0, follow).await
    }

    /// The same after so many bytes ever written.
    pub async fn log_from(
        &self,
        name: &WorkloadName,
        from: u64,
        follow: bool,
    ) -> Result<Log, ClientError> {
        let WorkloadName { deployment, workload } = name;
        let follow = if follow { "&follow=true" } else { "" };
        let path = format!("/v1/deployments/{deployment}/workloads/{workload}/log");
        self.open(&format!("{path}?from={from}{follow}")).await
    }

    /// An answer that is read as it comes.
    async fn open(&self, target: &str) -> Result<Log, ClientError> {
        self.ask_until_signed(async || {
            let request = self.request("GET", target, &[])?;
            let (response, sender) = self.transport.open(request).await?;
            if response.status().is_success() {
                let from = response.headers().get("zos-log-from");
                let from = from.and_then(|from| from.to_str().ok()?.parse().ok());
                return Ok(Ok(Log { from, body: response.into_body(), _sender: sender }));
            }
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| ClientError::Protocol(e.to_string()))?;
            Ok(Err(Response::from_parts(head, body.to_bytes())))
        })
        .await
    }

    /// Sends any request as it is, unsigned but for the headers given, and gives the answer as it
    /// is. For tests and for what has no verb here.
    pub async fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Bytes>, ClientError> {
        self.transport.exchange(plain(method, target, headers, body)?).await
    }

    async fn public<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let response = self.exchange("GET", target, &[], &[]).await?;
        if !response.status().is_success() {
            return Err(refused(&response));
        }
        body(&response)
    }

    async fn signed(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Result<Response<Bytes>, ClientError> {
        self.ask_until_signed(async || {
            let request = self.request(method, target, body)?;
            let response = self.transport.exchange(request).await?;
            Ok(if response.status().is_success() { Ok(response) } else { Err(response) })
        })
        .await
    }

    /// Asks; when the node wants another audience or date, learns them and asks again. Each
    /// request is signed at most twice.
    async fn ask_until_signed<T>(
        &self,
        ask: impl AsyncFn() -> Result<Result<T, Response<Bytes>>, ClientError>,
    ) -> Result<T, ClientError> {
        let mut signed = 0;
        loop {
            signed += u32::from(self.learned().is_some());
            let response = match ask().await? {
                Ok(answer) => return Ok(answer),
                Err(response) => response,
            };
            let error = refused(&response);
            let told = error.problem().and_then(|p| p.audience.as_ref().zip(p.time.as_ref()));
            match told {
                Some((audience, time))
                    if response.status() == StatusCode::UNAUTHORIZED && signed < 2 =>
                {
                    self.learn(audience, time)?;
                }
                _ => return Err(error),
            }
        }
    }

    /// A request, signed when the audience is known.
    fn request(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let key = self.key.as_ref().ok_or(ClientError::NoKey)?;
        let Some(Learned { audience, ahead }) = self.learned() else {
            return plain(method, target, &[], &[]);
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let created = Timestamp::now().as_second() + ahead;
        let nonce = nonce()?;
        let moment = Moment { created, expires: created + LIFE, nonce: &nonce };
        let parts = Parts { method, path, query };
        let signed = sign(parts, body, key, &audience.to_string(), moment);
        let mut headers: Vec<_> = signed.pairs().collect();
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        plain(method, target, &headers, body)
    }

    fn learned(&self) -> Option<Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, audience: &str, time: &str) -> Result<(), ClientError> {
        let audience = Audience::from_str(audience).map_err(ClientError::Protocol)?;
        if Some(audience.node) != self.node_id() {
            let detail = format!("it wants a signature for another node, {}", audience.node);
            return Err(ClientError::Protocol(detail));
        }
        let time: Timestamp =
            time.parse().map_err(|e| ClientError::Protocol(format!("its time: {e}")))?;
        let ahead = time.as_second() - Timestamp::now().as_second();
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Learned { audience, ahead });
        Ok(())
    }
}

/// A VM's console as it comes.
#[derive(Debug)]
pub struct Log {
    from: Option<u64>,
    body: Incoming,
    _sender: Sender,
}

impl Log {
    /// How many bytes were ever written before the first one of these.
    pub fn from(&self) -> u64 {
        self.from.unwrap_or_default()
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    _ => {}
                },
                Err(error) => {
                    return Some(Err(ClientError::Protocol(format!("the log broke off: {error}"))));
                }
            }
        }
    }
}

fn plain(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "node.zos")
        .header("user-agent", concat!("zos/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body)))
        .map_err(|e| ClientError::Protocol(e.to_string()))
}

fn body<T: DeserializeOwned>(response: &Response<Bytes>) -> Result<T, ClientError> {
    serde_json::from_slice(response.body()).map_err(|e| ClientError::Protocol(e.to_string()))
}

fn refused(response: &Response<Bytes>) -> ClientError {
    match serde_json::from_slice::<Problem>(response.body()) {
        Ok(problem) => ClientError::Refused(Box::new(problem)),
        Err(_) => ClientError::Protocol(format!("status {}", response.status())),
    }
}

/// 128 random bits in hex.
fn nonce() -> Result<String, ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ClientError::Protocol(format!("no entropy: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

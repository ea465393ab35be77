//! The question to a VMM: `GET /api/v1/vm.counters` on its socket.
//!
//! | What a VMM that a guest has taken over may do | What happens |
//! |---|---|
//! | take the connection and say nothing, or a byte a second | 2 s in all, then it is left |
//! | headers or a body without end | 16 KiB of the one, 64 KiB of the other, then it is left |
//! | another status, no JSON, numbers that are none | nothing is told of it |
//! | devices and names of its own | only those of its spec and of our list are taken |

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::sockets::Socket;

/// How long an answer may take, all in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of headers.
const LONGEST_HEAD: usize = 16 << 10;
/// Bytes of an answer.
const LONGEST_BODY: usize = 64 << 10;

/// Counters by device and name, as a VMM tells them: nothing is checked but that they are some.
pub(super) type Counters = BTreeMap<String, BTreeMap<String, Value>>;

/// Asks the VMM whose sockets lie in this folder.
pub(super) async fn counters(sockets: &Path) -> anyhow::Result<Counters> {
    let answer = tokio::time::timeout(PATIENCE, ask(&Socket::Api.path(sockets))).await;
    let body = answer.map_err(|_| anyhow!("no answer in {} s", PATIENCE.as_secs()))??;
    serde_json::from_slice(&body).context("read its counters")
}

async fn ask(socket: &Path) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.context("connect")?;
    let mut client = http1::Builder::new();
    client.max_buf_size(LONGEST_HEAD);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.context("begin")?;
    // Ends with this function, however it ends.
    let mut held = JoinSet::new();
    held.spawn(connection);
    let request = Request::get("/api/v1/vm.counters").header("Host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).context("write a request")?;
    let response = sender.send_request(request).await.context("ask")?;
    ensure!(response.status() == StatusCode::OK, "status {}", response.status());
    let body = Limited::new(response.into_body(), LONGEST_BODY).collect().await;
    Ok(body.map_err(|error| anyhow!("read its answer: {error}"))?.to_bytes())
}

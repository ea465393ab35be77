//! An answer that is made as it is sent.
//!
//! ```text
//!  stream ─▶ first item, or a refusal ─▶ headers ─▶ item … item ─┬─ the stream ends ─▶ the answer ends
//!                                                               ├─ an error, or the API stops ─▶ it breaks off
//!                                                               └─ the client leaves ─▶ both are dropped
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use zos_api::local::CallError;
use zos_daemon::Shutdown;

use crate::problem::Refused;

/// How long a refusal may take; after it the answer begins, with nothing in it yet.
const BEGIN: Duration = Duration::from_secs(2);

type Stream<T> = Receiver<Result<T, CallError>>;

/// Waits for the first item; an error before it is a refusal.
pub(super) async fn begin<T>(mut stream: Stream<T>) -> Result<(Option<T>, Stream<T>), Refused> {
    let first = match timeout(BEGIN, stream.recv()).await {
        Ok(first) => first.transpose()?,
        Err(_) => None,
    };
    Ok((first, stream))
}

/// Answers with the first item and what comes, each written by `write`.
pub(super) fn answer<T: Send + Unpin + 'static>(
    first: Option<T>,
    stream: Stream<T>,
    media_type: &'static str,
    write: impl FnMut(T) -> Bytes + Send + Unpin + 'static,
    shutdown: &Shutdown,
) -> Response {
    let shutdown = shutdown.clone();
    let stop = Box::pin(async move { shutdown.begun().await });
    let headers = [(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-store")];
    (headers, Body::new(Streamed { first, stream, write, stop })).into_response()
}

struct Streamed<T, W> {
    first: Option<T>,
    stream: Stream<T>,
    write: W,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<T: Send + Unpin, W: FnMut(T) -> Bytes + Unpin> hyper::body::Body for Streamed<T, W> {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let this = &mut *self;
        let next = match this.first.take() {
            Some(first) => Some(Ok(first)),
            None => match this.stream.poll_recv(context) {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    let stopped = this.stop.as_mut().poll(context);
                    return stopped.map(|()| Some(Err(CallError::busy("the API stops"))));
                }
            },
        };
        Poll::Ready(next.map(|item| item.map(|item| Frame::data((this.write)(item)))))
    }
}

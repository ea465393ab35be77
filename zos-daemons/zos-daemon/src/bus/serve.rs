//! Connections: each a task, each with one call under way.
//!
//! ```text
//!  accept ─▶ a seat? ─▶ whose? ─▶ call ─▶ may this user? ─▶ handler ─▶ reply | replies … last
//!              │           └ a stranger: closed ▲                          │
//!              └ none: closed                   └──────────────────────────┘
//! ```
//! On the way down nothing is accepted: callers wait in the backlog of the socket, which PID 1
//! keeps, for the next life. What is under way is answered; streams end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use zlink::connection::socket::Socket;
use zlink::connection::{ReadConnection, WriteConnection};
use zlink::{Connection, Reply};
use zos_api::local::{CallError, User};

use super::guard::Guarded;
use super::router::{Answer, Call, Handler, Router};
use super::seats::Seats;
use super::{RawCall, introspect};
use crate::Shutdown;
use crate::metrics::{Calls, Labels};

/// Answers of a stream that may wait to be taken.
const WAITING: usize = 8;

type Reader = ReadConnection<<Guarded as Socket>::ReadHalf>;
type Writer = WriteConnection<<Guarded as Socket>::WriteHalf>;
type Received = (zlink::Call<RawCall>, Vec<OwnedFd>);

/// A router of which every method is handled, and who is connected to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    router: Arc<Router>,
    seats: Seats,
    calls: Calls,
    shutdown: Shutdown,
}

/// Root; and who runs this process, if that is no user of a node's: a developer, whose simulated
/// node is all theirs.
fn is_root(uid: u32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    uid == 0 || (uid == own && User::from_id(own).is_none())
}

impl Server {
    pub(super) fn new(router: Router, calls: Calls, shutdown: Shutdown) -> Self {
        Self { router: Arc::new(router), seats: Seats::default(), calls, shutdown }
    }

    /// How many are connected, as a metric.
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    pub(super) fn count(&self) -> impl Fn() -> Vec<(Labels, f64)> + Send + Sync + 'static {
        let seats = self.seats.clone();
        move || vec![(Labels::new(), seats.taken() as f64)]
    }

    /// Serves until the way down begins.
    pub(crate) async fn accept(self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.begun() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) => {
                    // out of descriptors: wait for some connection to end
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn welcome(&self, stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let (uid, name) = (peer.uid(), self.router.name());
        let user = User::from_id(uid);
        if user.is_none() && !is_root(uid) {
            tracing::warn!("{name}: user id {uid} may call nothing");
            return;
        }
        let Some(seat) = self.seats.take(uid) else {
            tracing::debug!("{name}: user id {uid} has too many connections");
            return;
        };
        let server = self.clone();
        self.shutdown.spawn_to_end(async move {
            let _seat = seat;
            if let Err(error) = server.serve(stream, user).await {
                tracing::debug!("{name}: user id {uid}: {error}");
            }
        });
    }

    /// Serves one connection until the peer leaves, or breaks the rules.
    async fn serve(&self, stream: UnixStream, user: Option<User>) -> zlink::Result<()> {
        let (mut read, mut write) = Connection::new(Guarded::caller(stream)?).split();
        let mut next = None;
        loop {
            let (call, fds) = match next.take() {
                Some(received) => received,
                None => tokio::select! {
                    received = read.receive_call::<RawCall>() => match received {
                        Err(zlink::Error::UnexpectedEof) => return Ok(()),
                        received => received?,
                    },
                    () = self.shutdown.begun() => return Ok(()),
                },
            };
            let quiet = call.oneway();
            let RawCall { method, parameters } = call.method();
            let answer =
                match introspect::answer(&self.router.interfaces(), method, parameters.as_ref()) {
                    Some(answer) => answer.map(|value| (value, Vec::new())),
                    None => match self.router.handler(method, user) {
                        Err(refusal) => Err(refusal),
                        Ok(handler) => {
                            let line = Line { read: &mut read, write: &mut write, next: &mut next };
                            match self.answer(handler, &call, Call { user, fds }, line).await? {
                                Some(answer) => answer,
                                None => return Ok(()),
                            }
                        }
                    },
                };
            match answer {
                _ if quiet => {}
                Ok((reply, fds)) => write.send_reply(&Reply::new(Some(reply)), fds).await?,
                Err(error) => write.send_error(&error, Vec::new()).await?,
            }
        }
    }

    /// Lets a handler answer, and counts it; none: the caller has gone meanwhile.
    async fn answer(
        &self,
        handler: &Handler,
        call: &zlink::Call<RawCall>,
        caller: Call,
        line: Line<'_>,
    ) -> zlink::Result<Option<Answer>> {
        let begun = Instant::now();
        let parameters = call.method().parameters.clone().unwrap_or_else(|| json!({}));
        let (sender, replies) = mpsc::channel(WAITING);
        let answering = (handler.answer)(caller, parameters, sender);
        let more = call.more() && !call.oneway();
        let down = async {
            match handler.streams {
                true => self.shutdown.begun().await,
                false => std::future::pending().await,
            }
        };
        let answer = line.forward(more, answering, replies, down).await;
        let outcome = match &answer {
            Ok(Some(Ok(_))) => "ok",
            Ok(Some(Err(error))) => error.kind(),
            Ok(None) | Err(_) => "gone",
        };
        self.calls.ended(handler.name, outcome, (!handler.streams).then(|| begun.elapsed()));
        answer
    }
}

/// A connection while a call of it is answered.
struct Line<'a> {
    read: &'a mut Reader,
    write: &'a mut Writer,
    /// A call that came before the one under way was answered: it waits for its turn.
    next: &'a mut Option<Received>,
}

impl Line<'_> {
    /// Sends a handler's answers as they come, but for the last; none when the caller has gone.
    async fn forward(
        self,
        more: bool,
        answering: impl Future<Output = Answer> + Unpin,
        mut replies: mpsc::Receiver<Value>,
        down: impl Future<Output = ()>,
    ) -> zlink::Result<Option<Answer>> {
        let Line { read, write, next } = self;
        let (mut answering, mut down) = (answering, std::pin::pin!(down));
        let last = loop {
            tokio::select! {
                biased;
                Some(reply) = replies.recv() => {
                    if !more {
                        return Ok(Some(Ok((reply, Vec::new()))));
                    }
                    send(write, reply).await?;
                }
                answer = &mut answering => break answer,
                received = read.receive_call::<RawCall>(), if next.is_none() => match received {
                    Ok(received) => *next = Some(received),
                    Err(zlink::Error::UnexpectedEof) => return Ok(None),
                    Err(error) => return Err(error),
                },
                () = &mut down => break Err(CallError::busy("the daemon is going down").into()),
            }
        };
        while let Ok(reply) = replies.try_recv() {
            if !more {
                return Ok(Some(Ok((reply, Vec::new()))));
            }
            send(write, reply).await?;
        }
        Ok(Some(last))
    }
}

/// Sends an answer that others follow.
async fn send(write: &mut Writer, reply: Value) -> zlink::Result<()> {
    write.send_reply(&Reply::new(Some(reply)).set_continues(Some(true)), Vec::new()).await
}

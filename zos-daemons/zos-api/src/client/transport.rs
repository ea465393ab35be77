//! Bytes to the node and back: TCP, TLS with the node's pin, HTTP/1.1.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zos_types::NodeId;

use super::pin::Pin;
use super::{Address, ClientError};

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next request: a node closes one that says nothing for 20 s, and a request that
/// meets that moment is lost.
const KEPT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 16 << 20;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// The way to one node. One connection is kept for the next request.
pub(super) struct Transport {
    address: Address,
    pin: Arc<Pin>,
    tls: TlsConnector,
    idle: Mutex<Option<(Sender, Instant)>>,
}

impl Transport {
    pub(super) fn new(address: Address) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        let pin = Arc::new(Pin::new(address.id, provider.clone()));
        let verifier: Arc<Pin> = Arc::clone(&pin);
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the default TLS versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled(); // each connection checks the certificate
        config.enable_sni = false;
        let tls = TlsConnector::from(Arc::new(config));
        Self { address, pin, tls, idle: Mutex::new(None) }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The node that answered, once one did.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.pin.seen()
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let (response, sender) = self.open(request).await?;
        let work = async {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(|e| io::Error::other(e.to_string()))?;
            Ok::<_, Failure>(Response::from_parts(head, body.to_bytes()))
        };
        let response = self.in_time(work).await?;
        *self.idle.lock().await = Some((sender, Instant::now()));
        Ok(response)
    }

    /// Sends a request and leaves the answer's body to be read as it comes. A kept connection that
    /// turns out to be closed is replaced, as long as nothing of the request was sent.
    pub(super) async fn open(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let kept = self.idle.lock().await.take();
        if let Some((mut sender, since)) = kept
            && since.elapsed() < KEPT
            && sender.ready().await.is_ok()
        {
            let sent = async {
                match sender.try_send_request(request).await {
                    Ok(response) => Ok(Ok(response)),
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => Ok(Err(unsent)),
                        None => Err(Failure::from(error.into_error())),
                    },
                }
            };
            request = match self.in_time(sent).await? {
                Ok(response) => return Ok((response, sender)),
                Err(unsent) => unsent,
            };
        }
        let mut sender = self.sender().await?;
        let response = self.in_time(async { Ok(sender.send_request(request).await?) }).await?;
        Ok((response, sender))
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, ClientError> {
        let result = timeout(ANSWER, work).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", ANSWER.as_secs());
            Err(Failure(io::Error::new(io::ErrorKind::TimedOut, detail)))
        });
        result.map_err(|Failure(error)| self.unreachable(error))
    }

    async fn sender(&self) -> Result<Sender, ClientError> {
        let late = |_| {
            let detail = format!("no connection within {} s", CONNECT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, detail))
        };
        let connected = timeout(CONNECT, self.connect()).await.unwrap_or_else(late);
        connected.map_err(|e| self.unreachable(e))
    }

    async fn connect(&self) -> io::Result<Sender> {
        let Address { host, port, .. } = &self.address;
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        tcp.set_nodelay(true)?;
        // A node that lost its power says nothing: who follows a log of it notices within a minute.
        let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3);
        SockRef::from(&tcp).set_tcp_keepalive(&alive)?;
        let name = ServerName::try_from("node.zos").expect("a fixed name"); // neither sent nor checked
        let tls = self.tls.connect(name, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        tokio::spawn(connection); // ends with its sender; requests tell of its errors
        Ok(sender)
    }

    /// Tells a wrong node from one that does not answer.
    fn unreachable(&self, source: io::Error) -> ClientError {
        use rustls::{CertificateError, Error};
        let address = self.address.clone();
        match source.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::Other(why))) => {
                ClientError::WrongNode { address, detail: why.0.to_string() }
            }
            Some(Error::InvalidCertificate(why)) => {
                ClientError::WrongNode { address, detail: format!("{why}") }
            }
            _ => ClientError::Unreachable { address, source },
        }
    }
}

/// An exchange that broke.
struct Failure(io::Error);

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self(io::Error::other(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

//! Connections: how many, from whom, for how long.
//!
//! ```text
//!  accept ─▶ below both caps? ─▶ TLS (10 s) ─▶ head (20 s, also when idle) ─▶ route ─▶ answer
//!
//!  the way down: accept no more ─▶ what is being answered is answered, streams break off ─▶ end
//! ```
//!
//! So the request that restarts the API through the API itself has its answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zos_daemon::Shutdown;

use crate::{Api, router};

const CONNECTIONS: usize = 256;
const CONNECTIONS_PER_PEER: usize = 64;
const BACKLOG: u32 = 128;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(20);
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Listens on a port on all addresses of both IP versions.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpSocket::new_v6() {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            bind(&socket, (Ipv6Addr::UNSPECIFIED, port).into())?;
            socket.listen(BACKLOG)
        }
        Err(_) => {
            // a kernel without IPv6
            let socket = TcpSocket::new_v4()?;
            bind(&socket, (Ipv4Addr::UNSPECIFIED, port).into())?;
            socket.listen(BACKLOG)
        }
    }
}

fn bind(socket: &TcpSocket, address: SocketAddr) -> io::Result<()> {
    socket.set_reuseaddr(true)?; // connections of the last run may still linger
    socket.bind(address)
}

/// Serves for ever: a task for each connection, which the way down waits for.
pub async fn serve(listener: TcpListener, tls: TlsAcceptor, api: Arc<Api>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Peers::default();
    let (shutdown, open) = (api.shutdown.clone(), api.served.clients.clone());
    let router = router(api);
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let Some(place) = peers.enter(peer.ip()) else { continue };
                let held = (seat, place, Counted::new(&open));
                let (tls, router) = (tls.clone(), router.clone());
                shutdown.spawn_to_end(connection(tcp, tls, router, shutdown.clone(), held));
            }
            Err(error) => {
                // out of descriptors: wait for some connection to end
                tracing::warn!("accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    tcp: TcpStream,
    tls: TlsAcceptor,
    router: Router,
    shutdown: Shutdown,
    _held: (OwnedSemaphorePermit, Place, Counted),
) {
    let result = async {
        watch_peer(&tcp)?;
        let tls = tokio::select! {
            accepted = timeout(HANDSHAKE, tls.accept(tcp)) => accepted??,
            () = shutdown.begun() => return Ok(()),
        };
        let serving = http1::Builder::new()
            .half_close(true) // a client may shut its side after the request and still be answered
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(tls), TowerToHyperService::new(router));
        let mut serving = pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = shutdown.begun() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        served.map_err(io::Error::other)
    };
    if let Err(error) = result.await {
        tracing::debug!("connection: {error}");
    }
}

/// A connection in the gauge, while it is held.
struct Counted(Gauge);

impl Counted {
    fn new(open: &Gauge) -> Self {
        open.inc();
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A peer that is gone without a word is noticed within about a minute, also in a quiet stream; one
/// that doesn't take its answer, within two.
fn watch_peer(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(tcp, 3)?;
    sockopt::set_tcp_user_timeout(tcp, 120_000)?;
    Ok(())
}

/// How many connections each peer has.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Peers {
    /// A place for one more, or none.
    fn enter(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }
}

/// One connection of a peer; given back when dropped.
struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_can_not_take_all_seats() {
        let peers = Peers::default();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let mut held: Vec<Place> =
            (0..CONNECTIONS_PER_PEER).map(|_| peers.enter(mapped).unwrap()).collect();
        assert!(peers.enter("192.0.2.1".parse().unwrap()).is_none());
        assert!(peers.enter("192.0.2.2".parse().unwrap()).is_some());
        held.pop();
        assert!(peers.enter(mapped).is_some());
        held.clear();
        assert!(peers.0.lock().unwrap().is_empty());
    }
}

//! The VMs' DNS proxy: forwards messages as they are, to the uplinks' name servers.
//!
//! ```text
//!  VM ── UDP or TCP 53 at the gateway ──▶ Forwarder ── fresh socket, fresh id ──▶ name server 1, 2, …
//!     ◀───────────── its own id ────────             ◀── same question, same id ──
//! ```
//! Bounded: questions in flight in all and for each VM, time for each question, size. What is too much
//! is dropped; a guest asks again. An answer must come from the server that was asked (a connected
//! socket at a random port), with the random id and the very question. Nothing is cached.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

const HEADER: usize = 12;
/// One server's time for an answer by UDP.
const PATIENCE: Duration = Duration::from_millis(2500);
/// A connection's time without a question, and a question's by TCP.
const TCP_PATIENCE: Duration = Duration::from_secs(8);
const UDP_SIZE: usize = 4096;
const IN_FLIGHT: usize = 256;
const PER_VM: usize = 32;

/// Name servers in the order in which they are asked.
pub type Servers = watch::Receiver<Vec<IpAddr>>;

/// Forwards until it is dropped.
#[derive(Clone, Debug)]
pub struct Forwarder {
    servers: Servers,
    port: u16,
    flights: Flights,
}

impl Forwarder {
    /// A forwarder to servers at `port` (53).
    pub fn new(servers: Servers, port: u16) -> Self {
        Self { servers, port, flights: Flights::default() }
    }

    /// Answers by UDP until the socket fails.
    pub async fn serve_udp(self, socket: UdpSocket) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; UDP_SIZE];
        loop {
            let (length, guest) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An earlier answer met a guest that has gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let Some(question) = Question::read(&buffer[..length]) else { continue };
            let Some(flight) = self.flights.begin(guest.ip()) else { continue };
            let (socket, forwarder) = (Arc::clone(&socket), self.clone());
            tokio::spawn(async move {
                let answer = forwarder.ask_udp(&question).await;
                let _ = socket.send_to(&answer, guest).await;
                drop(flight);
            });
        }
    }

    /// Answers by TCP until the listener fails.
    pub async fn serve_tcp(self, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, guest) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let Some(flight) = self.flights.begin(guest.ip()) else { continue };
            let forwarder = self.clone();
            tokio::spawn(async move {
                let _ = forwarder.connection(stream).await;
                drop(flight);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Ok(message) = timeout(TCP_PATIENCE, read_message(&mut stream)).await {
            let Some(question) = Question::read(&message?) else { return Ok(()) };
            let answer = self.ask_tcp(&question).await;
            timeout(TCP_PATIENCE, write_message(&mut stream, &answer)).await??;
        }
        Ok(())
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        self.servers.borrow().iter().map(|server| SocketAddr::new(*server, self.port)).collect()
    }

    async fn ask_udp(&self, question: &Question) -> Vec<u8> {
        for server in self.upstreams() {
            if let Ok(Ok(answer)) = timeout(PATIENCE, exchange_udp(question, server)).await {
                return answer;
            }
        }
        question.failure()
    }

    async fn ask_tcp(&self, question: &Question) -> Vec<u8> {
        for server in self.upstreams() {
            if let Ok(Ok(answer)) = timeout(TCP_PATIENCE, exchange_tcp(question, server)).await {
                return answer;
            }
        }
        question.failure()
    }
}

async fn exchange_udp(question: &Question, server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = random_id();
    socket.send(&question.with_id(id)).await?;
    let mut buffer = vec![0; UDP_SIZE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = question.accept(id, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn exchange_tcp(question: &Question, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id();
    write_message(&mut stream, &question.with_id(id)).await?;
    let answer = read_message(&mut stream).await?;
    question.accept(id, &answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers a kernel would not have come so far.
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

/// A guest's question (RFC 1035, section 4.1), with one entry in its question section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    message: Vec<u8>,
    /// Where its question section ends.
    end: usize,
}

impl Question {
    /// Reads a message; `None` when it isn't a query with one question.
    pub fn read(message: &[u8]) -> Option<Self> {
        let query = message.len() >= HEADER && message[2] & 0xf8 == 0 && count(message, 4) == 1;
        let end = query.then(|| question_end(message))??;
        Some(Self { message: message.to_vec(), end })
    }

    fn with_id(&self, id: u16) -> Vec<u8> {
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    /// An answer with the guest's own id, if it is one to this question.
    fn accept(&self, id: u16, answer: &[u8]) -> Option<Vec<u8>> {
        let fits = answer.len() >= HEADER
            && answer[..2] == id.to_be_bytes()
            && answer[2] & 0xf8 == 0x80
            // A server that fails may leave the question out.
            && match count(answer, 4) {
                0 => answer[3] & 0x0f != 0,
                1 => question_end(answer) == Some(self.end)
                    && answer[HEADER..self.end]
                        .eq_ignore_ascii_case(&self.message[HEADER..self.end]),
                _ => false,
            };
        if !fits {
            return None;
        }
        let mut answer = answer.to_vec();
        answer[..2].copy_from_slice(&self.message[..2]);
        Some(answer)
    }

    /// "The server failed" (RFC 1035: code 2).
    fn failure(&self) -> Vec<u8> {
        let mut answer = self.message[..self.end].to_vec();
        answer[2] = 0x80 | (answer[2] & 0x01);
        answer[3] = 0x80 | 2;
        answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        answer
    }
}

fn count(message: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([message[at], message[at + 1]])
}

/// The end of the first question: labels up to the empty one, type, class. No compression here.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= message.len() && at - HEADER < 255).then_some(end)
}

/// Who has how many questions under way.
#[derive(Clone, Debug, Default)]
struct Flights(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A question under way; it ends when this is dropped.
#[derive(Debug)]
struct Flight(Flights, IpAddr);

impl Flights {
    fn begin(&self, guest: IpAddr) -> Option<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = flights.values().sum();
        let own = flights.entry(guest).or_default();
        if all >= IN_FLIGHT || *own >= PER_VM {
            return None;
        }
        *own += 1;
        drop(flights);
        Some(Flight(self.clone(), guest))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = flights.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                flights.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x03zos\x00\x00\x01\x00\x01";

    #[test]
    fn only_an_answer_to_the_very_question_is_accepted() {
        let question = Question::read(QUERY).unwrap();
        let check = |change: &dyn Fn(&mut Vec<u8>), accepted: bool| {
            let mut answer = question.with_id(7);
            answer[2] |= 0x80;
            change(&mut answer);
            let found = question.accept(7, &answer);
            assert_eq!(found.is_some(), accepted, "{answer:02x?}");
            assert!(found.is_none_or(|answer| answer[..2] == [0x12, 0x34]));
        };
        check(&|_| (), true);
        check(&|a| a[13] = b'W', true);
        check(&|a| a[13] = b'x', false);
        check(&|a| a[1] = 8, false);
        check(&|a| a[2] = 0x01, false);
        check(&|a| a.truncate(11), false);
        check(&|a| a[5] = 0, false);
        check(
            &|a| {
                a[5] = 0;
                a[3] = 0x82;
            },
            true,
        );
    }

    #[test]
    fn a_failure_carries_the_question() {
        let failure = Question::read(QUERY).unwrap().failure();
        assert_eq!(failure[..4], [0x12, 0x34, 0x81, 0x82]);
        assert_eq!(failure[HEADER..], QUERY[HEADER..]);
    }

    #[test]
    fn one_guest_cannot_use_up_the_proxy() {
        let flights = Flights::default();
        let guest = |n: u8| IpAddr::from([100, 64, 0, n]);
        let mut held: Vec<_> = (0..PER_VM).map(|_| flights.begin(guest(1)).unwrap()).collect();
        assert!(flights.begin(guest(1)).is_none());
        assert!(flights.begin(guest(2)).is_some());
        held.pop();
        assert!(flights.begin(guest(1)).is_some());
        drop(held);
        assert!(flights.0.lock().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, answer: Vec<u8>) {
            if let Some(question) = Question::read(&bytes) {
                let _ = question.accept(0, &answer);
                let _ = question.failure();
            }
        }

        #[test]
        fn any_change_is_read_without_a_panic(at in 0..QUERY.len(), byte: u8, id: u16) {
            let mut bytes = QUERY.to_vec();
            bytes[at] = byte;
            let question = Question::read(QUERY).unwrap();
            let _ = question.accept(id, &bytes);
            if let Some(question) = Question::read(&bytes) {
                let _ = question.failure();
            }
        }
    }
}

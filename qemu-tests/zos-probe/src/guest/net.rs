//! TCP and UDP on port 7700: one end serves, in a guest or in the node, the other measures.
//!
//! ```text
//!  TCP  's' ..bytes.. end ─▶ how many came (u64)      throughput there
//!       'r' ─▶ bytes until the other side closes      throughput back
//!  UDP  a datagram comes back as it is                round trips
//! ```

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::samples::Samples;

pub(crate) const PORT: u16 = 7700;
const PIECE: usize = 64 << 10;
/// A datagram that takes longer is lost.
const LOST: Duration = Duration::from_secs(1);

/// The serving end, for ever.
pub(crate) fn serve() -> Result<()> {
    let echo = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("open the echo")?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = echo.recv_from(&mut buffer) {
            echo.send_to(&buffer[..count], from).ok();
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?;
    for stream in listener.incoming().flatten() {
        // Whoever closes early has what it wanted.
        std::thread::spawn(move || answer(stream).ok());
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut word = [0];
    stream.read_exact(&mut word)?;
    let mut buffer = vec![0; PIECE];
    if word == *b"r" {
        loop {
            stream.write_all(&buffer)?;
        }
    }
    let mut count = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(stream.write_all(&count.to_le_bytes())?),
            read => count += read as u64,
        }
    }
}

/// Connects, once the other end is there.
fn connect(to: Ipv4Addr) -> Result<TcpStream> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect((to, PORT)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > end => return Err(error).context("connect"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// MiB a second there and back, and microseconds of a round trip.
#[allow(clippy::cast_precision_loss)] // counts of bytes
pub(crate) fn speed(to: Ipv4Addr, time: Duration) -> Result<Value> {
    let rate = |bytes: u64, took: Duration| bytes as f64 / f64::from(1 << 20) / took.as_secs_f64();
    let buffer = vec![0x5a; PIECE];
    let mut stream = connect(to)?;
    stream.write_all(b"s")?;
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&buffer).context("send")?;
    }
    stream.shutdown(Shutdown::Write).context("end the stream")?;
    let mut came = [0; 8];
    stream.read_exact(&mut came).context("read what came")?;
    let there = rate(u64::from_le_bytes(came), start.elapsed());

    let mut stream = connect(to)?;
    stream.write_all(b"r")?;
    let (start, mut count, mut buffer) = (Instant::now(), 0_u64, buffer);
    while start.elapsed() < time {
        count += stream.read(&mut buffer).context("receive")? as u64;
    }
    let back = rate(count, start.elapsed());
    drop(stream);
    let trips = trips(to, time, Duration::ZERO)?;
    Ok(json!({"send_mib": there, "receive_mib": back, "trip": trips.tell()}))
}

/// Round trips of a small datagram, one after another with a pause between.
pub(crate) fn trips(to: Ipv4Addr, time: Duration, pause: Duration) -> Result<Samples> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a socket")?;
    socket.connect((to, PORT)).context("aim")?;
    socket.set_read_timeout(Some(LOST)).context("bound a read")?;
    let (mut samples, mut number, start) = (Samples::default(), 0_u64, Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        number += 1;
        let question = number.to_le_bytes();
        // A full queue is a lost datagram.
        socket.send(&question).ok();
        let mut back = [0; 64];
        // An answer that comes late is another one's.
        while sent.elapsed() < LOST
            && !socket.recv(&mut back).is_ok_and(|count| back[..count] == question)
        {}
        samples.add(sent.elapsed());
        std::thread::sleep(pause);
    }
    Ok(samples)
}

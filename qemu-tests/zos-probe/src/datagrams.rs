//! Numbered datagrams to a guest's echo, and which of them came back.
//!
//! ```text
//!  udp start IP:PORT MILLIS ─▶ ZOSPING 0, 1, 2 .. ─▶ guest ─▶ ZOSPONG 0, 1, 2 ..
//!  udp stop ─▶ {"sent", "lost", "first_lost", "longest_ms"}     the last ones get their time
//! ```

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How long the last ones are waited for.
const LATE: Duration = Duration::from_secs(5);

/// A stream of datagrams, while there is one.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    running: Option<(Arc<AtomicBool>, JoinHandle<Value>)>,
}

impl Datagrams {
    /// `start IP:PORT MILLIS` or `stop`.
    pub(crate) fn obey(&mut self, words: &str) -> Result<Value> {
        match words.split(' ').collect::<Vec<_>>()[..] {
            ["start", to, pace] => {
                let pace = Duration::from_millis(pace.parse().context("MILLIS")?);
                if self.running.is_some() {
                    bail!("a stream runs already");
                }
                let stop = Arc::new(AtomicBool::new(false));
                let socket = socket(to.parse().context("IP:PORT")?)?;
                let flag = stop.clone();
                let thread = std::thread::spawn(move || run(&socket, pace, &flag));
                self.running = Some((stop, thread));
                Ok(true.into())
            }
            ["stop"] => {
                let (stop, thread) = self.running.take().context("no stream runs")?;
                stop.store(true, Ordering::Relaxed);
                thread.join().ok().context("the stream's thread is dead")
            }
            _ => bail!("udp start IP:PORT MILLIS | udp stop"),
        }
    }
}

fn socket(to: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context("open a socket")?;
    socket.connect(to).context("aim at the guest")?;
    Ok(socket)
}

fn run(socket: &UdpSocket, pace: Duration, stop: &AtomicBool) -> Value {
    let mut waiting: BTreeMap<u64, Instant> = BTreeMap::new();
    let (mut sent, mut longest, mut strange) = (0_u64, Duration::ZERO, 0_u64);
    let mut unsent: Option<String> = None;
    let mut next = Instant::now();
    let mut end = None;
    loop {
        let now = Instant::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + LATE);
        }
        match end {
            Some(end) if waiting.is_empty() || now > end => break,
            None if now >= next => {
                // One that isn't sent is one that doesn't come back.
                if let Err(error) = socket.send(format!("ZOSPING {sent}").as_bytes()) {
                    unsent.get_or_insert_with(|| format!("number {sent}: {error}"));
                }
                waiting.insert(sent, now);
                sent += 1;
                next = now + pace;
            }
            _ => {}
        }
        let left = next.saturating_duration_since(Instant::now());
        let left = left.clamp(Duration::from_millis(1), Duration::from_millis(20));
        socket.set_read_timeout(Some(left)).ok();
        let mut buffer = [0; 2048];
        if let Ok(count) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            let number = text.strip_prefix("ZOSPONG ").and_then(|number| number.parse().ok());
            match number.and_then(|number| waiting.remove(&number)) {
                Some(since) => longest = longest.max(since.elapsed()),
                None => strange += 1,
            }
        }
    }
    json!({
        "sent": sent,
        "lost": waiting.len(),
        "first_lost": waiting.keys().take(10).collect::<Vec<_>>(),
        "unsent": unsent,
        "strange": strange,
        "longest_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
    })
}

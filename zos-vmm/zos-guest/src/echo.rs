//! UDP port 8080: a datagram comes back, so that whoever numbers them sees whether one is lost.
//!
//! ```text
//!  ZOSPING <anything> ─▶ ZOSPONG <the same>
//! ```
//!
//! Only what begins so is answered, and no answer begins so: two of us told to talk to each other fall silent.
//! An answer is as long as its question, so nobody can make much of little.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
const QUESTION: &[u8; 8] = b"ZOSPING ";
const ANSWER: &[u8; 8] = b"ZOSPONG ";
/// More than fits an Ethernet frame; what is longer is cut off by the kernel.
const LONGEST: usize = 1500;

/// Starts to answer.
pub(crate) fn spawn() -> io::Result<()> {
    thread::Builder::new().name("echo".into()).spawn(|| {
        loop {
            if let Err(error) = serve() {
                println!("hello: no echo on UDP port {PORT}: {error}");
            }
            thread::sleep(Duration::from_secs(1));
        }
    })?;
    Ok(())
}

fn serve() -> io::Result<()> {
    let socket = UdpSocket::bind(("::", PORT)).or_else(|_| UdpSocket::bind(("0.0.0.0", PORT)))?;
    let mut buffer = [0; LONGEST];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        if let Some(answer) = answer(&mut buffer[..count]) {
            // Who can't be reached is no reason to stop.
            let _ = socket.send_to(answer, from);
        }
    }
}

fn answer(datagram: &mut [u8]) -> Option<&[u8]> {
    let head = datagram.first_chunk_mut()?;
    if head != QUESTION {
        return None;
    }
    *head = *ANSWER;
    Some(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_come_back_and_answers_do_not() {
        for (question, expected) in [
            (&b"ZOSPING 17"[..], Some(&b"ZOSPONG 17"[..])),
            (b"ZOSPING ", Some(b"ZOSPONG ")),
            (b"ZOSPONG 17", None),
            (b"ZOSPIN", None),
            (b"", None),
        ] {
            assert_eq!(answer(&mut question.to_vec()), expected);
        }
    }

    proptest! {
        #[test]
        fn any_datagram(mut bytes in prop::collection::vec(any::<u8>(), 0..LONGEST)) {
            let before = bytes.len();
            if let Some(answer) = answer(&mut bytes) {
                prop_assert_eq!(answer.len(), before);
                let mut again = answer.to_vec();
                prop_assert_eq!(super::answer(&mut again), None);
            }
        }
    }
}

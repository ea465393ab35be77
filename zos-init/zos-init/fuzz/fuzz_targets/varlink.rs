//! Bytes of a hostile peer through the varlink codec: nothing is held beyond the limit, cuts don't matter, and what was
//! understood survives being written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zos_host::varlink::{Call, Decoder, Reply, encode};

/// The messages of a stream that comes in pieces of this size, and whether it broke the limit.
fn decode(bytes: &[u8], limit: usize, piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Decoder::new(limit);
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        let broken = decoder.push(piece).is_err();
        while let Some(message) = decoder.message() {
            assert!(message.len() <= limit);
            messages.push(message);
        }
        if broken {
            return (messages, true);
        }
    }
    (messages, false)
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (limit, piece, bytes) = input;
    let limit = 4 * usize::from(limit);
    let whole = decode(bytes, limit, bytes.len().max(1));
    let pieces = decode(bytes, limit, usize::from(piece).max(1));
    assert_eq!(whole, pieces);
    for message in &whole.0 {
        if let Ok(call) = serde_json::from_slice::<Call>(message) {
            let _ = call.split();
            let written = encode(&call).unwrap();
            let (&0, written) = written.split_last().unwrap() else { panic!("no NUL at the end") };
            assert!(!written.contains(&0));
            assert_eq!(serde_json::from_slice::<Call>(written).unwrap(), call);
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(message) {
            let written = encode(&reply).unwrap();
            let again: Reply = serde_json::from_slice(&written[..written.len() - 1]).unwrap();
            assert_eq!(again, reply);
        }
    }
});

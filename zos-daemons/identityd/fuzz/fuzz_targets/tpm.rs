//! Whatever answers in a TPM's place: no panic, and nothing is taken for sealed or unsealed.
//!
//! An input is answers, each with two bytes of its length before it. Who doesn't have the primary key's private half
//! can't make an answer that is believed.
#![no_main]

use std::collections::VecDeque;
use std::io;

use identityd::tpm::{Blob, Port, Tpm};
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

struct Told(VecDeque<Vec<u8>>);

impl Port for Told {
    fn exchange(&mut self, _: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        let answer = self.0.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Zeroizing::new(answer))
    }
}

fuzz_target!(|input: &[u8]| {
    let mut answers = VecDeque::new();
    let mut rest = input;
    while let [high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (answer, next) = more.split_at(length);
        answers.push_back(answer.to_vec());
        rest = next;
    }
    assert!(Tpm::behind(Told(answers.clone())).seal(b"secret").is_err());
    // Also as one that was sealed under the key that is told, for it to get as far.
    for parent in [Vec::new(), answers.pop_back().unwrap_or_default()] {
        let blob = Blob { parent, public: vec![1; 60], private: vec![2; 90] };
        assert!(Tpm::behind(Told(answers.clone())).unseal(&blob).is_err());
    }
});

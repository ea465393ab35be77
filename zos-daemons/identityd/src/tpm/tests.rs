//! What a hostile TPM, or somebody on its bus, can do with answers. Whole exchanges run against a real TPM's
//! simulation in qemu-tests.

use std::collections::VecDeque;
use std::io;

use proptest::prelude::*;

use super::*;

/// Gives these answers, one after the other.
struct Told(VecDeque<Vec<u8>>);

impl Port for Told {
    fn exchange(&mut self, _: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        let answer = self.0.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Zeroizing::new(answer))
    }
}

fn told(answers: &[Vec<u8>]) -> Tpm {
    Tpm::behind(Told(answers.iter().cloned().collect()))
}

fn answer(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u16(tag).u32(u32::try_from(HEADER + body.len()).unwrap()).u32(code).bytes(body);
    writer.done().to_vec()
}

/// P-256's base point, as a primary key that can be reckoned with.
const POINT: [&str; 2] = [
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
];

/// TPMT_PUBLIC of a primary key as it is asked for.
fn public(x: &[u8], y: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u16(ECC).u16(SHA256).u32(STORAGE_KEY).sized(&[]);
    writer.u16(AES).u16(128).u16(CFB).u16(NO_ALGORITHM).u16(NIST_P256).u16(NO_ALGORITHM);
    writer.sized(x).sized(y);
    writer.done().to_vec()
}

/// The answer that has made a primary key.
fn made(public: &[u8]) -> Vec<u8> {
    let (mut parameters, mut body) = (Writer::default(), Writer::default());
    parameters.sized(public).sized(&[0; 40]).sized(&[0; 32]);
    let length = u32::try_from(parameters.done().len()).unwrap();
    body.u32(0x8000_0000).u32(length).bytes(parameters.done()).bytes(&[0, 0, 1, 0, 0]);
    answer(AUTHORIZED, 0, body.done())
}

/// The answer that has begun a session.
fn begun() -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(0x0200_0000).sized(&[3; 32]);
    answer(PLAIN, 0, body.done())
}

fn points() -> [Vec<u8>; 2] {
    POINT.map(|hex| hex::decode(hex).unwrap())
}

#[test]
fn a_tpm_that_is_otherwise_than_asked_for_is_refused_in_words() {
    let [x, y] = points();
    let check = |answers: &[Vec<u8>], expected: &str| {
        let refused = told(answers).seal(b"secret").unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    };
    check(&[], "TPM2_CreatePrimary: talk to the TPM");
    check(&[answer(AUTHORIZED, 0x9a2, &[])], "TPM2_CreatePrimary: the TPM answers 0x000009a2");
    check(&[made(&public(&x, &[1; 33]))], "a coordinate is too long");
    check(&[made(&public(&x, &x)), begun()], "the primary is no point of P-256");
    check(&[made(&public(&[], &[])), begun()], "the primary is no point of P-256");
    let mut signing = public(&x, &y);
    signing[6] ^= 0x04;
    check(&[made(&signing)], "the key is not as asked for");
    check(&[made(&public(&x, &y)[..40])], "it ends too early");
    check(&[made(&[&public(&x, &y)[..], &[0]].concat())], "something follows its end");
    let good = made(&public(&x, &y));
    check(&[good.clone(), answer(PLAIN, 0x903, &[])], "TPM2_StartAuthSession: the TPM answers");
    // It doesn't have the primary's private half, so it can't know the session's key.
    let mut create = Writer::default();
    create.u32(4).sized(&[]).sized(&[]).sized(&[4; 32]).u8(1).sized(&[5; 32]);
    let create = answer(AUTHORIZED, 0, create.done());
    check(
        &[good, begun(), create],
        "TPM2_Create: the TPM's answer is malformed: it isn't the TPM's",
    );
}

#[test]
fn a_tpm_with_another_seed_is_told_from_a_broken_one() {
    let [x, y] = points();
    let blob = Blob { parent: name(b"another"), public: vec![1], private: vec![2] };
    let mut tpm = told(&[made(&public(&x, &y)), begun()]);
    assert!(matches!(tpm.unseal(&blob), Err(TpmError::OtherParent)));
}

#[test]
fn leading_zeros_may_be_left_out() {
    assert_eq!(coordinate(&[1, 2]).unwrap()[29..], [0, 1, 2]);
    assert_eq!(coordinate(&[]).unwrap(), [0; 32]);
    assert_eq!(coordinate(&[9; 32]).unwrap(), [9; 32]);
    assert!(coordinate(&[9; 33]).is_err());
}

proptest! {
    /// Whatever comes instead of an answer, nothing panics and nothing is taken for sealed or unsealed.
    #[test]
    fn any_answers_are_refused(
        good in 0..3_usize,
        answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4),
        framed: bool,
        tag in prop::sample::select(vec![PLAIN, AUTHORIZED]),
    ) {
        let [x, y] = points();
        let frame = |body: Vec<u8>| if framed { answer(tag, 0, &body) } else { body };
        let mut all: Vec<Vec<u8>> = vec![made(&public(&x, &y)), begun()];
        all.truncate(good);
        all.extend(answers.into_iter().map(frame));
        prop_assert!(told(&all).seal(b"secret").is_err());
        let blob = Blob { parent: name(&public(&x, &y)), public: vec![1; 60], private: vec![2; 90] };
        prop_assert!(told(&all).unseal(&blob).is_err());
    }

    #[test]
    fn a_good_answer_with_a_changed_byte_is_no_other_key(at: prop::sample::Index, bit in 0..8u8) {
        let [x, y] = points();
        let mut first = made(&public(&x, &y));
        let at = at.index(first.len());
        first[at] ^= 1 << bit;
        prop_assert!(told(&[first, begun()]).seal(b"secret").is_err());
    }
}

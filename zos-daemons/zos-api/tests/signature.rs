//! Request signatures: an independent implementation's vector, every rule, hostile input.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde_json::Value;
use zos_api::signature::{Headers, Moment, Nonces, Parts, Refusal, Signed, Verified, sign, verify};

const NOW: i64 = 1_800_000_000;
const PUT: Parts<'_> =
    Parts { method: "PUT", path: "/v1/deployments/web", query: Some("dry_run=true") };
const BODY: &[u8] = br#"{"version":1,"workloads":{}}"#;
const AUDIENCE: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo/7";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signed(moment: Moment<'_>) -> Signed {
    sign(PUT, BODY, &key(1), AUDIENCE, moment)
}

fn moment() -> Moment<'static> {
    Moment { created: NOW, expires: NOW + 60, nonce: "n1" }
}

fn headers(signed: &Signed) -> Headers<'_> {
    Headers {
        audience: Some(&signed.audience),
        content_digest: signed.content_digest.as_deref(),
        input: Some(&signed.input),
        signature: Some(&signed.signature),
    }
}

fn judge(signed: &Signed, now: i64, nonces: &mut Nonces) -> Result<Verified, Refusal> {
    verify(PUT, headers(signed), BODY, AUDIENCE, now, nonces)
}

#[test]
fn the_vector_is_reproduced_both_ways() {
    let vector: Value =
        serde_json::from_str(include_str!("vectors/request-signature.json")).unwrap();
    let mut seed = [0; 32];
    for (i, byte) in seed.iter_mut().enumerate() {
        *byte = u8::try_from(i).unwrap();
    }
    let twin = SigningKey::from_bytes(&seed);
    assert_eq!(vector["twin_secret_seed"], seed.map(|b| format!("{b:02x}")).concat());
    let mut nonces = Nonces::default();
    for (i, request) in vector["requests"].as_array().unwrap().iter().enumerate() {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let url = text(&request["url"]).unwrap();
        let target = &url[url.find("/v1").unwrap()..];
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let parts = Parts { method: request["method"].as_str().unwrap(), path, query };
        let body = text(&request["body"]).unwrap();
        let expected = Signed {
            audience: text(&request["headers"]["Zos-Audience"]).unwrap(),
            content_digest: text(&request["headers"]["Content-Digest"]),
            input: text(&request["headers"]["Signature-Input"]).unwrap(),
            signature: text(&request["headers"]["Signature"]).unwrap(),
        };

        let moment = Moment { created: NOW, expires: NOW + 60, nonce: "bm9uY2UtMDAwMQ" };
        let ours = sign(parts, body.as_bytes(), &twin, &expected.audience, moment);
        assert_eq!(ours, expected, "request {i}");

        nonces = if i == 0 { nonces } else { Nonces::default() };
        let found = verify(
            parts,
            headers(&expected),
            body.as_bytes(),
            &expected.audience,
            NOW,
            &mut nonces,
        )
        .unwrap();
        assert_eq!(found.twin.to_string(), vector["twin_id"]);
        assert_eq!(found.base, request["signature_base"]);
    }
}

#[test]
fn a_request_is_good_once_and_in_its_time() {
    let check = |moment: Moment<'_>, now: i64, slug: Option<&str>| {
        let result = judge(&signed(moment), now, &mut Nonces::default());
        assert_eq!(result.err().map(|r| r.slug()), slug, "{moment:?} at {now}");
    };
    let life = |created: i64, expires: i64| Moment { created, expires, nonce: "n" };
    check(life(NOW, NOW + 300), NOW, None);
    check(life(NOW, NOW + 300), NOW + 300, None);
    check(life(NOW, NOW + 300), NOW + 301, Some("signature-expired"));
    check(life(NOW, NOW + 301), NOW, Some("signature-malformed"));
    check(life(NOW, NOW - 1), NOW, Some("signature-malformed"));
    check(life(NOW + 60, NOW + 90), NOW, None);
    check(life(NOW + 61, NOW + 90), NOW, Some("signature-expired"));

    let mut nonces = Nonces::default();
    assert!(judge(&signed(moment()), NOW, &mut nonces).is_ok());
    assert_eq!(judge(&signed(moment()), NOW + 1, &mut nonces), Err(Refusal::Replayed));
}

#[test]
fn each_broken_rule_has_its_slug() {
    let check = |change: &dyn Fn(&mut Signed), slug: &str| {
        let mut signed = signed(moment());
        change(&mut signed);
        let mut nonces = Nonces::default();
        let refusal = judge(&signed, NOW, &mut nonces).unwrap_err();
        assert_eq!(refusal.slug(), slug, "{signed:?}: {refusal}");
    };
    let input = |from: &'static str, to: &'static str| {
        move |signed: &mut Signed| {
            assert!(signed.input.contains(from));
            signed.input = signed.input.replace(from, to);
        }
    };
    check(&|s| s.audience.push('8'), "signature-audience");
    check(&|s| s.content_digest = None, "signature-invalid");
    check(&|s| s.content_digest = Some("sha-256=:AAAA:".into()), "signature-invalid");
    check(&|s| s.signature = "zos=:AAAA:".into(), "signature-malformed");
    check(&|s| s.signature = s.signature.replacen("zos", "sig1", 1), "signature-malformed");
    check(&|s| s.signature.push_str(", b=:AAAA:"), "signature-malformed");
    check(&|s| s.input.push_str(", b=()"), "signature-malformed");
    check(&|s| s.input.push_str(";alg=\"ed25519\""), "signature-malformed");
    check(&|s| s.input.push_str(";tag=\"zos\""), "signature-malformed"); // twice
    check(&input("zos=(", "zos=( "), "signature-malformed"); // not canonical
    check(&input("zos=(", "sig=("), "signature-malformed");
    check(&input("tag=\"zos\"", "tag=\"web\""), "signature-malformed");
    check(&input(";tag=\"zos\"", ""), "signature-malformed");
    check(&input("nonce=\"n1\"", "nonce=\"\""), "signature-malformed");
    check(&input("nonce=\"n1\"", "nonce=n1"), "signature-malformed");
    check(&input("nonce=\"n1\"", "nonce=\"n2\""), "signature-invalid");
    check(&input("created=18", "created=\"18"), "signature-malformed");
    check(&input("created=1800000000", "created=1800000001"), "signature-invalid");
    check(&input("\"@path\" ", ""), "signature-malformed");
    check(&input("\"@method\" \"@path\"", "\"@path\" \"@method\""), "signature-malformed");
    check(&input("\"@path\"", "\"@path\";req"), "signature-malformed");
    check(&input(" \"content-digest\"", ""), "signature-malformed");
    let other = zos_types::Id::from(&key(2).verifying_key()).to_string();
    let ours = zos_types::Id::from(&key(1).verifying_key()).to_string();
    check(&|s| s.input = s.input.replace(&ours, &other), "signature-invalid");
    check(&|s| s.input = s.input.replace(&ours, "me"), "signature-malformed");
}

#[test]
fn what_is_missing_is_told_apart() {
    let signed = signed(moment());
    let check = |headers: Headers<'_>, slug: &str| {
        let refusal =
            verify(PUT, headers, BODY, AUDIENCE, NOW, &mut Nonces::default()).unwrap_err();
        assert_eq!(refusal.slug(), slug, "{headers:?}");
    };
    let full = headers(&signed);
    check(Headers::default(), "signature-missing");
    check(Headers { input: None, ..full }, "signature-missing");
    check(Headers { signature: None, ..full }, "signature-missing");
    check(Headers { audience: None, ..full }, "signature-malformed");
}

#[test]
fn a_refused_request_uses_up_no_nonce() {
    let (good, mut forged) = (signed(moment()), signed(moment()));
    let mut nonces = Nonces::default();
    forged.signature = sign(PUT, BODY, &key(2), AUDIENCE, moment()).signature;
    assert_eq!(judge(&forged, NOW, &mut nonces).unwrap_err().slug(), "signature-invalid");
    assert!(judge(&good, NOW, &mut nonces).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))] // Ed25519 is slow unoptimised

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does(
        seed: [u8; 32],
        path in "/[a-z0-9/._~%-]{0,40}",
        query in prop::option::of("[a-z0-9=&%]{0,20}"),
        body: Vec<u8>,
        flip: prop::sample::Index,
    ) {
        let parts = Parts { method: "PUT", path: &path, query: query.as_deref() };
        let key = SigningKey::from_bytes(&seed);
        let signed = sign(parts, &body, &key, AUDIENCE, moment());
        let judge = |parts, body: &[u8]| {
            verify(parts, headers(&signed), body, AUDIENCE, NOW, &mut Nonces::default())
        };
        prop_assert!(judge(parts, &body).is_ok());
        let longer = format!("{path}x");
        for other in [
            Parts { path: &longer, ..parts },
            Parts { method: "GET", ..parts },
            Parts { query: Some("other"), ..parts },
        ] {
            prop_assert!(judge(other, &body).is_err());
        }
        let mut changed = body.clone();
        if changed.is_empty() {
            changed.push(0);
        } else {
            let at = flip.index(changed.len());
            changed[at] ^= 1;
        }
        prop_assert!(judge(parts, &changed).is_err());
    }

    #[test]
    fn any_headers_are_judged_without_a_panic(
        input in ".{0,200}",
        signature in ".{0,100}",
        audience in prop::option::of(".{0,60}"),
    ) {
        let headers = Headers {
            audience: audience.as_deref(),
            content_digest: audience.as_deref(),
            input: Some(&input),
            signature: Some(&signature),
        };
        prop_assert!(verify(PUT, headers, BODY, AUDIENCE, NOW, &mut Nonces::default()).is_err());
    }

    /// Any change of any header of a good request makes it a bad one: there are no two writings.
    #[test]
    fn any_changed_byte_is_refused(which in 0..4usize, at: prop::sample::Index, byte in 0x20u8..0x7f) {
        let mut signed = signed(moment());
        let mut digest = signed.content_digest.clone().unwrap();
        let text = match which {
            0 => &mut signed.audience,
            1 => &mut digest,
            2 => &mut signed.input,
            _ => &mut signed.signature,
        };
        let at = at.index(text.len());
        let before = text.clone();
        text.replace_range(at..=at, &char::from(byte).to_string());
        prop_assume!(*text != before);
        signed.content_digest = Some(digest);
        prop_assert!(judge(&signed, NOW, &mut Nonces::default()).is_err());
    }
}

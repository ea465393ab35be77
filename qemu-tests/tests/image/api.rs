//! Who may ask for what: signatures and rules of deployments, on one node without a disk.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::api::{Answer, Api, json};
use qemu_tests::{Node, scene};
use zos_api::signature::{Moment, Parts, sign};

use crate::vm::HELLO;

const TARGET: &str = "/v1/deployments/hello";

/// Seconds since 1970 here; QEMU's clock is this computer's.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What may be wrong with a request.
struct Request<'a> {
    audience: &'a str,
    created: i64,
    expires: i64,
    nonce: &'a str,
    spoil: fn(&mut Vec<(String, String)>),
}

#[test]
fn forged_unsigned_expired_and_replayed_requests_and_bad_deployments_are_refused() {
    scene("api", |scene| {
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&Node::default())?;
        let audience = node.wait_ready()?.audience;
        let api = twin.api(&node)?;
        let send = |request: &Request<'_>| -> Result<Answer> {
            let moment =
                Moment { created: request.created, expires: request.expires, nonce: request.nonce };
            let parts = Parts { method: "GET", path: TARGET, query: None };
            let signed = sign(parts, &[], &twin.key, request.audience, moment);
            let mut headers: Vec<(String, String)> =
                signed.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (request.spoil)(&mut headers);
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            api.exchange("GET", TARGET, &headers, &[])
        };
        let good = || Request {
            audience: &audience,
            created: now(),
            expires: now() + 60,
            nonce: "n0",
            spoil: |_| {},
        };
        let check = |what: &str, request: &Request<'_>, slug: &str| -> Result<()> {
            let (status, body) = send(request)?;
            let kind = body["type"].as_str().unwrap_or_default();
            ensure!(kind.ends_with(slug), "{what}: wanted {slug}, got {status} {body}");
            Ok(())
        };

        // Signed well, the answer is about the deployment: there is none. The same bytes again are a replay.
        let (status, body) = send(&good())?;
        ensure!(status == 404, "a good request is answered {status} {body}");
        check("replayed", &good(), "signature-replayed")?;
        check("unsigned", &Request { spoil: Vec::clear, ..good() }, "signature-missing")?;
        let forge = |headers: &mut Vec<(String, String)>| {
            for (name, value) in headers {
                if name == "signature" {
                    // Another signature of the right form: behind the label, three letters are others.
                    let (label, rest) = value.split_once("=:").unwrap_or_default();
                    let other = rest.replacen(|c: char| c.is_ascii_lowercase(), "Q", 3);
                    *value = format!("{label}=:{other}");
                }
            }
        };
        check("forged", &Request { nonce: "n1", spoil: forge, ..good() }, "signature-invalid")?;
        let garble = |headers: &mut Vec<(String, String)>| {
            headers.retain(|(name, _)| name != "signature-input");
            headers.push(("signature-input".into(), "zos=(".into()));
        };
        check(
            "malformed",
            &Request { nonce: "n2", spoil: garble, ..good() },
            "signature-malformed",
        )?;
        let old = Request { created: now() - 400, expires: now() - 340, nonce: "n3", ..good() };
        check("expired", &old, "signature-expired")?;
        let (id, _) = audience.split_once('/').context("an audience is ID/EPOCH")?;
        let yesterday = format!("{id}/yesterday");
        check(
            "for an earlier start",
            &Request { audience: &yesterday, nonce: "n4", ..good() },
            "signature-audience",
        )?;

        malformed_deployments(&api)?;
        Ok(())
    });
}

/// Each names the field and the rule.
fn malformed_deployments(api: &Api) -> Result<()> {
    let rows = [
        ("cpu = 1", "cpu = 0", "/workloads/hello/cpu"),
        ("256MiB", "256 apples", "/workloads/hello/memory"),
        ("builtin:hello", "builtin:goodbye", "/workloads/hello/image"),
        ("volume = \"data\"", "volume = \"date\"", "/workloads/hello/disks/0/volume"),
        ("restart = ", "restarts = ", "/workloads/hello/restarts"),
        ("[workloads.data]", "[workloads.Data]", "/workloads/Data"),
    ];
    for (from, to, pointer) in rows {
        ensure!(HELLO.contains(from), "the sample has no `{from}` to spoil");
        let Err(error) = api.put("hello", &HELLO.replace(from, to)) else {
            anyhow::bail!("`{to}` was taken");
        };
        let refused = error.downcast_ref::<zos_api::client::ClientError>();
        let problem = refused
            .and_then(|error| error.problem())
            .with_context(|| format!("`{to}`: {error:#}"))?;
        let found = problem.errors.iter().find(|error| error.pointer == pointer);
        let found = found
            .with_context(|| format!("`{to}` is refused without naming {pointer}: {problem:#?}"))?;
        ensure!(!found.rule.is_empty(), "`{to}` is refused without a rule");
    }
    // The deployment itself is one that the rules take (dry, for this node has no disk to put it on).
    ensure!(json(HELLO).is_ok(), "the sample is no deployment");
    Ok(())
}

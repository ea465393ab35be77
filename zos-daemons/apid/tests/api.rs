//! The API over real TLS on the loopback, before a node in memory: routes, problems, signatures.

use std::sync::Arc;

use apid::fake::{FakeNode, LOG};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde_json::Value;
use zos_api::client::{Address, Client, ClientError};
use zos_api::local::Change;
use zos_api::local::identity::Certificate;
use zos_api::signature::{Moment, Parts, sign};
use zos_types::{Problem, WorkloadName};

const HELLO: &str = r#"{"version": 1, "workloads": {
    "hello": {"type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello",
              "disks": [{"volume": "data"}], "networks": [{"network": "nat"}]},
    "data": {"type": "volume", "size": "1GiB"}}}"#;

/// Names and values.
type Headers = Vec<(&'static str, String)>;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A fresh node, its address, and a client of the twin with key 1.
async fn start() -> (FakeNode, Address, Client) {
    let node = FakeNode::new(9);
    let address = address(&node).await;
    let client = Client::new(address.clone(), Some(key(1)));
    (node, address, client)
}

async fn address(node: &FakeNode) -> Address {
    let socket = node.serve().await.unwrap();
    Address { id: Some(node.id()), host: socket.ip().to_string(), port: socket.port() }
}

fn name(text: &str) -> zos_types::Name {
    text.parse().unwrap()
}

fn problem(response: &Response<Bytes>) -> Problem {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{response:?}");
    let problem: Problem = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem.status, response.status().as_u16());
    problem
}

#[tokio::test]
async fn anybody_may_see_the_node_and_its_capacity() {
    let (node, address, _) = start().await;
    let client = Client::new(Address { id: None, ..address }, None);
    let seen = client.node().await.unwrap();
    assert_eq!((seen.id, client.node_id()), (node.id(), Some(node.id())));
    assert!(seen.audience.starts_with(&format!("{}/", node.id())));
    assert_eq!(seen.faults[0].id, "storage.foreign-disk:sda");
    assert_eq!(seen.services.len(), 2);
    assert!(seen.phases["api-ready"] > 0 && seen.phases["services"] == 1200);
    let capacity = client.capacity().await.unwrap();
    assert_eq!((capacity.capacity.cru.total, capacity.offered.cu), (8, 7750));
    assert!(matches!(client.list().await, Err(ClientError::NoKey)));
}

#[tokio::test]
async fn a_volume_has_snapshots_for_its_twin_alone() {
    let (_, address, client) = start().await;
    let (data, monday): (WorkloadName, _) = ("web/data".parse().unwrap(), name("monday"));
    let status = |error: ClientError| error.problem().unwrap().status;
    assert_eq!(status(client.take_snapshot(&data, &monday).await.unwrap_err()), 404);
    client.put(&name("web"), HELLO.as_bytes(), false).await.unwrap();

    let target = "/v1/deployments/web/workloads/data/snapshots/monday";
    let unsigned = client.exchange("PUT", target, &[], &[]).await.unwrap();
    assert_eq!(problem(&unsigned).slug(), "signature-missing");
    let taken = client.take_snapshot(&data, &monday).await.unwrap();
    assert_eq!((taken.name.as_str(), taken.size.0), ("monday", 1 << 30));
    assert_eq!(client.take_snapshot(&data, &monday).await.unwrap(), taken);
    assert_eq!(client.snapshots(&data).await.unwrap().snapshots[..], *std::slice::from_ref(&taken));
    assert_eq!(client.restore_snapshot(&data, &monday).await.unwrap(), taken);
    let shown = client.get(&name("web")).await.unwrap();
    let shown = shown.workloads[&name("data")].volume.clone().unwrap();
    assert_eq!((shown.snapshots.len(), shown.restoring), (1, None));

    // Another twin's volume is not there; nor is a VM's snapshot, nor one that was never taken.
    let other = Client::new(address, Some(key(2)));
    assert_eq!(status(other.snapshots(&data).await.unwrap_err()), 404);
    assert_eq!(status(other.take_snapshot(&data, &monday).await.unwrap_err()), 404);
    assert_eq!(status(other.restore_snapshot(&data, &monday).await.unwrap_err()), 404);
    assert_eq!(status(other.delete_snapshot(&data, &monday).await.unwrap_err()), 404);
    let vm = "web/hello".parse().unwrap();
    assert_eq!(status(client.take_snapshot(&vm, &monday).await.unwrap_err()), 404);
    let friday = name("friday");
    assert_eq!(status(client.restore_snapshot(&data, &friday).await.unwrap_err()), 404);

    client.delete_snapshot(&data, &monday).await.unwrap();
    assert_eq!(status(client.delete_snapshot(&data, &monday).await.unwrap_err()), 404);
    assert!(client.snapshots(&data).await.unwrap().snapshots.is_empty());
}

#[tokio::test]
async fn a_deployment_lives_and_dies_by_its_versions() {
    let (_, _, client) = start().await;
    let web = name("web");
    let next = |error: ClientError| {
        let problem = error.problem().unwrap().clone();
        (problem.status, problem.slug().to_owned(), problem.next_version)
    };
    let absent = client.get(&web).await.unwrap_err();
    assert_eq!(next(absent), (404, "not-found".into(), Some(1)));

    let dry = client.put(&web, HELLO.as_bytes(), true).await.unwrap();
    assert_eq!((dry.change, dry.dry_run), (Change::Created, true));
    assert!(client.list().await.unwrap().deployments.is_empty());

    for expected in [Change::Created, Change::Unchanged] {
        let applied = client.put(&web, HELLO.as_bytes(), false).await.unwrap();
        assert_eq!((applied.change, applied.dry_run), (expected, false));
        assert!(applied.used.cu > 0 && applied.used.su > 0);
    }
    let other = HELLO.replace("256MiB", "512MiB");
    let conflict = client.put(&web, other.as_bytes(), false).await.unwrap_err();
    assert_eq!(next(conflict), (409, "conflict".into(), Some(2)));
    let second = other.replace("\"version\": 1", "\"version\": 2");
    assert_eq!(client.put(&web, second.as_bytes(), false).await.unwrap().change, Change::Updated);
    assert_eq!(client.get(&web).await.unwrap().deployment.version, 2);
    assert_eq!(client.list().await.unwrap().deployments.len(), 1);

    assert_eq!(client.delete(&web).await.unwrap().next_version, 3);
    let gone = client.get(&web).await.unwrap_err();
    assert_eq!(next(gone), (404, "not-found".into(), Some(3)));
    assert_eq!(next(client.delete(&web).await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn another_twins_deployment_does_not_exist() {
    let (_, address, client) = start().await;
    client.put(&name("web"), HELLO.as_bytes(), false).await.unwrap();
    let other = Client::new(address, Some(key(2)));
    assert!(other.list().await.unwrap().deployments.is_empty());
    assert_eq!(other.get(&name("web")).await.unwrap_err().problem().unwrap().status, 404);
    assert_eq!(other.delete(&name("web")).await.unwrap_err().problem().unwrap().status, 404);
    let log = other.log(&"web/hello".parse().unwrap(), false).await.unwrap_err();
    assert_eq!(log.problem().unwrap().status, 404);
    assert_eq!(client.list().await.unwrap().deployments.len(), 1);
}

#[tokio::test]
async fn a_log_is_bytes_and_may_be_followed() {
    let (_, _, client) = start().await;
    client.put(&name("web"), HELLO.as_bytes(), false).await.unwrap();
    let vm: WorkloadName = "web/hello".parse().unwrap();
    let mut log = client.log(&vm, false).await.unwrap();
    let mut seen = Vec::new();
    while let Some(bytes) = log.next().await {
        seen.extend(bytes.unwrap());
    }
    assert_eq!(seen, LOG);

    let mut log = client.log_from(&vm, 6, false).await.unwrap();
    assert_eq!((log.from(), log.next().await.unwrap().unwrap().as_ref()), (6, &LOG[6..]));

    let mut log = client.log(&vm, true).await.unwrap();
    seen.clear();
    while !seen.ends_with(b"tick\ntick\n") {
        seen.extend(log.next().await.unwrap().unwrap());
    }
    let volume = client.log(&"web/data".parse().unwrap(), false).await.unwrap_err();
    assert_eq!(volume.problem().unwrap().status, 404);
}

#[tokio::test]
async fn each_fault_of_a_deployment_is_named() {
    let (_, _, client) = start().await;
    let bad = HELLO.replace("256MiB", "1MiB").replace("\"volume\": \"data\"", "\"volume\": \"x\"");
    let refused = client.put(&name("web"), bad.as_bytes(), false).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.status, problem.slug()), (400, "invalid"));
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/workloads/hello/memory", "/workloads/hello/disks/0/volume"]);
}

#[tokio::test]
async fn a_restart_of_the_api_voids_what_was_signed_and_the_client_signs_again() {
    let (node, first, client) = start().await;
    client.list().await.unwrap();
    let audience = client.node().await.unwrap().audience;
    let second = address(&node).await;
    let now = jiff::Timestamp::now().as_second();
    let moment = Moment { created: now, expires: now + 60, nonce: "n" };
    let parts = Parts { method: "GET", path: "/v1/deployments", query: None };
    let signed = sign(parts, &[], &key(1), &audience, moment);
    let headers: Vec<_> = signed.pairs().collect();

    let there = Client::new(first, None);
    let send = async |client: &Client| {
        client.exchange("GET", "/v1/deployments", &headers, &[]).await.unwrap()
    };
    assert_eq!(send(&there).await.status(), StatusCode::OK);
    assert_eq!(problem(&send(&there).await).slug(), "signature-replayed");
    let refused = problem(&send(&Client::new(second, None)).await);
    assert_eq!(refused.slug(), "signature-audience");
    assert!(refused.audience.unwrap() != audience && refused.time.is_some());
}

#[tokio::test]
async fn what_is_wrong_with_a_signature_is_told() {
    let (_, _, client) = start().await;
    let audience = client.node().await.unwrap().audience;
    let now = jiff::Timestamp::now().as_second();
    let parts = Parts { method: "GET", path: "/v1/deployments", query: None };
    let check = async |created: i64, change: &dyn Fn(&mut Headers), slug: &str| {
        let nonce = format!("n{slug}{created}");
        let moment = Moment { created, expires: created + 60, nonce: &nonce };
        let signed = sign(parts, &[], &key(1), &audience, moment);
        let mut headers: Headers = signed.pairs().map(|(n, v)| (n, v.to_owned())).collect();
        change(&mut headers);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let response = client.exchange("GET", "/v1/deployments", &headers, &[]).await.unwrap();
        let problem = problem(&response);
        assert_eq!((problem.status, problem.slug()), (401, slug));
        assert_eq!(problem.audience.as_ref(), Some(&audience));
        assert!(problem.time.is_some() && response.headers().contains_key(WWW_AUTHENTICATE));
    };
    check(now, &|h| h.clear(), "signature-missing").await;
    check(now, &|h| h[1].1 = "zos=()".into(), "signature-malformed").await;
    check(now, &|h| h.push(h[2].clone()), "signature-malformed").await; // twice
    check(now, &|h| h[2].1 = format!("zos=:{}:", "A".repeat(86) + "=="), "signature-invalid").await;
    check(now, &|h| h[0].1.push('0'), "signature-audience").await;
    check(now - 100, &|_| {}, "signature-expired").await;
    check(now + 100, &|_| {}, "signature-expired").await;
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let (_, _, client) = start().await;
    let check = async |method: &str, target: &str, status: u16, slug: &str| {
        let response = client.exchange(method, target, &[], &[]).await.unwrap();
        let problem = problem(&response);
        assert_eq!((problem.status, problem.slug()), (status, slug), "{method} {target}");
        response
    };
    check("GET", "/", 404, "not-found").await;
    check("GET", "/v2/node", 404, "not-found").await;
    let refused = check("POST", "/v1/node", 405, "method").await;
    assert_eq!(refused.headers()[ALLOW], "GET,HEAD");
    check("PATCH", "/v1/deployments/web", 405, "method").await;
    check("GET", "/v1/deployments/%ff", 400, "invalid").await;
    check("GET", "/v1/deployments", 401, "signature-missing").await;
}

/// What is refused only once the signature is right.
#[tokio::test]
async fn signed_requests_are_still_judged() {
    let (_, _, client) = start().await;
    let audience = client.node().await.unwrap().audience;
    let now = jiff::Timestamp::now().as_second();
    let mut count = 0;
    let mut check =
        async |method: &str, target: &str, media: &str, body: &[u8], expected: (u16, &str)| {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target, None),
            };
            count += 1;
            let nonce = format!("n{count}");
            let moment = Moment { created: now, expires: now + 60, nonce: &nonce };
            let signed = sign(Parts { method, path, query }, body, &key(1), &audience, moment);
            let mut headers: Vec<_> = signed.pairs().collect();
            headers.push(("content-type", media));
            let response = client.exchange(method, target, &headers, body).await.unwrap();
            if expected.1.is_empty() {
                assert_eq!(response.status().as_u16(), expected.0, "{target}: {response:?}");
            } else {
                let problem = problem(&response);
                assert_eq!((problem.status, problem.slug()), expected, "{method} {target}");
            }
            response
        };
    let json = "application/json";
    let hello = HELLO.as_bytes();
    let put = check("PUT", "/v1/deployments/web", json, hello, (201, "")).await;
    assert_eq!(put.headers()[ETAG], "\"1\"");
    check("PUT", "/v1/deployments/web", "application/json; charset=utf-8", hello, (200, "")).await;
    check("PUT", "/v1/deployments/web", "text/plain", hello, (415, "media-type")).await;
    check("PUT", "/v1/deployments/Web", json, hello, (400, "invalid")).await;
    check("PUT", "/v1/deployments/web?dry_run=maybe", json, hello, (400, "invalid")).await;
    check("PUT", "/v1/deployments/web?dryrun=true", json, hello, (400, "invalid")).await;
    check("PUT", "/v1/deployments/web", json, b"{", (400, "invalid")).await;
    check("PUT", "/v1/deployments/web", json, &vec![b' '; 300_000], (413, "too-large")).await;
    let get = check("GET", "/v1/deployments/web", json, b"", (200, "")).await;
    assert_eq!(get.headers()[ETAG], "\"1\"");
}

#[tokio::test]
async fn a_silent_part_is_named_and_the_rest_answers() {
    let (node, _, client) = start().await;
    node.set_silent(true);
    assert!(client.node().await.is_ok());
    let refused = client.list().await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.status, problem.slug()), (503, "unavailable"));
    assert!(problem.detail.contains("provisiond"));
}

#[tokio::test]
async fn only_the_node_asked_for_is_talked_to() {
    let (_, address, _) = start().await;
    let other = FakeNode::new(10).id();
    let client = Client::new(Address { id: Some(other), ..address }, Some(key(1)));
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, ClientError::WrongNode { .. }), "{error:?}");
    assert!(error.to_string().contains(&FakeNode::new(9).id().to_string()), "{error}");
    let nobody = Address { id: None, host: "127.0.0.1".into(), port: 1 };
    let error = Client::new(nobody, None).node().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

/// Serves a node's API with a certificate that identityd makes with some node's key; the port.
async fn serve(api: apid::Api, root: SigningKey) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = apid::tls::acceptor(async |request| {
        let spki = STANDARD.decode(request.spki).unwrap();
        let der = identityd::certificate::certify(&root, &spki).unwrap();
        Ok(Certificate { der: STANDARD.encode(der) })
    });
    let tls = tls.await.unwrap();
    tokio::spawn(apid::server::serve(listener, tls, Arc::new(api)));
    port
}

/// The certificate that identityd makes is one that the client takes, and only for its node.
#[tokio::test]
async fn a_certificate_by_identityd_is_taken() {
    let node = FakeNode::new(9);
    let port = serve(node.api(), key(9)).await;
    let client = |id| Client::new(Address { id, host: "127.0.0.1".into(), port }, Some(key(1)));
    client(Some(node.id())).list().await.unwrap();
    assert_eq!(client(None).node().await.unwrap().id, node.id());
    let other = client(Some(FakeNode::new(10).id())).node().await.unwrap_err();
    assert!(matches!(other, ClientError::WrongNode { .. }), "{other:?}");
}

/// A node that asks for a signature for another node, to use it there, gets none.
#[tokio::test]
async fn nothing_is_signed_for_a_third_node() {
    let (liar, victim) = (FakeNode::new(10), FakeNode::new(9));
    let port = serve(victim.api(), key(10)).await;
    let address = Address { id: Some(liar.id()), host: "127.0.0.1".into(), port };
    let client = Client::new(address, Some(key(1)));
    let error = client.list().await.unwrap_err();
    assert!(error.to_string().contains("for another node"), "{error}");
    let error = client.node().await.unwrap_err();
    assert!(error.to_string().contains("not its certificate"), "{error}");
}

#[tokio::test]
async fn the_description_is_served_and_names_every_route() {
    let (_, _, client) = start().await;
    let response = client.exchange("GET", "/v1/openapi.json", &[], &[]).await.unwrap();
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    let paths: Vec<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(paths.len() >= 16, "{paths:?}");
    let snapshots = "/v1/deployments/{name}/workloads/{workload}/snapshots";
    assert!(paths.contains(&snapshots), "{paths:?}");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

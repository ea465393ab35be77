//! What the farmer may do, over real TLS before a node in memory: who is refused, logs that go on, power.

use std::time::Duration;

use apid::fake::{FakeNode, Run};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use tokio::time::timeout;
use zos_api::client::{Address, Client, ClientError, ServiceLog};
use zos_api::local::init::{Action, UnitState};
use zos_api::node::disks::DiskChange;
use zos_api::node::farmer::{LogGap, LogLine, LogRecord, PowerAction};
use zos_api::signature::{Moment, Parts, sign};
use zos_types::disk::Role;
use zos_types::{Id, Name, Problem};

/// The farmer's key, and another.
const FARMER: u8 = 1;
const OTHER: u8 = 2;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A node with its farmer, and a run of its API.
async fn start() -> (FakeNode, Run) {
    let node = FakeNode::new(9);
    node.set_farmer(&Id::from(&key(FARMER).verifying_key()).to_string());
    let run = node.run(([127, 0, 0, 1], 0).into()).await.unwrap();
    (node, run)
}

fn client(node: &FakeNode, run: &Run, seed: u8) -> Client {
    let (host, port) = (run.address.ip().to_string(), run.address.port());
    Client::new(Address { id: Some(node.id()), host, port }, Some(key(seed)))
}

/// A request as it is, signed with a nonce.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    body: &'a [u8],
    media: &'a str,
}

async fn send(client: &Client, seed: u8, nonce: &str, request: &Request<'_>) -> Response<Bytes> {
    let Request { method, target, body, media } = *request;
    let audience = client.node().await.unwrap().audience;
    let created = jiff::Timestamp::now().as_second();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let moment = Moment { created, expires: created + 60, nonce };
    let signed = sign(Parts { method, path, query }, body, &key(seed), &audience, moment);
    let mut headers: Vec<_> = signed.pairs().collect();
    headers.push(("content-type", media));
    client.exchange(method, target, &headers, body).await.unwrap()
}

fn slug(response: &Response<Bytes>) -> (u16, String) {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{response:?}");
    let problem: Problem = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem.status, response.status().as_u16());
    (problem.status, problem.slug().to_owned())
}

/// Everything that is the farmer's.
const ROUTES: [(&str, &str, &[u8]); 13] = [
    ("GET", "/v1/services", b""),
    ("GET", "/v1/services/apid", b""),
    ("POST", "/v1/services/apid/restart", b""),
    ("GET", "/v1/services/apid/log?follow=true", b""),
    ("POST", "/v1/node/power", br#"{"action": "reboot"}"#),
    ("GET", "/v1/disks", b""),
    ("GET", "/v1/disks/sda", b""),
    ("POST", "/v1/disks/sda/adopt?dry_run=true", b""),
    ("POST", "/v1/disks/sda/release", br#"{"plan": "00"}"#),
    ("GET", "/v1/pools", b""),
    ("POST", "/v1/pools/00000000000000aa/scrub", b""),
    ("GET", "/v1/node/crashes", b""),
    ("GET", "/v1/metrics", b""),
];

#[tokio::test]
async fn nobody_but_the_farmer_gets_anything() {
    let media = "application/json";
    let check = async |setting: Option<&str>, seed: u8, expected: (u16, &str)| {
        let node = FakeNode::new(9);
        if let Some(setting) = setting {
            node.set_farmer(setting);
        }
        let run = node.run(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = client(&node, &run, seed);
        for (count, (method, target, body)) in ROUTES.into_iter().enumerate() {
            let unsigned = client.exchange(method, target, &[], body).await.unwrap();
            assert_eq!(slug(&unsigned), (401, "signature-missing".into()), "{target}");
            let request = Request { method, target, body, media };
            let refused = send(&client, seed, &format!("n{count}"), &request).await;
            assert_eq!(slug(&refused), (expected.0, expected.1.to_owned()), "{target}");
        }
        assert_eq!(node.shut_down(), [], "{expected:?}");
    };
    let farmer = Id::from(&key(FARMER).verifying_key()).to_string();
    check(Some(&farmer), OTHER, (403, "farmer-only")).await;
    check(None, FARMER, (403, "farmer-unset")).await;
    check(Some("me"), FARMER, (403, "farmer-unset")).await;
    check(Some(""), FARMER, (403, "farmer-unset")).await;
}

/// What is refused to the farmer too.
#[tokio::test]
async fn the_farmers_requests_are_still_judged() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let mut count = 0;
    let mut check =
        async |method: &str, target: &str, body: &str, media: &str, expected: (u16, &str)| {
            count += 1;
            let request = Request { method, target, body: body.as_bytes(), media };
            let refused = send(&client, FARMER, &format!("n{count}"), &request).await;
            assert_eq!(slug(&refused), (expected.0, expected.1.to_owned()), "{target} {body}");
        };
    let json = "application/json";
    let power = "/v1/node/power";
    check("POST", power, r#"{"action": "halt"}"#, json, (400, "invalid")).await;
    check("POST", power, r#"{"action": "reboot", "now": true}"#, json, (400, "invalid")).await;
    check("POST", power, "{}", json, (400, "invalid")).await;
    check("POST", power, "", json, (400, "invalid")).await;
    check("POST", power, r#"{"action": "reboot"}"#, "text/plain", (415, "media-type")).await;
    check("POST", power, r#"{"action": "kexec"}"#, json, (409, "conflict")).await;
    check("POST", power, &" ".repeat(300_000), json, (413, "too-large")).await;
    check("GET", power, "", json, (405, "method")).await;
    check("GET", "/v1/services/none", "", json, (404, "not-found")).await;
    check("POST", "/v1/services/none/restart", "", json, (404, "not-found")).await;
    check("GET", "/v1/services/none/log", "", json, (404, "not-found")).await;
    check("GET", "/v1/services/none/log?follow=true", "", json, (404, "not-found")).await;
    // a twin's program is nobody's service
    let twins =
        "/v1/services/vm%2Fyqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy%2Fweb.hello";
    for (method, target) in [("GET", ""), ("POST", "/restart"), ("GET", "/log")] {
        check(method, &format!("{twins}{target}"), "", json, (400, "invalid")).await;
    }
    let log = "/v1/services/apid/log";
    check("GET", &format!("{log}?after=7"), "", json, (400, "invalid")).await;
    check("GET", &format!("{log}?after=a.b"), "", json, (400, "invalid")).await;
    check("GET", &format!("{log}?follow=maybe"), "", json, (400, "invalid")).await;
    check("GET", &format!("{log}?until=now"), "", json, (400, "invalid")).await;
    assert_eq!(node.shut_down(), []);
    node.set_init_silent(true);
    check("GET", "/v1/services", "", json, (503, "unavailable")).await;
    check("POST", "/v1/services/apid/restart", "", json, (503, "unavailable")).await;
    check("GET", log, "", json, (503, "unavailable")).await;
    check("POST", power, r#"{"action": "reboot"}"#, json, (503, "unavailable")).await;
    check("GET", "/v1/node/crashes", "", json, (503, "unavailable")).await;
}

#[tokio::test]
async fn services_are_listed_described_and_restarted() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    node.print("storaged", 6, "four");
    let list = client.services().await.unwrap();
    let names: Vec<&str> = list.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, list.transient), (vec!["apid", "storaged"], 1));
    assert!(list.services.iter().all(|s| s.state == UnitState::Running && s.exit.is_none()));
    assert_eq!(client.restart(&name("storaged")).await.unwrap().name, "storaged");
    let detail = client.service(&name("storaged")).await.unwrap();
    let (service, usage) = (detail.service, detail.usage.unwrap());
    assert_eq!((service.restarts, service.exit.as_deref()), (1, Some("ended by SIGTERM")));
    let age = jiff::Timestamp::now().duration_since(service.since);
    assert!(age.abs() < jiff::SignedDuration::from_secs(5), "{}", service.since);
    assert_eq!((usage.memory, usage.pids, detail.log_bytes), (5 << 20, 3, 4));
}

#[tokio::test]
async fn the_machine_goes_down_once_for_each_signature() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let body = br#"{"action": "poweroff"}"#;
    let media = "application/json";
    let request = Request { method: "POST", target: "/v1/node/power", body, media };
    let first = send(&client, FARMER, "n1", &request).await;
    assert_eq!(
        (first.status(), &first.body()[..]),
        (StatusCode::ACCEPTED, &br#"{"action":"poweroff"}"#[..])
    );
    let again = send(&client, FARMER, "n1", &request).await;
    assert_eq!(slug(&again), (401, "signature-replayed".into()));
    assert_eq!(node.shut_down(), [Action::Poweroff]);
    client.power(PowerAction::Reboot).await.unwrap();
    assert_eq!(node.shut_down(), [Action::Poweroff, Action::Reboot]);
}

#[tokio::test]
async fn crashes_are_told_by_whoever_knows_them() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let kept = client.crashes().await.unwrap();
    assert_eq!((kept.crashes.len(), kept.earlier), (2, true));
    node.set_storage_silent(true);
    let found = client.crashes().await.unwrap();
    assert_eq!((found.crashes.len(), found.earlier), (1, false));
    assert_eq!(found.crashes[0].text, "Kernel panic\n\u{1b}[2J\n");
}

/// The next record of a log, which comes soon.
async fn next(log: &mut ServiceLog) -> LogRecord {
    timeout(Duration::from_secs(5), log.next()).await.unwrap().unwrap().unwrap()
}

async fn line(log: &mut ServiceLog) -> LogLine {
    match next(log).await {
        LogRecord::Line(line) => line,
        gap => panic!("{gap:?}"),
    }
}

#[tokio::test]
async fn a_log_is_lines_and_ends_without_follow() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    for text in ["one", "\u{1b}[2J \"two\"\n", "three"] {
        node.print("apid", 4, text);
    }
    let mut log = client.service_log(&name("apid"), None, false).await.unwrap();
    let first = line(&mut log).await;
    assert_eq!((first.text.as_str(), first.level), ("one", 4));
    let age = jiff::Timestamp::now().duration_since(first.time);
    assert!(age.abs() < jiff::SignedDuration::from_secs(5), "{}", first.time);
    let second = line(&mut log).await;
    assert_eq!(second.text, "\u{1b}[2J \"two\"\n");
    assert_eq!(line(&mut log).await.text, "three");
    assert!(log.next().await.is_none());
    // from a cursor on
    let mut log = client.service_log(&name("apid"), Some(&second.cursor), false).await.unwrap();
    assert_eq!(line(&mut log).await.text, "three");
    assert!(log.next().await.is_none());
    // what is no longer held is told
    node.forget_lines("apid", 1);
    let mut log = client.service_log(&name("apid"), Some(&first.cursor), false).await.unwrap();
    assert_eq!(next(&mut log).await, LogRecord::Gap(LogGap { missed: 1, rebooted: false }));
    assert_eq!(line(&mut log).await.text, "three");
}

#[tokio::test]
async fn a_log_goes_on_over_a_restart_of_the_api_and_begins_anew_with_a_boot() {
    let (node, run) = start().await;
    let address = run.address;
    let client = client(&node, &run, FARMER);
    let service = name("storaged");
    let mut log = client.service_log(&service, None, true).await.unwrap();
    node.print("storaged", 6, "one");
    node.print("storaged", 6, "two");
    assert_eq!(line(&mut log).await.text, "one");
    let cursor = line(&mut log).await.cursor;
    // the API ends at once although somebody listens, and the log says that it broke off
    timeout(Duration::from_secs(2), run.stop()).await.expect("nobody holds the API up");
    let broken = timeout(Duration::from_secs(5), log.next()).await.unwrap();
    assert!(matches!(broken, Some(Err(ClientError::Protocol(_)))), "{broken:?}");
    node.print("storaged", 6, "three");
    let run = node.run(address).await.unwrap();
    let mut log = client.service_log(&service, Some(&cursor), true).await.unwrap();
    let third = line(&mut log).await;
    assert_eq!(third.text, "three");
    node.print("storaged", 6, "four");
    assert_eq!(line(&mut log).await.text, "four");
    run.stop().await;
    // another boot counts from 1 again
    node.reboot();
    node.print("storaged", 6, "first of the boot");
    let _run = node.run(address).await.unwrap();
    let mut log = client.service_log(&service, Some(&third.cursor), true).await.unwrap();
    assert_eq!(next(&mut log).await, LogRecord::Gap(LogGap { missed: 0, rebooted: true }));
    assert_eq!(line(&mut log).await.text, "first of the boot");
}

/// A reader that takes nothing holds nothing up, and much is carried when it reads again.
#[tokio::test]
async fn a_slow_reader_of_a_log_gets_all_of_it() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let mut log = client.service_log(&name("apid"), None, true).await.unwrap();
    for _ in 0..200 {
        node.print("apid", 6, &"x".repeat(16 * 1024));
        tokio::task::yield_now().await;
    }
    assert!(client.services().await.is_ok());
    for count in 1..=200 {
        let cursor = line(&mut log).await.cursor;
        assert!(cursor.ends_with(&format!(".{count}")), "{cursor}");
    }
}

#[tokio::test]
async fn a_disk_is_adopted_by_the_hash_of_its_plan_alone() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let plan = client.plan("sda", DiskChange::Adopt).await.unwrap();
    assert_eq!(plan.loses, ["a Linux file system “photos”"]);
    // Somebody writes to it in between.
    node.touch_disk("sda");
    let stale = client.confirm("sda", DiskChange::Adopt, &plan.hash).await.unwrap_err();
    let problem = stale.problem().unwrap();
    assert_eq!((problem.status, problem.slug()), (409, "conflict"), "{problem:?}");
    assert_eq!(client.disk("sda").await.unwrap().role, Role::Foreign);
    let plan = client.plan("wwn-sda", DiskChange::Adopt).await.unwrap();
    let adopted = client.confirm("wwn-sda", DiskChange::Adopt, &plan.hash).await.unwrap();
    assert_eq!((adopted.name.as_str(), adopted.role), ("sda", Role::Ours));
    // What is done can't be done again.
    let again = client.confirm("sda", DiskChange::Adopt, &plan.hash).await.unwrap_err();
    assert_eq!(again.problem().unwrap().status, 409);

    let plan = client.plan("nvme0n1", DiskChange::Release).await.unwrap();
    let leaving = client.confirm("nvme0n1", DiskChange::Release, &plan.hash).await.unwrap();
    assert_eq!(leaving.role, Role::Leaving);
    assert_eq!(client.pools().await.unwrap().pools[0].disk, "nvme0n1");
    assert_eq!(client.disks().await.unwrap().disks.len(), 2);

    let scrubbed = client.scrub("00000000000000aa").await.unwrap();
    assert!(scrubbed.scrub.is_some_and(|scrub| scrub.ended.is_none()));
    let absent = client.scrub("aa").await.unwrap_err();
    assert_eq!(absent.problem().unwrap().status, 404);
}

#[tokio::test]
async fn words_about_disks_that_say_too_little_or_too_much_do_nothing() {
    let (node, run) = start().await;
    let client = client(&node, &run, FARMER);
    let mut count = 0;
    let mut check = async |target: &str, body: &str, media: &str, expected: (u16, &str)| {
        count += 1;
        let request = Request { method: "POST", target, body: body.as_bytes(), media };
        let refused = send(&client, FARMER, &format!("d{count}"), &request).await;
        assert_eq!(slug(&refused), (expected.0, expected.1.to_owned()), "{target} {body}");
    };
    let json = "application/json";
    let plan = client.plan("sda", DiskChange::Adopt).await.unwrap();
    let word = format!("{{\"plan\": \"{}\"}}", plan.hash);
    check("/v1/disks/sda/adopt", "", json, (400, "invalid")).await;
    check("/v1/disks/sda/adopt", "{}", json, (400, "invalid")).await;
    check("/v1/disks/sda/adopt", &word, "text/plain", (415, "media-type")).await;
    check("/v1/disks/sda/adopt?dry_run=true", &word, json, (400, "invalid")).await;
    check("/v1/disks/sda/adopt?force=true", &word, json, (400, "invalid")).await;
    check("/v1/disks/sdx/adopt", &word, json, (404, "not-found")).await;
    check("/v1/disks/nvme0n1/adopt", &word, json, (409, "conflict")).await;
    check("/v1/disks/sda/release", &word, json, (409, "conflict")).await;
    assert_eq!(client.disk("sda").await.unwrap().role, Role::Foreign);
    let absent = client.disk("sdx").await.unwrap_err();
    assert_eq!(absent.problem().unwrap().status, 404);
}

//! Keys of volumes over the real API: asked for, sealed, handed over, refused.

use apid::fake::FakeNode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use zos_api::client::{Address, Client, ClientError};
use zos_api::handover::{self, KEY};
use zos_types::deployment::KeyHolder;
use zos_types::{Id, WorkloadName};

const SECRET: &str = r#"{"version": 1, "workloads": {
    "vm": {"type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello", "disks": [{"volume": "mine"}]},
    "mine": {"type": "volume", "size": "1GiB", "key": "twin"},
    "plain": {"type": "volume", "size": "1GiB"}}}"#;

fn twin(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn volume(text: &str) -> WorkloadName {
    text.parse().unwrap()
}

/// A node with a twin's deployment, and clients of that twin and of another.
async fn start() -> (FakeNode, Client, Client) {
    let node = FakeNode::new(9);
    let socket = node.serve().await.unwrap();
    let address =
        Address { id: Some(node.id()), host: socket.ip().to_string(), port: socket.port() };
    let client = Client::new(address.clone(), Some(twin(1)));
    client.put(&"web".parse().unwrap(), SECRET.as_bytes(), false).await.unwrap();
    (node, client, Client::new(address, Some(twin(2))))
}

async fn states(client: &Client) -> Vec<&'static str> {
    let status = client.get(&"web".parse().unwrap()).await.unwrap();
    status.workloads.values().map(|workload| workload.state.word()).collect()
}

/// Status and slug of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String) {
    let error = result.unwrap_err();
    let problem = error.problem().unwrap_or_else(|| panic!("{error:?}"));
    (problem.status, problem.slug().to_owned())
}

#[tokio::test]
async fn a_volume_waits_for_its_key_and_takes_no_other() {
    let (node, client, _) = start().await;
    assert_eq!(states(&client).await, ["locked", "ready", "locked"]);
    let mine = volume("web/mine");
    let known = client.volume_key(&mine).await.unwrap();
    assert_eq!((known.holder, known.given, known.locked), (KeyHolder::Twin, false, true));
    let key = client.derive_key(&known.salt.unwrap(), None).unwrap();
    client.unlock(&mine, &key).await.unwrap();
    client.unlock(&mine, &key).await.unwrap();
    assert_eq!(states(&client).await, ["ready", "ready", "running"]);
    node.lock_volumes();
    assert_eq!(states(&client).await, ["locked", "ready", "locked"]);
    let known = client.volume_key(&mine).await.unwrap();
    assert!(known.given && known.locked);
    assert_eq!(refused(client.unlock(&mine, &[7; KEY]).await), (409, "conflict".into()));
    client.unlock(&mine, &key).await.unwrap();
    // As a volume's that came from another node.
    let elsewhere = Id::from(&twin(5).verifying_key());
    let other = client.derive_key(&STANDARD.encode([7; 32]), Some(elsewhere)).unwrap();
    assert_eq!(refused(client.unlock(&mine, &other).await), (409, "conflict".into()));
}

#[tokio::test]
async fn what_is_none_of_a_twins_is_not_opened_by_it() {
    let (_, client, other) = start().await;
    assert_eq!(
        refused(client.unlock(&volume("web/plain"), &[7; KEY]).await),
        (400, "invalid".into())
    );
    let node = client.volume_key(&volume("web/plain")).await.unwrap();
    assert_eq!((node.holder, node.salt, node.locked), (KeyHolder::Node, None, false));
    for name in ["web/absent", "web/vm", "gone/mine"] {
        assert_eq!(
            refused(client.unlock(&volume(name), &[7; KEY]).await),
            (404, "not-found".into())
        );
        assert_eq!(refused(client.volume_key(&volume(name)).await), (404, "not-found".into()));
    }
    // Another twin's does not exist.
    assert_eq!(
        refused(other.unlock(&volume("web/mine"), &[7; KEY]).await),
        (404, "not-found".into())
    );
}

#[tokio::test]
async fn a_key_is_for_one_volume_of_one_twin_on_one_run_of_one_node() {
    let (node, client, _) = start().await;
    let offered = client.sealing_key().await.unwrap();
    let array = |text: &str| STANDARD.decode(text).unwrap();
    let public: [u8; 32] = array(&offered.key).try_into().unwrap();
    let signature: [u8; 64] = array(&offered.signature).try_into().unwrap();
    let id = Id::from(&twin(1).verifying_key());
    let check = async |context: String, key: &[u8], expected: u16| {
        let sealed = handover::seal(&node.id(), &public, &signature, &context, key).unwrap();
        let body = format!(r#"{{"sealed": "{}"}}"#, STANDARD.encode(sealed));
        let status = put(&client, body.as_bytes()).await;
        assert_eq!(status, expected, "{context}");
    };
    let mine = volume("web/mine");
    check(handover::context(&node.id(), &id, &volume("web/plain")), &[7; KEY], 400).await;
    let other = Id::from(&twin(2).verifying_key());
    check(handover::context(&node.id(), &other, &mine), &[7; KEY], 400).await;
    check(handover::context(&other, &id, &mine), &[7; KEY], 400).await;
    check(handover::context(&node.id(), &id, &mine), &[7; KEY - 1], 400).await;
    check(handover::context(&node.id(), &id, &mine), &[7; KEY], 204).await;
    for body in ["", "{", "{}", r#"{"sealed": 7}"#, r#"{"sealed": "!"}"#, r#"{"sealed": ""}"#] {
        assert_eq!(put(&client, body.as_bytes()).await, 400, "{body}");
    }
    assert_eq!(put(&client, br#"{"sealed": "", "more": 1}"#).await, 400);
}

/// The status of a body for the key of `web/mine`, signed by twin 1.
async fn put(client: &Client, body: &[u8]) -> u16 {
    use zos_api::signature::{Moment, Parts, sign};
    static NONCE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let node = client.node().await.unwrap();
    let created = node.time.parse::<jiff::Timestamp>().unwrap().as_second();
    let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
    let moment = Moment { created, expires: created + 60, nonce: &nonce };
    let path = "/v1/deployments/web/workloads/mine/key";
    let parts = Parts { method: "PUT", path, query: None };
    let signed = sign(parts, body, &twin(1), &node.audience, moment);
    let mut headers: Vec<_> = signed.pairs().collect();
    headers.push(("content-type", "application/json"));
    client.exchange("PUT", path, &headers, body).await.unwrap().status().as_u16()
}

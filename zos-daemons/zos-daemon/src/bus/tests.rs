//! Calls over real sockets.

use std::io::{Read, Write};

use serde_json::json;
use tokio::net::UnixListener;
use zos_api::local::service::{Faults, ListFaults, Metrics, ReadMetrics};
use zos_api::local::{Done, capacity, identity, storage};
use zos_types::Fault;

use super::*;
use crate::{FaultBoard, Shutdown};

/// Serves a router on `name` in a folder of its own, and gives a bus to it.
fn serve(name: &str, router: Router, faults: FaultBoard) -> (tempfile::TempDir, Bus) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join(name)).unwrap();
    tokio::spawn(seal(router, faults).unwrap().accept(listener));
    let bus = Bus::at(dir.path());
    (dir, bus)
}

fn seal(router: Router, faults: FaultBoard) -> Result<serve::Server, crate::DaemonError> {
    let metrics = crate::Metrics::new("testd", faults.clone());
    router.seal(faults, &metrics, Shutdown::default())
}

fn identity_router() -> Router {
    Router::new(&identity::INTERFACE)
        .on(async |_: Call, _: identity::Describe| Err(CallError::busy("not yet")))
        .on(async |_: Call, _: identity::CertifyTls| Err(CallError::not_found("none")))
        .on(async |_: Call, seal: identity::Seal| {
            let data = format!("{}:{}", seal.context, seal.data);
            Ok(identity::Sealed { data, sealing: zos_types::volume::Sealing::Beside })
        })
        .on(async |_: Call, _: identity::SealingKey| Err(CallError::not_found("none")))
        .on(async |_: Call, _: identity::Open| Err(CallError::not_found("none")))
        .on_fds(async |call: Call, unseal: identity::Unseal| {
            Ok((identity::Secret { data: unseal.data }, call.fds))
        })
}

#[tokio::test]
async fn a_call_is_answered_and_an_error_keeps_its_kind() {
    let (_dir, bus) = serve("identity.sock", identity_router(), FaultBoard::default());
    let sealed = bus.call(identity::Seal { context: "a".into(), data: "b".into() }).await.unwrap();
    assert_eq!(sealed.data, "a:b");
    let refused = bus.call(identity::Describe {}).await.unwrap_err();
    assert_eq!(refused, CallError::busy("not yet"));
}

#[tokio::test]
async fn descriptors_go_both_ways() {
    let (_dir, bus) = serve("identity.sock", identity_router(), FaultBoard::default());
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let request = identity::Unseal { context: String::new(), data: "x".into() };
    let (_, mut fds) = bus.call_with_fds(request, vec![theirs.into()]).await.unwrap();
    let mut back = std::os::unix::net::UnixStream::from(fds.remove(0));
    back.write_all(b"same").unwrap();
    let mut seen = [0; 4];
    ours.read_exact(&mut seen).unwrap();
    assert_eq!((&seen, fds.len()), (b"same", 0));
}

#[tokio::test]
async fn faults_are_answered_beside_the_interface() {
    let board = FaultBoard::default();
    board.raise(Fault::new("identity.test", "a test"));
    let (_dir, bus) = serve("identity.sock", identity_router(), board);
    let Faults { faults } = bus.call_on("/run/zos/identity.sock", ListFaults {}).await.unwrap();
    assert_eq!(faults, [Fault::new("identity.test", "a test")]);
    let Metrics { text } = bus.call_on("/run/zos/identity.sock", ReadMetrics {}).await.unwrap();
    assert!(text.contains("zos_testd_faults{kind=\"identity.test\"} 1"), "{text}");
}

fn measured(name: &str) -> capacity::Measured {
    capacity::Measured {
        processor: name.into(),
        capacity: Default::default(),
        offered: Default::default(),
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_last_value() {
    let router = Router::new(&capacity::INTERFACE).on_stream(
        async |_: Call, _: capacity::Measure, out: Sink<capacity::Measured>| {
            out.send(measured("one")).await?;
            out.send(measured("two")).await?;
            Ok(measured("three"))
        },
    );
    let (_dir, bus) = serve("capacity.sock", router, FaultBoard::default());
    let mut watch = bus.watch(capacity::Measure {}).await.unwrap();
    let mut seen = Vec::new();
    while let Some(measured) = watch.next().await {
        seen.push(measured.unwrap().processor);
    }
    assert_eq!(seen, ["one", "two", "three"]);
    // without `more`, the first one is the answer
    assert_eq!(bus.call(capacity::Measure {}).await.unwrap().processor, "one");
}

#[test]
fn a_missing_or_foreign_handler_is_found_before_serving() {
    let router = Router::new(&capacity::INTERFACE);
    assert!(seal(router, FaultBoard::default()).is_err());
    let router = Router::new(&capacity::INTERFACE)
        .on(async |_: Call, _: capacity::Measure| Err(CallError::busy("")))
        .on(async |_: Call, _: storage::SetIdentity| Ok(Done {}));
    assert!(seal(router, FaultBoard::default()).is_err());
}

#[test]
fn unknown_errors_are_kept_in_words() {
    let raw = RawError { error: "org.other.Bad".into(), parameters: Some(json!({"x": 1})) };
    let CallError::Failed { detail } = CallError::from(raw) else { panic!() };
    assert_eq!(detail, r#"org.other.Bad {"x":1}"#);
}

/// The other daemon ends and is started again while somebody insists, and while somebody follows.
#[tokio::test(start_paused = true)]
async fn who_insists_is_answered_by_a_later_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capacity.sock");
    let bus = Bus::at(dir.path());
    let answered = tokio::spawn({
        let bus = bus.clone();
        async move { bus.insist(|| capacity::Measure {}).await.processor }
    });
    let followed = tokio::spawn(async move {
        let mut seen = Vec::new();
        let take = |measured: capacity::Measured| {
            seen.push(measured.processor);
            std::future::ready(seen.len() < 4)
        };
        bus.follow(|| capacity::Measure {}, take).await;
        seen
    });
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let listener = UnixListener::bind(path).unwrap();
    let router = Router::new(&capacity::INTERFACE).on_stream(
        async |_: Call, _: capacity::Measure, out: Sink<capacity::Measured>| {
            out.send(measured("one")).await?;
            Ok(measured("two"))
        },
    );
    tokio::spawn(router.simulate(listener));
    assert_eq!(answered.await.unwrap(), "one");
    assert_eq!(followed.await.unwrap(), ["one", "two", "one", "two"]);
}

/// A socket that PID 1 holds while its daemon hangs: the call waits in the backlog.
#[tokio::test(start_paused = true)]
async fn a_bounded_call_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let _held = UnixListener::bind(dir.path().join("capacity.sock")).unwrap();
    let bus = Bus::at(dir.path()).within(std::time::Duration::from_millis(1500));
    let late = bus.call(capacity::Measure {}).await.unwrap_err();
    assert_eq!(late, CallError::busy("org.zos.Capacity.Measure: no answer within 1.5 s"));
}

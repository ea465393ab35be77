//! What other clients may do: ask who we are, talk nonsense, flood, and never listen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use zos_api::local::{CallError, capacity, identity};

use super::serve::Server;
use super::{Bus, Call, Router, Sink};
use crate::{FaultBoard, Metrics, Shutdown};

struct Service {
    dir: tempfile::TempDir,
    shutdown: Shutdown,
    metrics: Metrics,
}

impl Service {
    fn start(router: Router) -> Self {
        Self::serve(|faults, metrics, shutdown| router.seal(faults, metrics, shutdown).unwrap())
    }

    fn serve(server: impl FnOnce(FaultBoard, &Metrics, Shutdown) -> Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("test.sock")).unwrap();
        let (faults, shutdown) = (FaultBoard::default(), Shutdown::default());
        let metrics = Metrics::new("testd", faults.clone());
        let server = server(faults, &metrics, shutdown.clone());
        tokio::spawn(server.accept(listener));
        Self { dir, shutdown, metrics }
    }

    async fn connect(&self) -> Client {
        Client(UnixStream::connect(self.dir.path().join("test.sock")).await.unwrap())
    }
}

/// A client that knows of varlink only what its specification says.
struct Client(UnixStream);

impl Client {
    async fn say(&mut self, text: &[u8]) {
        // One that was hung up on hears of it when it listens.
        let _ = self.0.write_all(text).await;
    }

    async fn call(&mut self, call: Value) {
        self.say(format!("{call}\0").as_bytes()).await;
    }

    /// The next answer; none when the service has hung up.
    async fn hear(&mut self) -> Option<Value> {
        let mut message = Vec::new();
        loop {
            match self.0.read_u8().await {
                Ok(0) => return Some(serde_json::from_slice(&message).unwrap()),
                Ok(byte) => message.push(byte),
                Err(_) => return None,
            }
        }
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.call(json!({ "method": method, "parameters": parameters })).await;
        self.hear().await.unwrap()
    }
}

fn measured(processor: &str) -> capacity::Measured {
    capacity::Measured {
        processor: processor.to_owned(),
        capacity: Default::default(),
        offered: Default::default(),
    }
}

/// Answers at once.
fn quick() -> Router {
    Router::new(&capacity::INTERFACE)
        .on(async |_: Call, _: capacity::Measure| Ok(measured("quick")))
}

#[tokio::test]
async fn any_varlink_client_can_ask_what_is_served() {
    let service = Service::start(quick());
    let mut client = service.connect().await;
    let info = client.ask("org.varlink.service.GetInfo", json!({})).await;
    let interfaces = ["org.varlink.service", "org.zos.Capacity", "org.zos.Service"];
    assert_eq!(info["parameters"]["interfaces"], json!(interfaces));
    for name in interfaces {
        let get = "org.varlink.service.GetInterfaceDescription";
        let told = client.ask(get, json!({ "interface": name })).await;
        let text = told["parameters"]["description"].as_str().unwrap().to_owned();
        assert!(text.lines().any(|line| line == format!("interface {name}")), "{text}");
    }
    let done = client.ask("org.zos.Capacity.Measure", json!({})).await;
    assert_eq!(done["parameters"]["processor"], "quick");
}

#[tokio::test]
async fn a_daemon_without_an_interface_tells_how_it_is() {
    let service = Service::serve(Router::bare);
    let mut client = service.connect().await;
    let info = client.ask("org.varlink.service.GetInfo", json!({})).await;
    let interfaces = json!(["org.varlink.service", "org.zos.Service"]);
    assert_eq!(info["parameters"]["interfaces"], interfaces);
    let faults = client.ask("org.zos.Service.ListFaults", json!({})).await;
    assert_eq!(faults["parameters"]["faults"], json!([]));
}

#[tokio::test]
async fn what_can_not_be_called_is_refused_in_varlinks_words() {
    let service = Service::start(quick());
    let mut client = service.connect().await;
    let rows = [
        (
            "org.zos.Capacity.Fly",
            json!({}),
            "MethodNotFound",
            json!({"method": "org.zos.Capacity.Fly"}),
        ),
        (
            "org.varlink.service.Fly",
            json!({}),
            "MethodNotFound",
            json!({"method": "org.varlink.service.Fly"}),
        ),
        (
            "org.zos.Storage.Settle",
            json!({}),
            "InterfaceNotFound",
            json!({"interface": "org.zos.Storage"}),
        ),
        ("Measure", json!({}), "InterfaceNotFound", json!({"interface": ""})),
        (
            "org.zos.Capacity.Measure",
            json!({"x": 1}),
            "InvalidParameter",
            json!({"parameter": "x"}),
        ),
        (
            "org.varlink.service.GetInterfaceDescription",
            json!({}),
            "InvalidParameter",
            json!({"parameter": "interface"}),
        ),
        (
            "org.varlink.service.GetInterfaceDescription",
            json!({"interface": "org.zos.Storage"}),
            "InterfaceNotFound",
            json!({"interface": "org.zos.Storage"}),
        ),
    ];
    for (method, parameters, error, said) in rows {
        let refused = client.ask(method, parameters).await;
        let name = format!("org.varlink.service.{error}");
        assert_eq!(refused, json!({ "error": name, "parameters": said }), "{method}");
    }
    let rows = [
        (json!({}), "context"),
        (json!({"context": 7, "data": ""}), "context"),
        (json!({"context": "", "data": "", "more": 1}), "more"),
    ];
    let seal = Router::new(&identity::INTERFACE)
        .on(async |_: Call, _: identity::Seal| Err(CallError::busy("never asked")));
    let listener = UnixListener::bind(service.dir.path().join("seal.sock")).unwrap();
    tokio::spawn(seal.simulate(listener));
    for (parameters, wrong) in rows {
        let stream = UnixStream::connect(service.dir.path().join("seal.sock")).await.unwrap();
        let refused = Client(stream).ask("org.zos.Identity.Seal", parameters.clone()).await;
        assert_eq!(refused["parameters"], json!({ "parameter": wrong }), "{parameters}");
    }
    // Our own client turns them into its errors.
    let bus = Bus::at(service.dir.path());
    let call = identity::Seal { context: String::new(), data: String::new() };
    let refused = bus.call_on("test.sock", call).await.unwrap_err();
    assert!(matches!(refused, CallError::NotFound { .. }), "{refused:?}");
}

#[tokio::test]
async fn calls_in_a_row_are_answered_in_their_order_and_quiet_ones_not_at_all() {
    let service = Service::start(quick());
    let mut client = service.connect().await;
    let call = |method: &str| json!({ "method": method }).to_string() + "\0";
    let quiet = json!({ "method": "org.zos.Capacity.Measure", "oneway": true }).to_string() + "\0";
    let calls = call("org.zos.Capacity.Measure") + &quiet + &call("org.zos.Service.ListFaults");
    client.say(calls.as_bytes()).await;
    assert_eq!(client.hear().await.unwrap()["parameters"]["processor"], "quick");
    assert_eq!(client.hear().await.unwrap()["parameters"]["faults"], json!([]));
    let counted = "zos_testd_calls_total{method=\"org.zos.Capacity.Measure\",outcome=\"ok\"} 2";
    assert!(service.metrics.text().contains(counted), "{}", service.metrics.text());
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_and_no_other() {
    let service = Service::start(quick());
    let mut polite = service.connect().await;
    let deep = [b"[".repeat(100_000), b"\0".to_vec()].concat();
    let long = vec![b'x'; 3 << 20];
    let rows: [&[u8]; 7] = [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"{\"method\": 7}\0",
        b"{\"method\": \"org.zos.Capacity.Measure\"} {}\0",
        b"\xff\xfe\0",
        &deep,
        &long,
    ];
    for nonsense in rows {
        let mut client = service.connect().await;
        client.say(nonsense).await;
        let heard = tokio::time::timeout(Duration::from_secs(10), client.hear()).await;
        assert_eq!(
            heard,
            Ok(None),
            "{:?}",
            String::from_utf8_lossy(&nonsense[..nonsense.len().min(40)])
        );
        let done = polite.ask("org.zos.Capacity.Measure", json!({})).await;
        assert_eq!(done["parameters"]["processor"], "quick");
    }
}

#[tokio::test]
async fn one_user_can_not_take_all_connections_and_gets_them_back() {
    let service = Service::start(quick());
    let mut held = Vec::new();
    let refused = loop {
        let mut client = service.connect().await;
        client.call(json!({ "method": "org.zos.Capacity.Measure" })).await;
        match client.hear().await {
            Some(_) => held.push(client),
            None => break held.len(),
        }
        assert!(held.len() < 500);
    };
    assert!(service.metrics.text().contains(&format!("zos_testd_callers {refused}")));
    held.clear();
    for _ in 0..100 {
        if service.metrics.text().contains("zos_testd_callers 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut client = service.connect().await;
    let done = client.ask("org.zos.Capacity.Measure", json!({})).await;
    assert_eq!(done["parameters"]["processor"], "quick");
}

/// Time stands still unless nobody can do anything, and then it jumps: to the end of patience.
#[tokio::test(start_paused = true)]
async fn a_reader_that_never_reads_holds_little_and_is_given_up() {
    let (sent, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, ended) = (Arc::clone(&sent), Arc::clone(&gone));
    let endless = move |_: Call, _: capacity::Measure, out: Sink<capacity::Measured>| {
        let (count, ended) = (Arc::clone(&count), Arc::clone(&ended));
        async move {
            let large = "x".repeat(64 << 10);
            while out.send(measured(&large)).await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            ended.fetch_add(1, Ordering::Relaxed);
            Err(CallError::busy("gone"))
        }
    };
    let service = Service::start(Router::new(&capacity::INTERFACE).on_stream(endless));
    let mut client = service.connect().await;
    client.call(json!({ "method": "org.zos.Capacity.Measure", "more": true })).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = sent.load(Ordering::Relaxed);
    assert!((1..64).contains(&before), "{before}");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(sent.load(Ordering::Relaxed), before);
    assert!(service.metrics.text().contains("outcome=\"gone\"} 1"), "{}", service.metrics.text());
    assert!(service.metrics.text().contains("zos_testd_callers 0"));
}

#[tokio::test(start_paused = true)]
async fn on_the_way_down_calls_are_answered_streams_end_and_nobody_is_let_in() {
    let router = Router::new(&capacity::INTERFACE).on_stream(
        async |_: Call, _: capacity::Measure, out: Sink<capacity::Measured>| {
            out.send(measured("first")).await?;
            out.closed().await;
            Ok(measured("last"))
        },
    );
    let streaming = Service::start(router);
    let slow = Service::start(Router::new(&capacity::INTERFACE).on(
        async |_: Call, _: capacity::Measure| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(measured("slow"))
        },
    ));
    let (mut stream, mut call) = (streaming.connect().await, slow.connect().await);
    stream.call(json!({ "method": "org.zos.Capacity.Measure", "more": true })).await;
    assert_eq!(stream.hear().await.unwrap()["continues"], true);
    call.call(json!({ "method": "org.zos.Capacity.Measure" })).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grace = crate::shutdown::GRACE;
    assert!(streaming.shutdown.finish(grace).await && slow.shutdown.finish(grace).await);
    assert_eq!(stream.hear().await.unwrap()["error"], "org.zos.Error.Busy");
    assert_eq!(call.hear().await.unwrap()["parameters"]["processor"], "slow");
    assert_eq!(call.hear().await, None);
    let mut late = UnixStream::connect(slow.dir.path().join("test.sock")).await;
    if let Ok(late) = &mut late {
        let mut byte = [0; 1];
        assert!(!matches!(late.read(&mut byte).await, Ok(1)));
    }
}

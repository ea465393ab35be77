//! The daemon itself among others on real sockets: some answer, some hang, some are not there.

mod openmetrics;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use tokio::net::{TcpListener, UnixListener};
use zos_api::client::{Address, Client};
use zos_api::local::identity::{self, Certificate, CertifyTls, Identity};
use zos_api::local::init::{
    self, Boot, Crash, Crashes, DescribeUnit, Exit, ListUnits, LogEntries, LogEntry, Phase,
    ReadLog, RestartUnit, Unit, UnitDetail, UnitKind, UnitState, Units, Usage,
};
use zos_api::local::{CallError, Done, INTERFACES, capacity};
use zos_api::node::farmer::{LogGap, LogRecord, PowerAction};
use zos_daemon::{Bus, Call, Daemon, Router, Settings, Shutdown, Sink};
use zos_types::machine::{BootReason, TimeQuality};
use zos_types::{Id, Name};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn bind(dir: &Path, socket: &str) -> UnixListener {
    UnixListener::bind(dir.join(socket)).unwrap()
}

/// Sockets that are held and never answered, but for those named.
fn hang_all_but(dir: &Path, answering: &[&str]) -> Vec<UnixListener> {
    let files = INTERFACES.iter().filter_map(|i| i.socket.rsplit('/').next());
    let hung = files.filter(|file| !file.is_empty() && !answering.contains(file));
    hung.map(|file| bind(dir, file)).collect()
}

fn unit(name: &str, kind: UnitKind, state: UnitState) -> Unit {
    let exit = Some(Exit { code: None, signal: Some(9), oom: true });
    let (name, detail) = (name.to_owned(), "a \"quoted\"\nreason".to_owned());
    Unit { name, kind, state, pid: None, restarts: 3, since_ms: 1_500, exit, detail }
}

/// PID 1; it stops the API at once when that is to be restarted.
fn pid_1(api: Shutdown) -> Router {
    let units = || {
        let twins = "vm/yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy/web.hello";
        vec![
            unit("vmd", UnitKind::Service, UnitState::Failed),
            unit("mounts", UnitKind::Service, UnitState::Done),
            unit(twins, UnitKind::Transient, UnitState::Running),
        ]
    };
    Router::new(&init::INTERFACE)
        .on(async |_: Call, _: init::Describe| {
            Ok(Boot {
                version: "0.1.0".into(),
                image: "ab".into(),
                boot_reason: BootReason::Watchdog,
                ending: None,
                watchdog: None,
                time_quality: TimeQuality::Rtc,
                settings: Default::default(),
                phases: vec![Phase { name: "mounts".into(), millis: 250 }],
                faults: Vec::new(),
            })
        })
        .on(move |_: Call, _: ListUnits| async move { Ok(Units { units: units() }) })
        .on(async |_: Call, describe: DescribeUnit| match describe.unit.as_str() {
            "vmd" => Ok(UnitDetail {
                unit: unit("vmd", UnitKind::Service, UnitState::Failed),
                usage: Some(Usage {
                    memory: 4096,
                    memory_peak: 8192,
                    cpu_usec: 1_500_000,
                    pids: 2,
                    oom_kills: 1,
                }),
                log_bytes: 77,
            }),
            other => Err(CallError::not_found(other)),
        })
        .on(move |_: Call, restart: RestartUnit| {
            let api = api.clone();
            async move {
                match restart.unit.as_str() {
                    "apid" => api.begin(),
                    other => return Err(CallError::not_found(other)),
                }
                Ok(Done {})
            }
        })
        .on(async |_: Call, _: init::ListCrashes| {
            let crash = Crash { name: "dmesg-ramoops-0".into(), text: "oops".into() };
            Ok(Crashes { crashes: vec![crash] })
        })
        .on_stream(async |_: Call, read: ReadLog, out: Sink<LogEntries>| {
            if read.unit == "storaged" {
                return long_log(&read, &out).await;
            }
            for line in 1.. {
                let text = format!("{} after {}", read.unit, read.after);
                let entry = LogEntry { cursor: read.after + line, time_ms: line, level: 6, text };
                out.send(LogEntries { entries: vec![entry], missed: 0 }).await?;
            }
            Err(CallError::busy("it never ends"))
        })
}

/// Lines 4 to 9 of a log, of which an answer holds two: the newest when it is asked at first, then the oldest first as
/// a stream, which goes on.
async fn long_log(read: &ReadLog, out: &Sink<LogEntries>) -> Result<LogEntries, CallError> {
    let page = |from: u64, missed| {
        let entry = |line| LogEntry { cursor: line, time_ms: line, level: 6, text: "x".into() };
        LogEntries { entries: (from..from + 2).map(entry).collect(), missed }
    };
    static ASKED: AtomicBool = AtomicBool::new(false);
    if !ASKED.swap(true, Ordering::Relaxed) {
        return Ok(page(8, 7 - read.after));
    }
    for from in [4, 6, 8, 10] {
        let missed = if from == 4 { 3 - read.after } else { 0 };
        out.send(page(from, missed)).await?;
    }
    std::future::pending().await
}

/// A node on sockets, the client of its farmer, and what stops the API.
struct Place {
    _dir: tempfile::TempDir,
    _hung: Vec<UnixListener>,
    client: Client,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// identityd answers, and `answering` beside it; the others hang.
async fn start(answering: &[&str]) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let answering = [answering, &["identity.sock"]].concat();
    let hung = hang_all_but(dir.path(), &answering);
    let root = key(9);
    let certify = async |_: Call, request: CertifyTls| {
        let spki = STANDARD.decode(request.spki).unwrap();
        let der = identityd::certificate::certify(&key(9), &spki).unwrap();
        Ok(Certificate { der: STANDARD.encode(der) })
    };
    let node = Id::from(&root.verifying_key());
    let identityd = Router::new(&identity::INTERFACE)
        .on(move |_: Call, _: identity::Describe| async move {
            Ok(Identity { node, ephemeral: false, sealing: zos_types::volume::Sealing::Beside })
        })
        .on(certify);
    tokio::spawn(identityd.simulate(bind(dir.path(), "identity.sock")));
    let farmer = key(1);
    let settings =
        [("farmer".to_owned(), Id::from(&farmer.verifying_key()).to_string())].into_iter();
    let bus = Bus::at(dir.path());
    let apid = Daemon::simulated("apid", settings.collect(), bus.clone(), None);
    if answering.contains(&"init.sock") {
        let router = pid_1(apid.shutdown.clone());
        tokio::spawn(router.simulate(bind(dir.path(), "init.sock")));
    }
    if answering.contains(&"capacity.sock") {
        // a whole daemon on the chassis, with the metrics that all have
        let listener = Some(bind(dir.path(), "capacity.sock"));
        let capacityd = Daemon::simulated("capacityd", Settings::default(), bus, listener);
        capacityd.metrics.counter("odd_things", "Things that are odd").inc();
        let router = Router::new(&capacity::INTERFACE)
            .on(async |_: Call, _: capacity::Measure| Err(CallError::busy("not measured yet")));
        tokio::spawn(capacityd.serve(router));
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Address { id: Some(node), host: "127.0.0.1".into(), port };
    let task = tokio::spawn(apid::serve(apid, listener));
    let client = Client::new(address, Some(farmer));
    client.node().await.unwrap();
    Place { _dir: dir, _hung: hung, client, task }
}

/// Whatever hangs, the farmer has an answer soon.
#[tokio::test]
async fn nothing_that_hangs_holds_the_farmer_up() {
    let place = start(&[]).await;
    let client = &place.client;
    let services = name("vmd");
    let begin = Instant::now();
    let (list, detail, log, restart, power, crashes, metrics) = tokio::join!(
        client.services(),
        client.service(&services),
        client.service_log(&services, None, false),
        client.restart(&services),
        client.power(PowerAction::Reboot),
        client.crashes(),
        client.metrics(),
    );
    let refusals = [list.err(), detail.err(), log.err(), restart.err(), power.err(), crashes.err()];
    for refusal in refusals {
        let problem = refusal.expect("refused").problem().expect("a refusal").clone();
        assert_eq!((problem.status, problem.slug()), (503, "unavailable"), "{problem:?}");
        assert!(problem.detail.contains("zos-init"), "{problem:?}");
    }
    let metrics = openmetrics::parse(&metrics.unwrap());
    let scraped = &metrics["zos_scrape_ok"];
    assert_eq!(scraped.value(&[("daemon", "zos-init")]), Some(0.0));
    assert_eq!(scraped.value(&[("daemon", "vmd")]), Some(0.0));
    assert!(metrics.contains_key("zos_apid_answers"));
    assert!(!metrics.keys().any(|family| family.starts_with("zos_init_")));
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_the_node_counts_is_one_openmetrics_text() {
    let place = start(&["init.sock", "capacity.sock"]).await;
    place.client.services().await.unwrap();
    place.client.exchange("GET", "/v1/services", &[], &[]).await.unwrap(); // not signed
    let text = place.client.metrics().await.unwrap();
    if let Some(path) = std::env::var_os("KEEP_METRICS") {
        std::fs::write(path, &text).unwrap(); // to hold it to another parser
    }
    let metrics = openmetrics::parse(&text);
    let check = |family: &str, labels: &[(&str, &str)], value: f64| {
        let family = metrics.get(family).unwrap_or_else(|| panic!("{family} in\n{text}"));
        assert_eq!(family.value(labels), Some(value), "{labels:?} of {family:?}");
    };
    check("zos_scrape_ok", &[("daemon", "zos-init")], 1.0);
    check("zos_scrape_ok", &[("daemon", "capacityd")], 1.0);
    check("zos_scrape_ok", &[("daemon", "vmd")], 0.0);
    check("zos_capacityd_odd_things", &[], 1.0);
    check("zos_init_unit_up", &[("unit", "vmd")], 0.0);
    check("zos_init_unit_up", &[("unit", "mounts")], 1.0);
    check("zos_init_unit_state", &[("unit", "vmd"), ("state", "failed")], 1.0);
    check("zos_init_unit_state", &[("unit", "vmd"), ("state", "running")], 0.0);
    check("zos_init_unit_restarts", &[("unit", "vmd")], 3.0);
    let exit = [("unit", "vmd"), ("code", ""), ("signal", "9"), ("oom", "true")];
    check("zos_init_unit_last_exit", &exit, 1.0);
    check("zos_init_unit_memory_bytes", &[("unit", "vmd")], 4096.0);
    check("zos_init_unit_memory_peak_bytes", &[("unit", "vmd")], 8192.0);
    check("zos_init_unit_cpu_seconds", &[("unit", "vmd")], 1.5);
    check("zos_init_unit_pids", &[("unit", "vmd")], 2.0);
    check("zos_init_unit_oom_kills", &[("unit", "vmd")], 1.0);
    check("zos_init_unit_log_bytes", &[("unit", "vmd")], 77.0);
    check("zos_init_transient_units", &[], 1.0);
    check("zos_init_boot_phase_seconds", &[("phase", "mounts")], 0.25);
    check("zos_init_watchdog_hardware", &[], 0.0);
    let boot = [("version", "0.1.0"), ("image", "ab"), ("boot_reason", "watchdog")];
    check("zos_init_boot", &boot, 1.0);
    // the twins' programs are not told by name
    assert!(!text.contains("web.hello"));
    let answers = &metrics["zos_apid_answers"];
    assert!(answers.value(&[("status", "200")]).unwrap() >= 1.0, "{answers:?}");
    assert!(answers.value(&[("status", "401")]) == Some(1.0), "{answers:?}");
    assert!(metrics["zos_apid_clients"].value(&[]).unwrap() >= 1.0);
}

/// PID 1 stops the API as soon as it has noted the restart: the answer is sent before, and a
/// follower does not hold it up.
#[tokio::test]
async fn the_api_is_restarted_through_itself() {
    let place = start(&["init.sock"]).await;
    let mut log = place.client.service_log(&name("vmd"), Some("0.0"), true).await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert_eq!(first, LogRecord::Gap(LogGap { missed: 0, rebooted: true }));
    for count in 1..=3 {
        let LogRecord::Line(line) = log.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!(line.text, "vmd after 0");
        assert!(line.cursor.ends_with(&format!(".{count}")), "{line:?}");
    }
    let begin = Instant::now();
    assert_eq!(place.client.restart(&name("apid")).await.unwrap().name, "apid");
    let ended = tokio::time::timeout(Duration::from_secs(60), place.task).await;
    ended.expect("it ends at once").unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let broken = loop {
        match log.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(broken, Some(Err(_))), "{broken:?}");
    assert!(place.client.services().await.is_err());
}

#[tokio::test]
async fn crashes_of_this_boot_are_told_without_storaged() {
    let place = start(&["init.sock"]).await;
    let list = place.client.crashes().await.unwrap();
    assert_eq!((list.crashes[0].text.as_str(), list.earlier), ("oops", false));
}

/// A log that is longer than PID 1's longest answer comes whole, and ends.
#[tokio::test]
async fn a_long_log_comes_in_pieces() {
    let place = start(&["init.sock"]).await;
    let mut log = place.client.service_log(&name("storaged"), None, false).await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert_eq!(first, LogRecord::Gap(LogGap { missed: 3, rebooted: false }));
    for count in 4..=9 {
        let LogRecord::Line(line) = log.next().await.unwrap().unwrap() else { panic!("{count}") };
        assert!(line.cursor.ends_with(&format!(".{count}")), "{line:?}");
    }
    assert!(log.next().await.is_none());
}

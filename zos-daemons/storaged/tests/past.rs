//! What is told of the last run, boot by boot, against a PID 1 that writes down what it is asked.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use storaged::Places;
use storaged::past::Past;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::watch;
use zos_api::local::storage::Settled;
use zos_daemon::Bus;
use zos_host::SysRoot;

/// What PID 1 was told by `SetLastEnd`.
type Told = Arc<Mutex<Vec<Value>>>;

/// Answers as PID 1 of a node that goes down to `ending` and found one crash.
fn pid_1(folder: &Path, ending: Value) -> Told {
    let socket = folder.join("init.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let told = Told::default();
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (heard, ending) = (Arc::clone(&heard), ending.clone());
            tokio::spawn(async move {
                let (reader, mut writer) = stream.split();
                let mut calls = BufReader::new(reader).split(0);
                while let Ok(Some(call)) = calls.next_segment().await {
                    let call: Value = serde_json::from_slice(&call).unwrap();
                    let reply = match call["method"].as_str().unwrap() {
                        "org.zos.Init.SetLastEnd" => {
                            heard.lock().unwrap().push(call["parameters"]["end"].clone());
                            json!({})
                        }
                        "org.zos.Init.ListCrashes" => {
                            json!({ "crashes": [{ "name": "dmesg-ramoops-0", "text": "last words" }] })
                        }
                        "org.zos.Init.Describe" => json!({
                            "version": "1", "image": "", "boot_reason": "unknown", "ending": ending, "watchdog": null,
                            "time_quality": "rtc", "settings": {}, "phases": [], "faults": [],
                        }),
                        other => panic!("{other}"),
                    };
                    let mut text = serde_json::to_vec(&json!({ "parameters": reply })).unwrap();
                    text.push(0);
                    writer.write_all(&text).await.unwrap();
                }
            });
        }
    });
    told
}

/// storaged's past in this boot, settled.
fn past(folder: &Path, boot: &str, durable: bool) -> Past {
    let id = folder.join("proc/sys/kernel/random");
    fs::create_dir_all(&id).unwrap();
    fs::write(id.join("boot_id"), format!("{boot}\n")).unwrap();
    let state = folder.join("state");
    fs::create_dir_all(state.join("storage")).unwrap();
    let places = Places { root: SysRoot::at(folder), state, ..Places::node() };
    let path = places.state.to_string_lossy().into_owned();
    let settled = Settled { path, durable, identity_refusal: None };
    Past::new(&places, watch::channel(Some(settled)).1)
}

#[tokio::test]
async fn each_boot_is_told_once_how_the_one_before_ended() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::at(dir.path());
    for (boot, ending, expect) in [
        // The first run on this disk, and a storaged of it that is started again.
        ("1", json!(null), vec![json!("poweroff")]),
        ("1", json!("reboot"), vec![]),
        // That one ended so; the next one is cut short.
        ("2", json!(null), vec![json!("reboot")]),
        ("3", json!("halt"), vec![json!(null)]),
        ("4", json!(null), vec![json!("halt")]),
    ] {
        let told = pid_1(dir.path(), ending);
        let past = past(dir.path(), boot, true);
        past.clone().begin(bus.clone()).await;
        past.end(&bus).await;
        assert_eq!(*told.lock().unwrap(), expect, "boot {boot}");
    }
    // Boots 1 to 4 found a crash each.
    let found = past(dir.path(), "4", true);
    found.clone().begin(bus.clone()).await;
    let crashes = found.crashes(&bus).await.unwrap().crashes;
    assert_eq!(crashes.len(), 4);
    assert!(crashes[0].name.starts_with("000004.") && crashes[0].text == "last words");
}

#[tokio::test]
async fn a_node_without_a_state_disk_writes_nothing_and_tells_what_pid_1_knows() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::at(dir.path());
    let told = pid_1(dir.path(), json!("reboot"));
    let past = past(dir.path(), "1", false);
    past.clone().begin(bus.clone()).await;
    past.end(&bus).await;
    assert!(told.lock().unwrap().is_empty());
    assert_eq!(past.crashes(&bus).await.unwrap().crashes[0].text, "last words");
    assert_eq!(fs::read_dir(dir.path().join("state/storage")).unwrap().count(), 0);
}

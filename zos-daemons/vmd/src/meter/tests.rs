//! VMMs as good and as bad as they come, each on a socket of its own.

use std::io::{Read as _, Write as _};
use std::path::Path;

use zos_daemon::FaultBoard;
use zos_types::Bytes;
use zos_types::deployment::{DiskOf, Image, NetworkKind, NetworkOf};

use super::*;
use crate::sockets::Socket;

const GOOD: &str = r#"{"__vcpus": {"exits": 9}, "data": {"read_bytes": 512, "read_ops": 1, "write_bytes": 0},
    "_disk1": {"read_bytes": 8}, "net-0": {"rx_bytes": 60, "rx_frames": 1}, "__balloon": {"actual_bytes": 4096, "reported_bytes": 8192},
    "root": {"read_bytes": 77}, "net-1": {"rx_bytes": 77}}"#;

fn vm() -> Vm {
    let disk = |name: &str| DiskOf { volume: name.parse().unwrap() };
    Vm {
        cpu: 1,
        memory: Bytes(256 << 20),
        image: Image::Hello,
        restart: Default::default(),
        disks: vec![disk("data"), disk("disk1")],
        networks: vec![NetworkOf { network: NetworkKind::Nat }],
        shares: vec![],
    }
}

/// A VMM that answers each connection with these bytes, and then holds it or hangs up.
fn vmm(folder: &Path, slot: u32, answer: Vec<u8>, holds: bool) -> Live {
    let sockets = folder.join(slot.to_string());
    let listener = Socket::Api.bind(&sockets).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(&answer);
            if holds {
                held.push(stream);
            }
        }
    });
    Live { slot, group: format!("twin/a.vm-{slot}"), sockets, vm: vm() }
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_vmm_is_believed_in_known_words_only() {
    let dir = tempfile::tempdir().unwrap();
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).into_bytes();
    let huge = http("200 OK", &format!("{{\"vm\": {{\"{}\": 1}}}}", "x".repeat(1 << 20)));
    let deep = http("200 OK", &"[".repeat(60_000));
    let bad: [(Vec<u8>, bool); 8] = [
        (Vec::new(), false),
        (Vec::new(), true),
        (endless, true),
        (huge, true),
        (deep, false),
        (http("500 Internal Server Error", GOOD), false),
        (http("200 OK", "{\"vm\": 7}"), false),
        (b"\x00\xff\r\n\r\n".to_vec(), false),
    ];
    let mut live: Vec<Live> = (1..)
        .zip(bad)
        .map(|(slot, (answer, holds))| vmm(dir.path(), slot, answer, holds))
        .collect();
    live.push(vmm(dir.path(), 0, http("200 OK", GOOD), true));
    // Numbers that are none are left out, and the others stay.
    let odd = r#"{"__vcpus": {"exits": -1}, "data": {"read_bytes": "9", "read_ops": 3}}"#;
    live.push(vmm(dir.path(), 20, http("200 OK", odd), false));
    let group = dir.path().join(&live[8].group);
    std::fs::create_dir_all(&group).unwrap();
    for (file, text) in
        [("cgroup.procs", ""), ("memory.current", "8192"), ("cpu.stat", "usage_usec 2500000\n")]
    {
        std::fs::write(group.join(file), text).unwrap();
    }

    let readings = Owner::new(read(dir.path(), &live).await);
    let metrics = Metrics::new("vmd", FaultBoard::default());
    show(&metrics, &readings.view());
    let text = metrics.text();
    let of_vms: Vec<&str> = text.lines().filter(|line| line.contains("{vm=")).collect();
    let mut expected = vec![
        "zos_vmd_vm_cpu_seconds_total{vm=\"0\"} 2.5",
        "zos_vmd_vm_memory_bytes{vm=\"0\"} 8192.0",
        "zos_vmd_vm_tells{vm=\"0\"} 1.0",
    ];
    let silent: Vec<String> =
        (1..=8).map(|slot| format!("zos_vmd_vm_tells{{vm=\"{slot}\"}} 0.0")).collect();
    expected.extend(silent.iter().map(String::as_str));
    expected.extend([
        "zos_vmd_vm_tells{vm=\"20\"} 1.0",
        "zos_vmd_vm_exits_total{vm=\"0\"} 9.0",
        "zos_vmd_vm_disk_bytes_total{vm=\"0\",direction=\"read\"} 520.0",
        "zos_vmd_vm_disk_bytes_total{vm=\"0\",direction=\"write\"} 0.0",
        "zos_vmd_vm_disk_operations_total{vm=\"0\",direction=\"read\"} 1.0",
        "zos_vmd_vm_disk_operations_total{vm=\"20\",direction=\"read\"} 3.0",
        "zos_vmd_vm_network_bytes_total{vm=\"0\",direction=\"receive\"} 60.0",
        "zos_vmd_vm_network_frames_total{vm=\"0\",direction=\"receive\"} 1.0",
        "zos_vmd_vm_balloon_bytes{vm=\"0\"} 4096.0",
        "zos_vmd_vm_reported_bytes_total{vm=\"0\"} 8192.0",
    ]);
    let (mut of_vms, mut expected) = (of_vms, expected);
    of_vms.sort_unstable();
    expected.sort_unstable();
    assert_eq!(of_vms, expected);
}

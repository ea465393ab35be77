//! Disk and network of a guest, by the same program in each: `zos-probe` as its init.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::nested::NODE;
use serde_json::Value;

use super::pack::KERNEL;
use super::{Bench, Vm, Way};
use crate::figures::Figures;

/// What is told, its name in the table, its unit.
const TOLD: [(&str, &str, &str); 9] = [
    ("/read_mib", "VM disk: reading", "MiB/s"),
    ("/write_mib", "VM disk: writing", "MiB/s"),
    ("/read_iops_1", "VM disk: reads of 4 KiB, one at a time", "/s"),
    ("/read_iops_32", "VM disk: reads of 4 KiB, 32 at a time", "/s"),
    ("/write_iops_1", "VM disk: writes of 4 KiB, one at a time", "/s"),
    ("/write_iops_32", "VM disk: writes of 4 KiB, 32 at a time", "/s"),
    ("/network/send_mib", "VM network: guest to node", "MiB/s"),
    ("/network/receive_mib", "VM network: node to guest", "MiB/s"),
    ("/network/trip/p50", "VM network: round trip to the node", "us"),
];
/// The same between two guests.
const BETWEEN: [(&str, &str, &str); 2] = [
    ("/network/send_mib", "VM network: guest to guest", "MiB/s"),
    ("/network/trip/p50", "VM network: round trip between guests", "us"),
];

pub(crate) fn measure(bench: &mut Bench, figures: &mut Figures) -> Result<()> {
    let mut results = Vec::new();
    for way in Way::ALL {
        results.push(one(bench, way, NODE).with_context(|| way.name())?);
    }
    tell(figures, &TOLD, &results)?;
    let mut results = Vec::new();
    for way in Way::ALL {
        let disk = Some(bench.disks[1].clone());
        let orders = "role=serve address=10.77.0.3/24".into();
        let pid = bench.launch(
            "other",
            way,
            &Vm { kernel: KERNEL, memory: 128, orders, disk, tap: Some(1) },
        )?;
        bench.told("other", "\"serving\"")?;
        results.push(one(bench, way, "10.77.0.3").with_context(|| way.name())?);
        bench.end("other", pid)?;
    }
    tell(figures, &BETWEEN, &results)
}

/// All that one guest measures, with this other end.
fn one(bench: &mut Bench, way: Way, to: &str) -> Result<Value> {
    let disk = Some(bench.disks[0].clone());
    let orders = format!("role=speed address=10.77.0.2/24 to={to} seconds=2");
    let pid = bench.launch(
        "speed",
        way,
        &Vm { kernel: KERNEL, memory: 128, orders, disk, tap: Some(0) },
    )?;
    let told = bench.told("speed", "{")?;
    bench.end("speed", pid)?;
    ensure!(told["error"].is_null(), "the guest says {told}");
    Ok(told)
}

fn tell(
    figures: &mut Figures,
    rows: &[(&str, &str, &'static str)],
    results: &[Value],
) -> Result<()> {
    for (place, name, unit) in rows {
        let value = |result: &Value| {
            let found = result.pointer(place).and_then(Value::as_f64);
            found.with_context(|| format!("no {place} in {result}"))
        };
        let values = [value(&results[0])?, value(&results[1])?, value(&results[2])?];
        figures.beside(name, unit, values);
    }
    Ok(())
}

//! Makes machines: opens what a spec names, builds, sets going; and reports when one has ended.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use zos_vmm::control::{Guest, Maker};
use zos_vmm::jail::Seccomp;
use zos_vmm::lifecycle::{Ending, Lifecycle};
use zos_vmm::machine::{Machine, Running};
use zos_vmm::resources::{Passed, Resources};
use zos_vmm::stats::Stats;
use zos_vmm::virtio::balloon::BalloonHandle;
use zos_vmm_spec::Spec;

/// Where machines are made.
pub(crate) struct Workshop {
    /// Opened while we still could.
    pub(crate) opened: Option<Resources>,
    pub(crate) seccomp: Seccomp,
    /// More than one is made.
    pub(crate) again: bool,
    /// Reports as JSON.
    pub(crate) json: bool,
    /// From when times are counted; later machines count from their own start.
    pub(crate) start: Option<Instant>,
}

/// A machine, and what is counted of it.
pub(crate) struct Made {
    running: Running,
    stats: Arc<Stats>,
}

impl Maker for Workshop {
    type Guest = Made;

    fn make(&mut self, spec: &Spec) -> Result<Made, Box<dyn Error>> {
        let start = self.start.take().unwrap_or_else(Instant::now);
        let resources = match self.opened.take() {
            Some(resources) => resources,
            None => Resources::open(spec, Passed::default())?,
        };
        let (lifecycle, stats) = (Arc::new(Lifecycle::new()?), Arc::new(Stats::new(start)));
        let machine = Machine::build(spec, resources, lifecycle, stats.clone(), self.seccomp)?;
        Ok(Made { running: machine.start(self.seccomp)?, stats })
    }

    fn retire(&mut self, guest: Made, ending: &Ending) {
        let Made { running, stats } = guest;
        // A vCPU that is held up in a device ends with the process.
        let _ = running.stop();
        let report = stats.report(ending.word());
        let json = serde_json::to_string(&report).unwrap_or_default();
        let mut text = if self.json { json + "\n" } else { format!("zos-vmm: {report}\n") };
        if let Ending::Failed(why) = ending {
            text += &format!("zos-vmm: {why}\n");
        }
        // One write, so that the line stays whole among those of others.
        let _ = std::io::stderr().write_all(text.as_bytes());
        if !self.again {
            // The end of the process frees all of it at once.
            std::mem::forget(running);
        }
    }
}

impl Guest for Made {
    fn pause(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.running.pause()?)
    }

    fn resume(&mut self) {
        self.running.resume();
    }

    fn press_power_button(&mut self) {
        self.running.press_power_button();
    }

    fn inflate(&mut self, bytes: u64) -> Option<Result<(), Box<dyn Error>>> {
        self.running.balloon().map(|balloon| Ok(balloon.set_target(bytes)?))
    }

    fn given_back(&self) -> u64 {
        self.running.balloon().map_or(0, BalloonHandle::actual)
    }

    fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let owned = |(name, count): (&str, u64)| (name.replace('-', "_"), count);
        let devices = self.running.counters().iter();
        let mut all: BTreeMap<String, BTreeMap<String, u64>> = devices
            .map(|(id, counters)| (id.clone(), counters.read().into_iter().map(owned).collect()))
            .collect();
        let report = self.stats.report("");
        let exits = report
            .exits
            .into_iter()
            .map(|(name, count)| (format!("exits_{}", name.replace('-', "_")), count));
        let total = [("exits".to_owned(), report.exits_total)];
        all.insert("vcpus".to_owned(), exits.chain(total).collect());
        all
    }

    fn slots(&self) -> BTreeMap<String, u16> {
        self.running.slots().clone()
    }

    fn lifecycle(&self) -> &Lifecycle {
        self.running.lifecycle()
    }
}

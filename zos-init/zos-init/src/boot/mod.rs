//! The boot, from the kernel's hand-over to the start of services: phases in their order.
//!
//! A phase that fails is a fault that the node shows; the next one runs all the same. Nothing here may stop a
//! boot but a panic.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use zos_host::clock;
use zos_host::cmdline::Settings;
use zos_host::kmsg::Level;

use crate::evidence::{self, BootReason};
use crate::log;

mod conf;
pub(crate) mod machine;
mod manifest;
mod mounts;
mod time;

/// A step of the boot; its error is told with its cause.
type Phase = fn(&mut Boot) -> zos_host::Result<()>;

/// The phases. Read from top to bottom: that is what happens.
const PHASES: &[(&str, Phase)] = &[
    ("mounts", mounts::early),
    ("command-line", conf::command_line),
    ("log", machine::log),
    ("evidence", evidence::collect),
    ("manifest", manifest::check),
    ("zos-conf", conf::boot_stick),
    ("cgroups", machine::cgroups),
    ("network-basics", machine::network_basics),
    ("clock", time::sanity),
    ("entropy", machine::entropy),
    ("kernel-settings", machine::kernel_settings),
    ("settings", conf::publish),
];

/// What the boot found out; `Describe` shows it.
#[derive(Debug, Default)]
pub(crate) struct Boot {
    /// SHA-256 of the manifest, in hex; empty without one.
    pub(crate) image: String,
    /// Why the machine booted, as far as is known.
    pub(crate) boot_reason: BootReason,
    /// How far its clock is to be believed.
    pub(crate) time_quality: TimeQuality,
    /// The farmer's settings.
    pub(crate) settings: Settings,
    /// Each phase with the time of its end.
    pub(crate) phases: Vec<PhaseEnd>,
    /// What is wrong.
    pub(crate) faults: Vec<Fault>,
    /// Files of the image that are missing or not as the manifest says, with what is wrong; none of them is
    /// executed.
    pub(crate) corrupt: BTreeMap<String, String>,
    command_line: String,
    said: BTreeSet<String>,
}

/// How far the clock is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimeQuality {
    /// Not at all.
    #[default]
    Unsure,
    /// As far as a battery-backed clock.
    Rtc,
}

/// A phase that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PhaseEnd {
    /// Its name.
    pub(crate) name: &'static str,
    /// Milliseconds of `CLOCK_BOOTTIME` at its end.
    pub(crate) millis: u64,
}

/// Something wrong that the farmer should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// What kind: `image-corrupt`.
    pub(crate) id: String,
    /// In words, and what to do.
    pub(crate) detail: String,
}

impl Boot {
    /// Runs every phase.
    #[must_use]
    pub(crate) fn run() -> Self {
        let mut boot = Self::default();
        for (name, phase) in PHASES {
            if let Err(error) = phase(&mut boot) {
                boot.fault(&format!("boot-{name}"), &error.line());
            }
            boot.end_phase(name);
        }
        boot
    }

    /// Notes the end of a phase, here or later.
    pub(crate) fn end_phase(&mut self, name: &'static str) {
        let millis = clock::boottime_millis();
        log::line(Level::Notice, &format!("{}.{:03} {name} done", millis / 1000, millis % 1000));
        self.phases.push(PhaseEnd { name, millis });
    }

    /// Notes a fault and says it; the same one is noted once.
    pub(crate) fn fault(&mut self, id: &str, detail: &str) {
        if self.said.insert(format!("{id} {detail}")) {
            log::line(Level::Error, &format!("fault {id}: {detail}"));
            self.faults.push(Fault { id: id.to_owned(), detail: detail.to_owned() });
        }
    }
}

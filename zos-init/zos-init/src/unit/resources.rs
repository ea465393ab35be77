//! `cgroup`: what a unit's cgroup enforces (Documentation/admin-guide/cgroup-v2.rst).

use super::form::Form;

/// Limits and weights; none: the kernel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Bytes of memory; past it something of the unit is killed.
    pub(crate) memory_max: Option<u64>,
    /// Bytes of memory; past it the unit is slowed down.
    pub(crate) memory_high: Option<u64>,
    /// Bytes of memory that nobody can push it out of.
    pub(crate) memory_min: Option<u64>,
    /// Without memory all of it is killed, not one process.
    pub(crate) oom_group: bool,
    /// 1 to 10,000; 100 is the kernel's own.
    pub(crate) cpu_weight: Option<u64>,
    /// Percent of one processor.
    pub(crate) cpu_max: Option<u64>,
    /// Processes and threads.
    pub(crate) pids_max: Option<u64>,
    /// 1 to 10,000; 100 is the kernel's own.
    pub(crate) io_weight: Option<u64>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            memory_max: None,
            memory_high: None,
            memory_min: None,
            oom_group: true,
            cpu_weight: None,
            cpu_max: None,
            pids_max: None,
            io_weight: None,
        }
    }
}

pub(super) fn parse(form: &mut Form<'_>) -> Resources {
    form.within("cgroup", |form| Resources {
        memory_max: form.bytes("memory-max"),
        memory_high: form.bytes("memory-high"),
        memory_min: form.bytes("memory-min"),
        oom_group: form.flag("oom-group").unwrap_or(true),
        cpu_weight: form.number_in("cpu-weight", 1..=10_000),
        cpu_max: form.percent("cpu-max"),
        pids_max: form.number_in("pids-max", 1..=4_194_304),
        io_weight: form.number_in("io-weight", 1..=10_000),
    })
    .unwrap_or_default()
}

//! A unit's limits, as its cgroup enforces them.

use zos_host::cgroup::Cgroup;
use zos_host::kmsg::Level;
use zos_host::process::Resource;

use super::request::Limits;
use crate::log;
use crate::unit::Resources;

/// More CPUs than a machine has; past it the kernel refuses the number.
const MOST_PERCENT: u64 = 100 * 8192;

impl Limits {
    /// What a transient unit's starter asked for.
    pub(super) fn as_cgroup(&self) -> Resources {
        Resources {
            memory_max: self.memory,
            cpu_weight: self.cpu_weight.map(|weight| weight.clamp(1, 10_000)),
            // The kernel's least is 1 ms in a tenth of a second.
            cpu_max: self.cpu_quota.map(|percent| percent.clamp(1, MOST_PERCENT)),
            pids_max: self.pids,
            // Half a VM is none.
            ..Resources::default()
        }
    }

    /// What it asked for of setrlimit(2), beside what its template says; the lower counts.
    pub(super) fn as_rlimits(&self, template: &[(Resource, u64)]) -> Vec<(Resource, u64)> {
        let mut limits = template.to_vec();
        for (wanted, most) in [(Resource::FileSize, self.file_size), (Resource::Files, self.files)]
        {
            let Some(most) = most else { continue };
            match limits.iter_mut().find(|(resource, _)| *resource == wanted) {
                Some((_, limit)) => *limit = most.min(*limit),
                None => limits.push((wanted, most)),
            }
        }
        limits
    }
}

/// Sets what is given, and the kernel's own limits where nothing is: the cgroup may be an earlier start's.
pub(super) fn set(group: &Cgroup, resources: &Resources) {
    for (file, value) in files(resources) {
        // A kernel without a controller has no file of it; that is told once, at boot.
        if !group.path().join(file).exists() {
            continue;
        }
        if let Err(error) = group.set(file, &value) {
            log::line(Level::Warning, &error.line());
        }
    }
}

/// Control files and what is written to them.
fn files(resources: &Resources) -> Vec<(&'static str, String)> {
    let most = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |n| n.to_string());
    let least = |limit: Option<u64>| limit.unwrap_or(0).to_string();
    let weight = |weight: Option<u64>| weight.unwrap_or(100).to_string();
    // Of a tenth of a second, in microseconds.
    let share = |percent: u64| format!("{} 100000", percent.saturating_mul(1_000));
    vec![
        ("memory.max", most(resources.memory_max)),
        ("memory.high", most(resources.memory_high)),
        ("memory.min", least(resources.memory_min)),
        ("memory.swap.max", "0".to_owned()),
        ("memory.oom.group", u8::from(resources.oom_group).to_string()),
        ("cpu.weight", weight(resources.cpu_weight)),
        ("cpu.max", resources.cpu_max.map_or_else(|| "max".to_owned(), share)),
        ("pids.max", most(resources.pids_max)),
        ("io.weight", weight(resources.io_weight)),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_starter_asks_for() {
        let limits = |quota| Limits { cpu_quota: quota, ..Limits::default() }.as_cgroup().cpu_max;
        assert_eq!(limits(None), None);
        assert_eq!(limits(Some(0)), Some(1));
        assert_eq!(limits(Some(250)), Some(250));
        assert_eq!(limits(Some(u64::MAX)), Some(MOST_PERCENT));
        let check = |asked, template: &[(Resource, u64)], expect: &[(Resource, u64)]| {
            let limits = Limits { file_size: asked, ..Limits::default() };
            assert_eq!(limits.as_rlimits(template), expect);
        };
        use Resource::{Core, FileSize};
        check(None, &[(Core, 0)], &[(Core, 0)]);
        check(Some(7), &[(Core, 0)], &[(Core, 0), (FileSize, 7)]);
        check(Some(7), &[(FileSize, 5)], &[(FileSize, 5)]);
        check(Some(7), &[(FileSize, 9)], &[(FileSize, 7)]);
        let limits = Limits { files: Some(7), ..Limits::default() };
        assert_eq!(limits.as_rlimits(&[(Resource::Files, 9)]), [(Resource::Files, 7)]);
    }

    #[test]
    fn files_get_what_is_given_and_the_kernels_own_else() {
        let dir = tempfile::tempdir().unwrap();
        let all = files(&Resources::default());
        for (file, _) in all.iter().filter(|(file, _)| *file != "io.weight") {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let resources = Resources {
            memory_max: Some(64 << 20),
            cpu_max: Some(150),
            oom_group: false,
            pids_max: Some(9),
            ..Resources::default()
        };
        set(&Cgroup::at(dir.path()), &resources);
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        for (file, expect) in [
            ("memory.max", "67108864"),
            ("memory.high", "max"),
            ("memory.min", "0"),
            ("memory.oom.group", "0"),
            ("cpu.weight", "100"),
            ("cpu.max", "150000 100000"),
            ("pids.max", "9"),
        ] {
            assert_eq!(read(file), expect, "{file}");
        }
        // A controller that the kernel lacks.
        assert!(!dir.path().join("io.weight").exists());
    }
}

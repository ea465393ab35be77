//! The table of calls as filters, one for each kind of thread: what isn't listed ends the process.

use super::calls::{CALLING, Row, TABLE, Test, Value};
use crate::machine::vcpu_signal;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};
use std::collections::BTreeMap;

/// Kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signals, calls for vCPUs and the end.
    Main,
    /// Answers on the API's socket.
    Api,
    /// Runs guest code.
    Vcpu,
    /// A disk's worker that does one request after another.
    Blk,
    /// A disk's worker with a ring of io_uring, which is restricted already.
    Uring,
    /// A network interface's worker.
    Net,
    /// The worker of all small devices.
    Shared,
    /// The worker of a shared folder.
    Fs,
    /// The same, of a developer's VMM whose guest may connect to the host's sockets; never in the
    /// jail.
    Calling,
}

/// Whether filters are on. Off is for developers who trace the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Each thread enters its filter.
    On,
    /// No filters.
    Off,
}

impl Kind {
    /// All that are in a jail.
    pub const ALL: [Self; 8] = [
        Self::Main,
        Self::Api,
        Self::Vcpu,
        Self::Blk,
        Self::Uring,
        Self::Net,
        Self::Shared,
        Self::Fs,
    ];

    /// The calls that it may make with some arguments: name and number, each once.
    #[must_use]
    pub fn calls(self) -> BTreeMap<&'static str, i64> {
        self.rows().map(|row| (row.name.trim_start_matches("SYS_"), row.number)).collect()
    }

    pub(super) fn rows(self) -> impl Iterator<Item = &'static Row> {
        let (kind, more) = match self {
            Kind::Calling => (Kind::Shared, CALLING),
            kind => (kind, &[][..]),
        };
        TABLE.iter().filter(move |row| row.who.contains(&kind)).chain(more)
    }

    fn filter(self) -> Result<BpfProgram, Error> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut any = Vec::new();
        for row in self.rows() {
            let of_call = rules.entry(row.number).or_default();
            for tests in row.only {
                let conditions = tests.iter().map(condition).collect::<Result<_, _>>()?;
                of_call.push(SeccompRule::new(conditions).map_err(Error::Backend)?);
            }
            if row.only.is_empty() {
                any.push(row.number);
            }
        }
        // A call without rules is allowed whatever its arguments.
        rules.extend(any.into_iter().map(|call| (call, Vec::new())));
        let arch = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
        let filter =
            SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
        filter.and_then(TryInto::try_into).map_err(Error::Backend)
    }
}

impl Seccomp {
    /// The calling thread enters the filter of its kind, for good. A thread that can't must not
    /// run: the process ends.
    pub fn enter(self, kind: Kind) {
        if self == Seccomp::Off {
            return;
        }
        // The first look at the clock finds the kernel's page for it, with musl by `prctl`, which no thread may
        // call later.
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // rustix looks for the kernel's clock at its first use, by a call that no thread has.
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        if let Err(error) = kind.filter().and_then(|filter| apply_filter(&filter)) {
            eprintln!("zos-vmm: seccomp filter of {kind:?}: {error}");
            std::process::exit(1);
        }
    }
}

fn condition(test: &Test) -> Result<SeccompCondition, Error> {
    let value = match test.value {
        Value::Is(value) => value,
        Value::OurProcess => u64::from(std::process::id()),
        Value::VcpuSignal => u64::try_from(vcpu_signal()).unwrap_or(0),
    };
    let operator = SeccompCmpOp::MaskedEq(test.mask);
    SeccompCondition::new(test.argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(Error::Backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// More than these all kinds together may not come to.
    const MOST: usize = 40;

    #[test]
    fn every_filter_compiles_and_is_short() {
        for kind in Kind::ALL.into_iter().chain([Kind::Calling]) {
            kind.filter().unwrap();
            let calls = kind.calls().len();
            assert!(calls <= 30, "{kind:?} may make {calls} calls");
        }
    }

    /// `docs/jail.md`, so that a change of the table shows there.
    #[test]
    fn the_documents_table_is_ours() {
        // Debug builds have one call more, and the list is of the machine that most nodes are.
        let rows: Vec<&Row> = TABLE.iter().filter(|row| row.name != "SYS_fcntl").collect();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert!(names.len() <= MOST, "{} calls are reachable", names.len());
        if cfg!(not(target_arch = "x86_64")) {
            return;
        }
        let mut table = format!("{} calls, all kinds together.\n\n", names.len());
        let kinds = Kind::ALL.map(|kind| format!("{kind:?}")).join(" | ");
        table += &format!("| Call | {kinds} | What for, and with which arguments |\n");
        table += &format!("|{}\n", "---|".repeat(Kind::ALL.len() + 2));
        for row in rows {
            let name = row.name.trim_start_matches("SYS_");
            let marks = Kind::ALL.map(|kind| if row.who.contains(&kind) { "x" } else { "" });
            table += &format!("| `{name}` | {} | {} |\n", marks.join(" | "), row.why);
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jail.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- calls -->\n\n", "\n<!-- /calls -->");
        let (before, rest) = text.split_once(begin).unwrap();
        let (committed, after) = rest.split_once(end).unwrap();
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        } else {
            assert_eq!(
                committed, table,
                "docs/jail.md is stale: REGENERATE=1 cargo test -p zos-vmm --lib the_documents_table"
            );
        }
    }
}

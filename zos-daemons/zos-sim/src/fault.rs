//! Faults that developers ask for: what can go wrong with a node, made to happen.

use std::str::FromStr;

use clap::ValueEnum;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Fault {
    /// Every VM's process dies 5 s after its start.
    VmCrash,
    /// Every guest reboots 5 s after its start.
    VmReboot,
    /// Every guest powers itself off 5 s after its start.
    VmPoweroff,
    /// The node has no hardware virtualization.
    NoKvm,
    /// The last disk can't be read.
    DiskFailing,
    /// There is one disk more, with somebody's data on it.
    DiskForeign,
    /// There is no disk: the node lives in memory.
    NoDisk,
    /// The cable is not plugged in.
    NoNetwork,
}

/// How guests end by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuestFault {
    Crash,
    Reboot,
    Poweroff,
}

/// A fault, on one node or on all: `vm-crash`, `no-disk@2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultOn {
    /// What goes wrong.
    pub fault: Fault,
    /// The node's number; none: all.
    pub node: Option<u16>,
}

impl FromStr for FaultOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, node) = match text.split_once('@') {
            None => (text, None),
            Some((name, node)) => match node.parse() {
                Ok(number @ 1..) => (name, Some(number)),
                _ => return Err(format!("`{node}` is no node's number: they count from 1")),
            },
        };
        let fault = Fault::from_str(name, false).map_err(|_| {
            let known: Vec<String> = Fault::value_variants()
                .iter()
                .filter_map(|fault| Some(fault.to_possible_value()?.get_name().to_owned()))
                .collect();
            format!("there is no fault `{name}`; there are {}", known.join(", "))
        })?;
        Ok(Self { fault, node })
    }
}

/// The faults of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Those of a node by its number.
    pub(crate) fn of(all: &[FaultOn], number: u16) -> Self {
        let here = all.iter().filter(|on| on.node.is_none_or(|node| node == number));
        Self(here.map(|on| on.fault).collect())
    }

    /// Whether this goes wrong here.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// How guests end here.
    pub(crate) fn of_guests(&self) -> Option<GuestFault> {
        self.0.iter().find_map(|fault| match fault {
            Fault::VmCrash => Some(GuestFault::Crash),
            Fault::VmReboot => Some(GuestFault::Reboot),
            Fault::VmPoweroff => Some(GuestFault::Poweroff),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let check = |text: &str, expected: Result<FaultOn, &str>| {
            let found = text.parse::<FaultOn>();
            assert_eq!(
                found.as_ref().map_err(|e| &e[..e.len().min(20)]),
                expected.as_ref().map_err(|e| *e)
            );
        };
        check("vm-crash", Ok(FaultOn { fault: Fault::VmCrash, node: None }));
        check("no-disk@2", Ok(FaultOn { fault: Fault::NoDisk, node: Some(2) }));
        check("no-disk@0", Err("`0` is no node's num"));
        check("bogus", Err("there is no fault `b"));
        let faults = Faults::of(&["no-disk@2".parse().unwrap(), "vm-reboot".parse().unwrap()], 1);
        assert!(!faults.has(Fault::NoDisk) && faults.has(Fault::VmReboot));
        assert_eq!(faults.of_guests(), Some(GuestFault::Reboot));
    }
}

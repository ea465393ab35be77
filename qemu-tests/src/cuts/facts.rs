//! What the node has acknowledged, and from which entry of the logs on it must hold.
//!
//! ```text
//!  asked ──begun: [12, 7]──▶ ... ──▶ answered ──done: [40, 9]──▶      entries of each disk's log at that moment
//!     until begun: as it was        between: as it was, or as it will be        from done on: as it is
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zos_types::{Name, TwinId, WorkloadName};

/// What something is known of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum About {
    /// The node's id: its key.
    Node,
    /// How the run ended.
    End,
    /// The disks whose copy of the state has all that is acknowledged, by their numbers: `0`, `0+1`.
    Copies,
    /// The same of a volume's copies, where it has two.
    Legs(TwinId, WorkloadName),
    /// A volume: its size in bytes.
    Volume(TwinId, WorkloadName),
    /// A snapshot of a volume: its size in bytes.
    Snapshot(TwinId, WorkloadName, Name),
    /// A deployment: its version.
    Deployment(TwinId, Name),
    /// The number that the guest wrote last, and synced, on a volume: at least this.
    Number(TwinId, WorkloadName),
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::End => f.write_str("the run's end"),
            Self::Copies => f.write_str("the state's copies"),
            Self::Legs(twin, name) => write!(f, "mirror {name} of {}", twin.short()),
            Self::Volume(twin, name) => write!(f, "volume {name} of {}", twin.short()),
            Self::Snapshot(twin, volume, name) => {
                write!(f, "snapshot {volume}@{name} of {}", twin.short())
            }
            Self::Deployment(twin, name) => write!(f, "deployment {name} of {}", twin.short()),
            Self::Number(twin, name) => write!(f, "the number on {name} of {}", twin.short()),
        }
    }
}

/// Disks as [`About::Copies`] has them.
#[must_use]
pub fn numbers(disks: impl Iterator<Item = usize>) -> String {
    let mut disks: Vec<String> = disks.map(|disk| disk.to_string()).collect();
    disks.sort();
    disks.join("+")
}

/// What may be true of something; none: there is no such thing.
pub type Value = Option<String>;

/// A change that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// Of what.
    pub about: About,
    /// What it is afterwards.
    pub is: Value,
    /// How many entries each log had when it was asked for.
    pub begun: Vec<usize>,
    /// The same when it was acknowledged, if it was.
    pub done: Option<Vec<usize>>,
}

/// The facts of a run in the order of their beginnings.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Facts(pub Vec<Fact>);

impl Facts {
    /// What may be found of each thing after a cut, which left so many entries of each log.
    #[must_use]
    pub fn at(&self, cut: &[usize]) -> BTreeMap<About, Vec<Value>> {
        let before = |moment: &[usize]| moment.iter().zip(cut).all(|(then, cut)| then <= cut);
        let during = |moment: &[usize]| moment.iter().zip(cut).any(|(then, cut)| then < cut);
        let mut allowed: BTreeMap<About, Vec<Value>> = BTreeMap::new();
        for fact in &self.0 {
            let values = allowed.entry(fact.about.clone()).or_insert_with(|| vec![None]);
            if fact.done.as_deref().is_some_and(before) {
                *values = vec![fact.is.clone()];
            } else if before(&fact.begun) || during(&fact.begun) {
                values.push(fact.is.clone());
            }
        }
        allowed
    }

    /// What is wrong with what was found. With a disk that is away, what lies on that disk alone may be missing.
    #[must_use]
    pub fn judge(
        &self,
        cut: &[usize],
        found: &BTreeMap<About, String>,
        away: Option<usize>,
    ) -> Vec<String> {
        let allowed = self.at(cut);
        let mut wrong = Vec::new();
        for (about, values) in &allowed {
            let seen = found.get(about).cloned();
            let fits = match about {
                // Told by the disks that are here.
                About::Copies | About::Legs(..) if away.is_some() => continue,
                _ if seen.is_none() && away.is_some_and(|away| may_lack(&allowed, about, away)) => {
                    continue;
                }
                About::Number(..) => values.iter().any(|value| number(&seen) >= number(value)),
                _ => values.contains(&seen),
            };
            if !fits {
                let seen = seen.unwrap_or_else(|| "nothing".to_owned());
                wrong.push(format!("{about}: {seen}, acknowledged was {}", words(values)));
            }
        }
        for (about, seen) in found.iter().filter(|(about, _)| !allowed.contains_key(about)) {
            wrong.push(format!("{about}: {seen}, and nobody asked for it"));
        }
        wrong
    }

    /// Whether a volume that can't be used after a cut is one that a disk took along.
    #[must_use]
    pub fn may_be_broken(&self, cut: &[usize], about: &About, away: Option<usize>) -> bool {
        away.is_some_and(|away| may_lack(&self.at(cut), about, away))
    }

    /// Whether at a cut the node could do without a disk: another one has all of the state.
    #[must_use]
    pub fn may_miss(&self, cut: &[usize], disk: usize) -> bool {
        self.at(cut).get(&About::Copies).is_some_and(|copies| lie_elsewhere(copies, disk))
    }
}

/// Whether each of these says that it lies on another disk, too.
fn lie_elsewhere(values: &[Value], disk: usize) -> bool {
    let elsewhere = |value: &Value| {
        let mut disks = value.iter().flat_map(|value| value.split('+'));
        disks.any(|number| number.parse() != Ok(disk))
    };
    values.iter().all(elsewhere)
}

/// Whether something may be missing with a disk: it is of a volume that is not on another one, too.
fn may_lack(allowed: &BTreeMap<About, Vec<Value>>, about: &About, disk: usize) -> bool {
    let (About::Volume(twin, name) | About::Snapshot(twin, name, _) | About::Number(twin, name)) =
        about
    else {
        return false;
    };
    let legs = allowed.get(&About::Legs(*twin, name.clone()));
    legs.is_none_or(|legs| !lie_elsewhere(legs, disk))
}

fn number(value: &Value) -> u64 {
    value.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn words(values: &[Value]) -> String {
    let words: Vec<&str> = values.iter().map(|v| v.as_deref().unwrap_or("nothing")).collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> About {
        let twin = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap();
        About::Volume(twin, "a/b".parse().unwrap())
    }

    fn facts(rows: &[(Option<&str>, usize, Option<usize>)]) -> Facts {
        let fact = |(is, begun, done): &(Option<&str>, usize, Option<usize>)| Fact {
            about: volume(),
            is: is.map(str::to_owned),
            begun: vec![*begun],
            done: done.map(|done| vec![done]),
        };
        Facts(rows.iter().map(fact).collect())
    }

    #[test]
    fn what_is_under_way_may_be_either_and_what_is_acknowledged_must_be() {
        let facts =
            facts(&[(Some("1"), 10, Some(20)), (Some("2"), 30, Some(40)), (None, 50, None)]);
        let check = |cut, seen: Option<&str>, fits: bool| {
            let found = seen.map(|seen| (volume(), seen.to_owned())).into_iter().collect();
            assert_eq!(facts.judge(&[cut], &found, None).is_empty(), fits, "{cut} {seen:?}");
        };
        check(9, None, true);
        check(9, Some("1"), false);
        check(10, None, true);
        check(19, Some("1"), true);
        check(20, Some("1"), true);
        check(20, None, false);
        check(29, Some("2"), false);
        check(35, Some("1"), true);
        check(35, Some("2"), true);
        check(40, Some("1"), false);
        check(40, Some("2"), true);
        check(60, Some("2"), true);
        check(60, None, true);
        check(60, Some("1"), false);
    }

    #[test]
    fn what_nobody_asked_for_is_wrong_and_numbers_may_be_higher() {
        let found = BTreeMap::from([(volume(), "1".to_owned())]);
        assert!(Facts::default().judge(&[5], &found, None)[0].contains("nobody asked"));
        let About::Volume(twin, name) = volume() else { panic!() };
        let about = About::Number(twin, name);
        let (is, begun, done) = (Some("7".to_owned()), vec![0], Some(vec![3]));
        let facts = Facts(vec![Fact { about: about.clone(), is, begun, done }]);
        let judge = |number: &str| {
            facts.judge(&[3], &BTreeMap::from([(about.clone(), number.into())]), None)
        };
        assert!(judge("7").is_empty() && judge("12").is_empty());
        assert_eq!(judge("6").len(), 1);
    }

    #[test]
    fn a_disk_takes_along_what_lies_on_it_alone() {
        let About::Volume(twin, name) = volume() else { panic!() };
        let fact = |about: &About, is: &str, begun, done: Option<usize>| Fact {
            about: about.clone(),
            is: Some(is.to_owned()),
            begun: vec![begun],
            done: done.map(|done| vec![done]),
        };
        let legs = About::Legs(twin, name);
        let facts = Facts(vec![
            fact(&About::Copies, "0", 0, Some(1)),
            fact(&volume(), "7", 1, Some(2)),
            fact(&legs, "0+1", 3, Some(4)),
            fact(&About::Copies, "0+1", 5, Some(6)),
            fact(&legs, "0", 7, None),
            fact(&About::Copies, "1", 8, None),
        ]);
        let check = |cut: usize, disk: usize, without: bool, lacks: bool| {
            assert_eq!(facts.may_miss(&[cut], disk), without, "{cut} {disk}");
            let wrong = facts.judge(&[cut], &BTreeMap::new(), Some(disk));
            assert_eq!(wrong.is_empty(), lacks, "{cut} {disk} {wrong:?}");
            assert_eq!(facts.may_be_broken(&[cut], &volume(), Some(disk)), lacks);
            assert!(!facts.may_be_broken(&[cut], &volume(), None));
        };
        // Before the volume has two copies, each disk may have it alone.
        check(2, 0, false, true);
        check(2, 1, true, true);
        check(6, 0, true, false);
        check(6, 1, true, false);
        // The second copy may be stale from here on.
        check(7, 0, true, true);
        check(7, 1, true, false);
        // And the state may lie on the second alone.
        check(9, 0, true, true);
        check(9, 1, false, false);
    }
}

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
            Self::Volume(twin, name) => write!(f, "volume {name} of {}", twin.short()),
            Self::Snapshot(twin, volume, name) => {
                write!(f, "snapshot {volume}@{name} of {}", twin.short())
            }
            Self::Deployment(twin, name) => write!(f, "deployment {name} of {}", twin.short()),
            Self::Number(twin, name) => write!(f, "the number on {name} of {}", twin.short()),
        }
    }
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

    /// What is wrong with what was found.
    #[must_use]
    pub fn judge(&self, cut: &[usize], found: &BTreeMap<About, String>) -> Vec<String> {
        let allowed = self.at(cut);
        let mut wrong = Vec::new();
        for (about, values) in &allowed {
            let seen = found.get(about).cloned();
            let fits = match about {
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
            assert_eq!(facts.judge(&[cut], &found).is_empty(), fits, "{cut} {seen:?}");
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
        assert!(Facts::default().judge(&[5], &found)[0].contains("nobody asked"));
        let About::Volume(twin, name) = volume() else { panic!() };
        let about = About::Number(twin, name);
        let (is, begun, done) = (Some("7".to_owned()), vec![0], Some(vec![3]));
        let facts = Facts(vec![Fact { about: about.clone(), is, begun, done }]);
        let judge =
            |number: &str| facts.judge(&[3], &BTreeMap::from([(about.clone(), number.into())]));
        assert!(judge("7").is_empty() && judge("12").is_empty());
        assert_eq!(judge("6").len(), 1);
    }
}

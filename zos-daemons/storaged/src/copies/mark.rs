//! What a pool's header says of the copy of the state on it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::disk::header::Header;

/// Generations before the present one that a mark keeps. A copy that is further behind is taken for
/// one of another history, which the farmer decides about.
pub const PAST: usize = 32;

/// A stretch of history that one set of copies wrote together. Drawn at random: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Generation(pub u64);

impl Generation {
    /// A new one.
    pub fn draw() -> Self {
        let mut bytes = [0; 8];
        // The kernel's random numbers don't fail once they run.
        getrandom::fill(&mut bytes).expect("getrandom(2) gives random bytes");
        Self(u64::from_le_bytes(bytes))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Generation> for String {
    fn from(generation: Generation) -> Self {
        generation.to_string()
    }
}

/// It is no generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a generation has 16 hexadecimal digits")]
pub struct NoGeneration;

impl FromStr for Generation {
    type Err = NoGeneration;

    fn from_str(text: &str) -> Result<Self, NoGeneration> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| NoGeneration)?;
        plain.then_some(Self(number)).ok_or(NoGeneration)
    }
}

impl TryFrom<String> for Generation {
    type Error = NoGeneration;

    fn try_from(text: String) -> Result<Self, NoGeneration> {
        text.parse()
    }
}

/// The mark of a copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Counts the generations, for people.
    pub epoch: u64,
    /// Which history it holds.
    pub generation: Generation,
    /// Whether it holds all of it: one that is being filled does not, and never leads.
    pub whole: bool,
    /// The generations before, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Generation>,
}

impl Mark {
    /// The first of a node's state.
    pub fn first(generation: Generation) -> Self {
        Self { epoch: 1, generation, whole: true, past: Vec::new() }
    }

    /// That of a pool with the state. One that an older ZOS made is a history of its own, named as the pool.
    pub fn of(header: &Header) -> Self {
        let generation = Generation(u64::from_str_radix(&header.pool, 16).unwrap_or_default());
        let older = || Self { epoch: 0, ..Self::first(generation) };
        header.copy.clone().unwrap_or_else(older)
    }

    /// The mark with which a copy goes on without `others`, all of which are behind it from then on.
    pub fn next(&self, others: &[&Self], generation: Generation) -> Self {
        let epoch = others.iter().map(|other| other.epoch).fold(self.epoch, u64::max);
        let before = others.iter().filter(|other| other.generation != self.generation);
        let before = before.flat_map(|other| other.past.iter().chain([&other.generation]));
        let mut past: Vec<Generation> = Vec::new();
        for generation in self.past.iter().chain(before).chain([&self.generation]) {
            past.retain(|known| known != generation);
            past.push(*generation);
        }
        past.drain(..past.len().saturating_sub(PAST));
        Self { epoch: epoch.saturating_add(1), generation, whole: true, past }
    }

    /// The mark of a copy that is being filled from this one.
    pub fn filling(&self) -> Self {
        Self { whole: false, ..self.clone() }
    }

    /// Whether `other` holds an earlier part of this history.
    pub fn is_after(&self, other: &Self) -> bool {
        self.past.contains(&other.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_kept_newest_last_and_bounded() {
        let mut mark = Mark::first(Generation(0));
        for n in 1..100 {
            mark = mark.next(&[], Generation(n));
        }
        assert_eq!((mark.epoch, mark.past.len()), (100, PAST));
        assert_eq!((mark.past[0], mark.past[PAST - 1]), (Generation(67), Generation(98)));
        let other = Mark::first(Generation(7)).next(&[], Generation(8)).next(&[], Generation(9));
        let chosen = Mark { epoch: 1, ..mark }.next(&[&other], Generation(200));
        assert!(chosen.is_after(&other));
        assert_eq!(chosen.past.len(), PAST);
        assert_eq!(chosen.past.last(), Some(&Generation(99)));
    }

    #[test]
    fn generations_are_16_digits() {
        let check = |text: &str, number: Option<u64>| {
            assert_eq!(text.parse().ok(), number.map(Generation), "{text}");
        };
        check("00000000000000ff", Some(255));
        check("ff", None);
        check("+0000000000000ff", None);
        check("00000000000000fg", None);
        let json = serde_json::to_string(&Generation(255)).unwrap();
        assert_eq!(json, "\"00000000000000ff\"");
        assert_eq!(serde_json::from_str::<Generation>(&json).unwrap(), Generation(255));
    }
}

//! Delays, and what stands at the middle and near the end of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Microseconds of many delays.
#[derive(Default)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    pub(crate) fn add(&mut self, delay: Duration) {
        self.0.push(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
    }

    /// `{"count", "p50", "p99", "most"}`, in microseconds.
    pub(crate) fn tell(mut self) -> Value {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let last = self.0.len().saturating_sub(1);
            self.0.get((self.0.len() * percent / 100).min(last)).copied()
        };
        json!({"count": self.0.len(), "p50": at(50), "p99": at(99), "most": self.0.last()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_is_near_the_end() {
        let mut samples = Samples::default();
        (0..200).rev().for_each(|value| samples.add(Duration::from_micros(value)));
        let told = samples.tell();
        assert_eq!(
            (&told["count"], &told["p50"], &told["p99"]),
            (&json!(200), &json!(100), &json!(198))
        );
        assert_eq!(Samples::default().tell()["p99"], Value::Null);
    }
}

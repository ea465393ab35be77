//! Lines for the person who waits, on standard error: `image-builder: step: what`.
//!
//! ```text
//!  say()          a line
//!  Meter::tick()  counts; every few seconds a line with done / total and what is left of the time
//! ```

use std::time::{Duration, Instant};

/// One line.
pub fn say(text: impl AsRef<str>) {
    eprintln!("image-builder: {}", text.as_ref());
}

/// Counts steps of long work and tells now and then how far it is.
#[derive(Debug)]
pub struct Meter {
    what: String,
    unit: &'static str,
    total: u64,
    done: u64,
    start: Instant,
    told: Instant,
    every: Duration,
}

impl Meter {
    /// `total` is what earlier runs counted; the real end may come a little before or after.
    #[must_use]
    pub fn new(what: impl Into<String>, unit: &'static str, total: u64, now: Instant) -> Self {
        let every = Duration::from_secs(15);
        Self { what: what.into(), unit, total, done: 0, start: now, told: now, every }
    }

    /// One more done; a line when it is time for one.
    pub fn tick(&mut self, now: Instant) -> Option<String> {
        self.done += 1;
        if now.duration_since(self.told) < self.every {
            return None;
        }
        self.told = now;
        Some(self.line(now))
    }

    /// How many so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.start)
    }

    fn line(&self, now: Instant) -> String {
        let total = self.total.max(self.done);
        let elapsed = self.elapsed(now);
        let rate = f64::from(u32::try_from(self.done).unwrap_or(u32::MAX))
            / elapsed.as_secs_f64().max(0.001);
        let left = f64::from(u32::try_from(total - self.done).unwrap_or(u32::MAX)) / rate;
        let mut line = format!(
            "{}: {} of about {total} {}, {} so far",
            self.what,
            self.done,
            self.unit,
            span(elapsed)
        );
        // The first objects say little about the rest.
        if self.done * 20 >= total {
            line.push_str(&format!(
                ", about {} left",
                span(Duration::from_secs_f64(left.min(1e6)))
            ));
        }
        line
    }
}

/// "42 s", "3 min 5 s".
#[must_use]
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} min", s / 60),
    }
}

/// "812 B", "5.9 MiB": for people; machines get bytes.
#[must_use]
pub fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..MIB => format!("{}.{} KiB", bytes >> 10, ((bytes & 1023) * 10) >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, (((bytes >> 10) & 1023) * 10) >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rarely_and_estimates_after_a_twentieth() {
        let t0 = Instant::now();
        let mut meter = Meter::new("node kernel", "objects", 100, t0);
        assert_eq!(meter.tick(t0 + Duration::from_secs(1)), None);
        let early = meter.tick(t0 + Duration::from_secs(16)).unwrap();
        assert_eq!(early, "node kernel: 2 of about 100 objects, 16 s so far");
        for _ in 0..47 {
            meter.tick(t0 + Duration::from_secs(17));
        }
        let later = meter.tick(t0 + Duration::from_secs(100)).unwrap();
        assert_eq!(
            later,
            "node kernel: 50 of about 100 objects, 1 min 40 s so far, about 1 min 40 s left"
        );
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [(5, "5 B"), (1536, "1.5 KiB"), (6_124_544, "5.8 MiB")] {
            assert_eq!(size(bytes), text);
        }
    }
}

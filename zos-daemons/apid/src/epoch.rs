//! An epoch: a run of the API with one audience, one clock and one memory of nonces.
//!
//! ```text
//!  start ─▶ epoch ── wall clock was set by more than 30 s, or nonces are full ─▶ next epoch
//!             │
//!             └ signatures are dated by CLOCK_BOOTTIME plus a difference that is fixed here
//! ```
//!
//! The clock of an epoch never jumps, so a nonce that was forgotten has expired for good. When the
//! wall clock is set, a new epoch begins instead: what was signed for the old audience is void.

use jiff::Timestamp;
use zos_api::signature::{Headers, Nonces, Parts, Refusal, Verified, verify};
use zos_types::NodeId;
use zos_types::problem::Audience;

use crate::clock::Clocks;

/// How far the wall clock may wander before a new epoch follows it, in seconds.
const DRIFT: i64 = 30;

#[derive(Debug)]
pub(crate) struct Epoch {
    node: NodeId,
    audience: String,
    /// Wall clock less boot clock, in seconds.
    difference: i64,
    nonces: Nonces,
}

impl Epoch {
    pub(crate) fn new(node: NodeId, now: Clocks) -> Self {
        let audience = Audience { node, epoch: word() }.to_string();
        Self { node, audience, difference: now.wall() - now.boot(), nonces: Nonces::default() }
    }

    /// Whom requests must be signed for now.
    pub(crate) fn audience(&mut self, now: Clocks) -> &str {
        self.follow(now);
        &self.audience
    }

    /// The time by which signatures are dated (RFC 3339).
    pub(crate) fn time(&self, now: Clocks) -> String {
        let seconds = now.boot() + self.difference;
        Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
    }

    /// Judges a signed request.
    pub(crate) fn judge(
        &mut self,
        now: Clocks,
        parts: Parts<'_>,
        headers: Headers<'_>,
        body: &[u8],
    ) -> Result<Verified, Refusal> {
        self.follow(now);
        let time = now.boot() + self.difference;
        let result = verify(parts, headers, body, &self.audience, time, &mut self.nonces);
        if result == Err(Refusal::EpochFull) {
            *self = Self::new(self.node, now);
        }
        result
    }

    fn follow(&mut self, now: Clocks) {
        let drift = (now.wall() - now.boot()) - self.difference;
        if drift.abs() > DRIFT {
            tracing::info!("the clock was set by {drift} s; a new epoch begins");
            *self = Self::new(self.node, now);
        }
    }
}

/// 64 random bits in hex.
pub(crate) fn word() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: u64) -> Clocks {
        Clocks { wall_millis: wall * 1000, boot_millis: boot * 1000 }
    }

    #[test]
    fn a_clock_that_is_set_begins_a_new_epoch() {
        let node = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo".parse().unwrap();
        let mut epoch = Epoch::new(node, at(1000, 10));
        let first = epoch.audience(at(1000, 10)).to_owned();
        let mut check = |now: Clocks, same: bool, time: &str| {
            assert_eq!(epoch.audience(now) == first, same, "{now:?}");
            assert_eq!(epoch.time(now), time, "{now:?}");
        };
        check(at(1060, 70), true, "1970-01-01T00:17:40Z");
        check(at(1090, 70), true, "1970-01-01T00:17:40Z"); // 30 s off: its own clock goes on
        check(at(2000, 71), false, "1970-01-01T00:33:20Z");
        check(at(1000, 72), false, "1970-01-01T00:16:40Z"); // and back is another one again
    }
}

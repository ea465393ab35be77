//! The nonces that were used and whose requests have not expired yet.

use std::collections::{BTreeSet, HashMap, HashSet};

use zos_types::TwinId;

use super::Refusal;

/// The most live nonces of one key.
const MAX_PER_KEY: usize = 4096;
/// The most live nonces of all keys: below 10 MB.
const MAX: usize = 32_768;

/// Used nonces, kept until their request has expired by a clock that never goes back within an
/// epoch. Bounded per key and overall; nothing is ever forgotten early, since that would open a
/// replay.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: HashMap<TwinId, HashSet<Box<str>>>,
    by_expiry: BTreeSet<(i64, TwinId, Box<str>)>,
}

impl Nonces {
    /// Notes a nonce, or refuses it as used before. Nonces that expired before `now` are forgotten.
    pub(super) fn take(
        &mut self,
        twin: TwinId,
        nonce: &str,
        expires: i64,
        now: i64,
    ) -> Result<(), Refusal> {
        self.forget(now);
        let used = self.seen.get(&twin);
        if used.is_some_and(|used| used.contains(nonce)) {
            return Err(Refusal::Replayed);
        }
        if used.is_some_and(|used| used.len() >= MAX_PER_KEY) {
            return Err(Refusal::TooMany);
        }
        if self.by_expiry.len() >= MAX {
            return Err(Refusal::EpochFull);
        }
        self.seen.entry(twin).or_default().insert(nonce.into());
        self.by_expiry.insert((expires, twin, nonce.into()));
        Ok(())
    }

    fn forget(&mut self, now: i64) {
        while self.by_expiry.first().is_some_and(|(expires, ..)| *expires < now) {
            let Some((_, twin, nonce)) = self.by_expiry.pop_first() else { return };
            if let Some(used) = self.seen.get_mut(&twin) {
                used.remove(&nonce);
                if used.is_empty() {
                    self.seen.remove(&twin);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use zos_types::Id;

    use super::*;

    fn twin(seed: u8) -> TwinId {
        Id::from(&SigningKey::from_bytes(&[seed; 32]).verifying_key())
    }

    #[test]
    fn a_nonce_is_good_once_per_key_until_it_expires() {
        let mut nonces = Nonces::default();
        let mut check = |key: u8, nonce: &str, now: i64, result: Result<(), Refusal>| {
            assert_eq!(nonces.take(twin(key), nonce, 100, now), result, "{key} {nonce} at {now}");
        };
        check(1, "a", 10, Ok(()));
        check(1, "a", 11, Err(Refusal::Replayed));
        check(2, "a", 11, Ok(()));
        check(1, "b", 11, Ok(()));
        check(1, "a", 100, Err(Refusal::Replayed));
        check(1, "a", 101, Ok(())); // verify refuses it by then
    }

    #[test]
    fn both_bounds_hold_and_free_themselves() {
        let mut nonces = Nonces::default();
        for key in 0..u8::try_from(MAX / MAX_PER_KEY).unwrap() {
            let twin = twin(key);
            for i in 0..MAX_PER_KEY {
                nonces.take(twin, &i.to_string(), 100, 0).unwrap();
            }
            let more = nonces.take(twin, "more", 100, 0);
            assert_eq!(more, Err(Refusal::TooMany));
        }
        assert_eq!(nonces.take(twin(99), "more", 100, 0), Err(Refusal::EpochFull));
        assert_eq!(nonces.take(twin(0), "more", 300, 101), Ok(()));
        assert_eq!((nonces.seen.len(), nonces.by_expiry.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_nonce_is_taken_twice_while_it_lives(
            calls in prop::collection::vec((0..3u8, 0..5u8, 0..20i64, 0..4i64), 1..60)
        ) {
            let twins = [twin(0), twin(1), twin(2)];
            let (mut nonces, mut now, mut live) = (Nonces::default(), 0, Vec::new());
            for (key, nonce, life, step) in calls {
                now += step;
                live.retain(|(_, _, expires)| *expires >= now);
                let fresh = !live.iter().any(|(k, n, _)| (*k, *n) == (key, nonce));
                let twin = twins[usize::from(key)];
                let taken = nonces.take(twin, &nonce.to_string(), now + life, now);
                prop_assert_eq!(taken.is_ok(), fresh);
                if fresh {
                    live.push((key, nonce, now + life));
                }
            }
        }
    }
}

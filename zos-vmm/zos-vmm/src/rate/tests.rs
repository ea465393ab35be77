//! The buckets against a model that counts in nanotokens and forgets nothing.

use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use zos_vmm_spec::Bucket as Spec;
use zos_vmm_spec::rates::{BUCKET_BYTES, EPOCHS, EPOCHS_AT, FILE_BYTES, Flow, MARK_AT, TwinRates};

/// The plainest bucket: a level, and when it was looked at last.
struct Model {
    spec: Spec,
    level: i128,
    at: u64,
}

impl Model {
    fn new(spec: Spec) -> Self {
        Self { spec, level: i128::from(spec.burst) * i128::from(NANOS), at: 0 }
    }

    fn flow(&mut self, now: u64) {
        let most = i128::from(self.spec.burst) * i128::from(NANOS);
        let came = i128::from(self.spec.per_second) * i128::from(now - self.at);
        self.level = most.min(self.level + came);
        self.at = now;
    }

    fn take(&mut self, now: u64, tokens: u64) -> bool {
        self.flow(now);
        let needed = i128::from(tokens.min(self.spec.burst)) * i128::from(NANOS);
        let there = self.level >= needed;
        if there {
            self.level -= i128::from(tokens) * i128::from(NANOS);
        }
        there
    }

    /// The first nanosecond at which so many tokens are there.
    fn when(&self, tokens: u64) -> u64 {
        let needed = i128::from(tokens.min(self.spec.burst)) * i128::from(NANOS) - self.level;
        let rate = i128::from(self.spec.per_second);
        self.at.saturating_add(u64::try_from((needed + rate - 1) / rate).unwrap_or(u64::MAX))
    }
}

fn spec(per_second: u64, burst: u64) -> Spec {
    Spec { per_second, burst }
}

/// Both do the same: allow or refuse, and tell the same moment.
fn step(bucket: &Bucket, model: &mut Model, now: u64, tokens: u64) {
    let answer = bucket.take(now, tokens);
    let right = if model.take(now, tokens) { Ok(()) } else { Err(model.when(tokens)) };
    assert_eq!(answer, right, "{:?}: {tokens} at {now}", model.spec);
}

fn file(rates: &TwinRates) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&rates.file(), 0).unwrap();
    file
}

fn disk_file(bytes: Spec) -> File {
    let disk = Rate { bytes: Some(bytes), operations: None };
    file(&TwinRates { disk, ..TwinRates::default() })
}

#[test]
fn every_short_history_is_that_of_the_model() {
    const STEPS: [u64; 5] = [0, 1, NANOS / 3, NANOS / 2, NANOS];
    const TOKENS: [u64; 4] = [0, 1, 2, 5];
    const LENGTH: u32 = 4;
    let choices = STEPS.len() * TOKENS.len();
    for per_second in [1, 2, 3, 7] {
        for burst in [1, 2, 3] {
            for mut history in 0..choices.pow(LENGTH) {
                let spec = spec(per_second, burst);
                let (bucket, mut model, mut now) = (Bucket::own(spec), Model::new(spec), 0);
                for _ in 0..LENGTH {
                    let choice = history % choices;
                    history /= choices;
                    now += STEPS[choice % STEPS.len()];
                    step(&bucket, &mut model, now, TOKENS[choice / STEPS.len()]);
                }
            }
        }
    }
}

#[test]
fn nothing_is_lost_over_a_long_run() {
    for per_second in [1, 7, 999_999_937, 1 << 40] {
        // Never full again: a full bucket has no use for the rest of a nanosecond.
        let bucket = Bucket::own(spec(per_second, 2));
        let start = 1_234_567_891;
        bucket.take(start, 2).unwrap();
        for number in 1..20_000u64 {
            let time = (u128::from(number) * u128::from(NANOS)).div_ceil(per_second.into());
            let at = start + u64::try_from(time).unwrap();
            // Faster than the clock ticks: several come in one nanosecond.
            if at > start && per_second < NANOS {
                assert_eq!(bucket.take(at - 1, 1), Err(at));
                bucket.take(at, 1).unwrap();
            }
        }
    }
}

#[test]
fn a_count_that_gets_long_goes_on_exactly() {
    // The largest rates: the epoch is moved on every few steps, and never a token is lost.
    for (per_second, burst) in [(1 << 46, 1 << 46), ((1 << 46) - 1, 12_345), (1 << 45, 1 << 46)] {
        let spec = spec(per_second, burst);
        let (bucket, mut model) = (Bucket::own(spec), Model::new(spec));
        let mut now = 77;
        step(&bucket, &mut model, now, 1 << 46);
        for number in 0..2_000u64 {
            step(&bucket, &mut model, now, burst);
            now = model.when(burst) - number % 2;
        }
    }
}

#[test]
fn a_request_beyond_the_burst_goes_into_debt_when_full() {
    let limiter = Limiter::new(Some(Rate { bytes: Some(spec(10, 4)), operations: None }));
    let second = |tenths: u64| Moment(tenths * NANOS / 10);
    assert_eq!(limiter.take(second(0), 1, 1), Verdict::Allowed);
    assert_eq!(limiter.take(second(0), 100, 1), Verdict::At(second(1)));
    assert_eq!(limiter.take(second(1), 100, 1), Verdict::Allowed);
    // 96 in debt: the next byte is there after 97.
    assert_eq!(limiter.take(second(1), 1, 1), Verdict::At(second(98)));
    assert_eq!(limiter.take(second(98), 1, 1), Verdict::Allowed);
}

#[test]
fn what_one_bucket_refuses_is_taken_from_none() {
    let rate = Rate { bytes: Some(spec(100, 100)), operations: Some(spec(1, 1)) };
    let twin = Twin::open(disk_file(spec(1000, 30))).unwrap();
    let limiter = Limiter::of(Some(rate), Some(&twin), Flow::Disk);
    assert_eq!(limiter.take(Moment(0), 10, 1), Verdict::Allowed);
    for _ in 0..100 {
        assert_eq!(limiter.take(Moment(0), 20, 1), Verdict::At(Moment(NANOS)));
    }
    // The device's bytes and the twin's are as they were: 90 and 20.
    assert_eq!(limiter.take(Moment(0), 20, 0), Verdict::Allowed);
    assert_eq!(limiter.take(Moment(0), 1, 0), Verdict::At(Moment(NANOS / 1000)));
    assert!(Limiter::new(None).is_unlimited() && !limiter.is_unlimited());
    assert!(twin.limiter(Flow::Receive).is_unlimited());
}

#[test]
fn a_large_request_of_one_queue_is_not_passed_by_small_ones_of_another() {
    let rate = Rate { bytes: Some(spec(1000, 1000)), operations: None };
    let large = Limiter::new(Some(rate));
    let small = large.clone();
    let mut now = 0;
    assert_eq!(small.take(Moment(now), 1000, 1), Verdict::Allowed);
    // The small one asks at each millisecond, which would be enough for it.
    let Verdict::At(told) = large.take(Moment(now), 500, 1) else { panic!("nothing is there") };
    assert_eq!(told, Moment(NANOS / 2));
    while now < told.0 {
        assert_ne!(small.take(Moment(now), 1, 1), Verdict::Allowed);
        now += NANOS / 1000;
    }
    assert_eq!(large.take(told, 500, 1), Verdict::Allowed);
    assert_eq!(small.take(Moment(told.0 + NANOS / 1000), 1, 1), Verdict::Allowed);
}

#[test]
fn two_processes_share_a_file() {
    let file = disk_file(spec(10, 10));
    let open = || Twin::open(file.try_clone().unwrap()).unwrap().limiter(Flow::Disk);
    let (one, other) = (open(), open());
    assert_eq!(one.take(Moment(5), 6, 1), Verdict::Allowed);
    assert_eq!(other.take(Moment(5), 4, 1), Verdict::Allowed);
    let next = Moment(5 + NANOS / 10);
    assert_eq!(one.take(Moment(5), 1, 1), Verdict::At(next));
    // One that is started later finds the bucket as it is.
    assert_eq!(open().take(Moment(5), 1, 1), Verdict::At(next));
    assert_eq!(open().take(next, 1, 1), Verdict::Allowed);
    assert_eq!(other.take(next, 1, 1), Verdict::At(Moment(5 + NANOS / 5)));
}

#[test]
fn threads_get_exactly_what_is_there() {
    let file = disk_file(spec(1000, 5000));
    let (total, rounds) = (AtomicU64::new(0), 4);
    for round in 0..rounds {
        // Seconds of 1000 tokens; the first is full. Four mappings, as four processes have them.
        let now = Moment(10 * NANOS + round * NANOS);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let limiter = Twin::open(file.try_clone().unwrap()).unwrap().limiter(Flow::Disk);
                let total = &total;
                scope.spawn(move || {
                    // Noise of others may refuse some tokens for a moment: ask until it is empty.
                    let empty = Moment(now.0 + NANOS / 1000);
                    loop {
                        match limiter.take(now, 1, 1) {
                            Verdict::Allowed => total.fetch_add(1, Ordering::Relaxed),
                            Verdict::At(at) if at == empty => break,
                            Verdict::At(_) => continue,
                        };
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 5000 + round * 1000);
    }
}

#[test]
fn hostile_contents_neither_hang_nor_panic() {
    let words = [0, 1, u64::MAX, u64::MAX - 1, 1 << 47, (1 << 48) - 1, 1 << 48, 1 << 63];
    let now = Moment(1_000 * NANOS);
    for mark in words {
        for epoch in words.into_iter().chain([now.0, now.0 + 1, now.0 + 59 * NANOS]) {
            let file = disk_file(spec(1 << 20, 1 << 20));
            let at = |offset: usize| (BUCKET_BYTES + offset) as u64;
            file.write_all_at(&mark.to_le_bytes(), at(MARK_AT)).unwrap();
            for index in 0..EPOCHS {
                file.write_all_at(&epoch.to_le_bytes(), at(EPOCHS_AT + index * 8)).unwrap();
            }
            let limiter = Twin::open(file).unwrap().limiter(Flow::Disk);
            for tokens in [0, 1, u64::MAX] {
                for late in [0, 1, NANOS, 100 * NANOS] {
                    if let Verdict::At(at) = limiter.take(Moment(now.0 + late), tokens, 1) {
                        assert!(at.0 <= now.0 + late + LOOK_AGAIN, "{mark:#x} {epoch:#x}");
                    }
                }
            }
            // The end of time is no way out either.
            let _ = limiter.take(Moment(u64::MAX), u64::MAX, u64::MAX);
        }
    }
}

#[test]
fn an_epoch_of_the_future_heals_at_once() {
    let file = disk_file(spec(10, 10));
    let forge = |offset: usize, word: u64| {
        file.write_all_at(&word.to_le_bytes(), (BUCKET_BYTES + offset) as u64).unwrap();
    };
    forge(MARK_AT, 5);
    (0..EPOCHS).for_each(|index| forge(EPOCHS_AT + index * 8, u64::MAX));
    let limiter = Twin::open(file.try_clone().unwrap()).unwrap().limiter(Flow::Disk);
    assert_eq!(limiter.take(Moment(NANOS), 1, 1), Verdict::At(Moment(NANOS + NANOS / 10)));
    assert_eq!(limiter.take(Moment(2 * NANOS), 10, 1), Verdict::Allowed);
}

#[test]
fn other_files_are_refused() {
    let short = tempfile::tempfile().unwrap();
    assert!(matches!(Twin::open(short), Err(TwinError::Read(_))));
    let wrong = tempfile::tempfile().unwrap();
    wrong.write_all_at(&[0; FILE_BYTES], 0).unwrap();
    assert!(matches!(Twin::open(wrong), Err(TwinError::Form(_))));
}

#[test]
fn a_moment_becomes_an_alarm() {
    let soon = Moment(Moment::now().0 + 3600 * NANOS).instant();
    let before = Instant::now() + Duration::from_mins(59);
    assert!(soon > before && Moment(u64::MAX).instant() > before);
    assert!(Moment(0).instant() <= Instant::now());
}

proptest! {
    /// Any rates, any times, asked at the told moment or not: the same as the model; so never more
    /// than rate and burst, and never less.
    #[test]
    fn any_history_is_that_of_the_model(
        per_second in prop_oneof![1u64..100, 1u64..1 << 46],
        burst in prop_oneof![1u64..100, 1u64..1 << 46],
        start in 0u64..1 << 60,
        history in prop::collection::vec(
            (
                prop_oneof![Just(None), (0u64..1 << 34).prop_map(Some), Just(Some(1 << 58))],
                prop_oneof![0u64..4, 0u64..1 << 20, 0u64..1 << 46],
            ),
            1..60,
        ),
    ) {
        let spec = spec(per_second, burst);
        let (bucket, mut model, mut now) = (Bucket::own(spec), Model::new(spec), start);
        for (pause, tokens) in history {
            model.flow(now);
            // None: exactly when it is there, and a nanosecond before.
            let told = model.when(tokens);
            match pause {
                Some(pause) => now += pause,
                None if told > now + 1 && told < 1 << 62 => {
                    step(&bucket, &mut model, told - 1, tokens);
                    now = told;
                }
                None => {}
            }
            if now >= 1 << 62 {
                break;
            }
            step(&bucket, &mut model, now, tokens);
        }
    }

    /// What goes through in any stretch of time is at most rate * time + burst.
    #[test]
    fn never_more_than_rate_and_burst(
        per_second in 1u64..50,
        burst in 1u64..50,
        history in prop::collection::vec((0u64..NANOS, 0u64..50), 1..80),
    ) {
        let bucket = Bucket::own(spec(per_second, burst));
        let mut now = 0;
        let mut passed = Vec::new();
        for (pause, tokens) in history {
            now += pause;
            let tokens = tokens.min(burst);
            if bucket.take(now, tokens).is_ok() {
                passed.push((now, tokens));
            }
        }
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (to, tokens) in &passed[first..] {
                sum += tokens;
                prop_assert!((sum - burst.min(sum)) * NANOS <= per_second * (to - from));
            }
        }
    }

    /// Giving back leaves it as if nothing had been taken.
    #[test]
    fn what_is_given_back_is_there(
        per_second in 1u64..1000,
        burst in 1u64..1000,
        taken in 0u64..1000,
        back in 0u64..1000,
        pause in 0u64..NANOS,
    ) {
        let spec = spec(per_second, burst);
        let (bucket, mut model) = (Bucket::own(spec), Model::new(spec));
        step(&bucket, &mut model, 5, taken.min(burst));
        if bucket.take(5 + pause, back).is_ok() {
            bucket.give_back(back);
        }
        step(&bucket, &mut model, 5 + pause, burst);
    }
}

//! What a disk's firmware says of its health, through smartctl: whatever it is, no panic, and nothing wrong without a reason.
#![no_main]
#![allow(dead_code, unreachable_pub)]

use libfuzzer_sys::fuzz_target;
use zos_types::disk::Verdict;

#[path = "../../src/care/smart.rs"]
mod smart;

fuzz_target!(|input: &[u8]| {
    let Some((exit, text)) = input.split_first() else { return };
    let _ = smart::is_unknown_bridge(text);
    // Answers that are whole begin with a brace: those of smartctl are tried with every exit status.
    let (exit, text) = if *exit == b'{' { (0, input) } else { (*exit, text) };
    if let Ok(health) = smart::read(text, Some(i32::from(exit))) {
        let wrong = matches!(health.verdict, Verdict::Warning | Verdict::Failing);
        assert_eq!(wrong, !health.reasons.is_empty());
        assert!(health.temperature.is_none_or(|now| (-60..=200).contains(&now)));
    }
});

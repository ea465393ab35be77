//! The kernel's random generator.

use rustix::rand::{GetRandomFlags, getrandom};

/// Whether it is seeded: then it never blocks again.
#[must_use]
pub fn ready() -> bool {
    getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK).is_ok()
}

/// A number for spreading things over time; no secret.
#[must_use]
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::INSECURE) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => crate::clock::boottime_millis(),
    }
}

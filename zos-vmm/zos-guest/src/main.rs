//! zos-guest.
#![forbid(unsafe_code)]

fn main() {}

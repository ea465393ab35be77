//! zos-init.
#![forbid(unsafe_code)]

fn main() {}

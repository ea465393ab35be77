//! What a guest, a client or an image may send us, as functions over bytes: fuzz targets.
//!
//! ```text
//!  bytes ─▶ Script ─▶ accesses to a function's registers, its queues, memory ─▶ the real device
//!                                                       then: a reset, and the device works again
//!  bytes ─▶ a parser (loader, HTTP ...)                 then: no panic, nothing out of bounds
//! ```
//!
//! `cargo test` runs each over a fixed series of inputs, `make fuzz` lets libFuzzer look for more.
//! The module is there for tests and the feature `fuzzing` alone.

mod agent;
mod api;
mod devices;
mod loader;
mod pci;
mod script;

/// A target: its name, and what it does with bytes. It panics when something is wrong.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by name. A name is also a program of the folder `fuzz`.
pub const TARGETS: &[Target] = &[
    ("agent", agent::host),
    ("balloon", devices::balloon),
    ("blk", devices::blk),
    ("config", api::config),
    ("console", devices::console),
    ("http", api::http),
    ("kernel", loader::kernel),
    ("net", devices::net),
    ("pci", pci::config),
    ("rng", devices::rng),
    ("vsock", devices::vsock),
];

/// The target of a name.
///
/// # Panics
/// There is none.
#[must_use]
pub fn target(name: &str) -> fn(&[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no fuzz target {name}")).1
}

#[cfg(test)]
mod tests;

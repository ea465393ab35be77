//! The copies of the node's state: which lead, and what is written down when one is lost or joins. Pure.
//!
//! ```text
//!  boot     lead(marks of the pools here) ─▶ none | torn (the farmer's choice) | these lead, those are behind
//!
//!  running  Set ── lose ──▶ survivor: epoch + 1, a new generation, itself alone ─▶ then it is answered
//!              ├─ fill ──▶ newcomer: not whole ─▶ each daemon copies its part ─▶ JoinState
//!              └─ all joined ─▶ the leading one names both ─▶ the newcomer is whole
//! ```
//! A mark stands in the pool's header (storaged alone writes it) and says which history the copy holds. A
//! *generation* is a random number; a new one begins whenever a copy goes on without another, and the
//! ones before it are kept as its *past*. So of two copies one is behind the other exactly if its
//! generation is in the other's past. If neither is, both went on alone: they are never merged, and
//! neither leads without the farmer's word.
//!
//! What can't be known: a disk that is behind, alone in a machine, looks like one whose companion was
//! lost. It leads then, and begins a generation of its own.

pub mod lead;
pub mod mark;
pub mod set;

#[cfg(test)]
mod model;

pub use lead::{Here, Lead, lead};
pub use mark::{Generation, Mark};
pub use set::{Set, Write};

//! The node's words, as types: what a twin asks for, what a node has, what it says about both.
//!
//! ```text
//!  id ── name ── origin ── unit           the atoms: keys, names, sizes
//!   │
//!  deployment ──▶ (admission, plan) ──▶ status      what a twin wants, and what became of it
//!   │
//!  capacity ──▶ cloud                     what a machine offers, and its price units
//!  machine                                disks, pools, links, services, faults
//!  volume                                 how a volume does, what it is sealed with, its snapshots
//!  problem                                how the API says no
//! ```
//!
//! Everything here is pure: no clock, no file, no socket. Decisions over these values live beside
//! them, so that they are tested without a machine.
#![forbid(unsafe_code)]

pub mod capacity;
pub mod cloud;
pub mod deployment;
pub mod disk;
pub mod id;
pub mod machine;
pub mod name;
pub mod origin;
pub mod problem;
pub mod status;
pub mod unit;
pub mod volume;

pub use capacity::{Amount, Capacity};
pub use cloud::CloudUnits;
pub use deployment::{Deployment, Workload};
pub use id::{Id, NodeId, TwinId};
pub use machine::Fault;
pub use name::{Name, WorkloadName};
pub use origin::{Origin, OriginName};
pub use problem::{FieldError, Problem};
pub use unit::Bytes;

//! What the parts of a node say to each other and to the world.
//!
//! ```text
//!  local       varlink between daemons: one module an interface, a struct a method
//!  node        what the node API answers, beside the node's own words
//!  handover    HPKE: a twin gives a volume's key to a node
//!  signature   RFC 9421 request signatures: the twin signs, the node verifies
//!  client      a twin's or farmer's way to a node: HTTPS pinned by the node's id
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod handover;
pub mod local;
pub mod node;
pub mod signature;

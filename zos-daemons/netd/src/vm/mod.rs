//! The network `nat`: what VMs see of the world.
//!
//! ```text
//!   VM ── tap t… ──┐ isolated, learning off, nothing flooded
//!   VM ── tap t… ──┤ zvm0, first address of the subnet ── forward, masquerade ──▶ uplinks
//!   VM ── tap t… ──┘   │
//!                      ├─ DHCP server: known hardware addresses, always the same address
//!                      └─ DNS proxy: to the uplinks' name servers
//! ```
//! Between two taps nothing passes: the ports are isolated, the bridge's forward chain drops, and
//! each frame's hardware and IP addresses must be those of its tap. The node's table of neighbours
//! is fixed too, so a VM can't speak for another.

pub mod bridge;
pub mod dns;
pub mod server;
pub mod subnet;
pub mod table;

/// The bridge.
pub const BRIDGE: &str = "zvm0";

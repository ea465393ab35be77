//! A network card as plain data.
//!
//! ```text
//!  Lan         QEMU's user network 10.0.2.0/24: DHCP, DNS, a way to this machine, and from here to the node's port 8443
//!  Unplugged   the same card, its cable pulled
//!  Silent      a cable into a switch where nobody answers
//! ```

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// On a LAN with DHCP, with a way from this machine to the node API. One at most.
    Lan,
    /// No carrier.
    Unplugged,
    /// Carrier, and nobody there.
    Silent,
}

impl Nic {
    /// The MAC address of the card with this number.
    #[must_use]
    pub fn mac(number: usize) -> String {
        format!("52:54:00:5a:00:{number:02x}")
    }

    /// The device's id in QEMU.
    #[must_use]
    pub fn id(number: usize) -> String {
        format!("nic{number}")
    }
}

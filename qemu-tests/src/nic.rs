//! A network card as plain data.
//!
//! ```text
//!  Lan         QEMU's user network 10.0.2.0/24: DHCP, DNS, a way to this computer, and from here to the node's port 8443
//!  Waiting     the same, its cable not in yet (see Machine::set_cable)
//!  Unplugged   no cable, and nothing behind it
//!  Silent      a cable into a switch where nobody answers
//! ```

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// On a LAN with DHCP, with a way from this computer to the node API. One at most.
    Lan,
    /// As [`Nic::Lan`], with the cable pulled at the start.
    Waiting,
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

    /// Whether the cable is out at the start.
    #[must_use]
    pub fn starts_unplugged(self) -> bool {
        matches!(self, Self::Waiting | Self::Unplugged)
    }

    /// The device's id in QEMU.
    #[must_use]
    pub fn id(number: usize) -> String {
        format!("nic{number}")
    }
}

//! The configuration space of one function (PCI Local Bus 3.0, chapter 6).
//!
//! ```text
//!  00 vendor  device    08 revision class   10 BAR0 .. 24 BAR5
//!  04 command status    0c header type      2c subsystem   34 capabilities ──▶ 40 ...
//! ```
//!
//! Each bit that a guest may change stands in a mask; everything else stays as it was made.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | write an id, a capability's header, a read-only bit | the mask has no bit there: nothing |
//! | size a BAR by writing ones | the bits below its size stay zero |
//! | move a BAR over memory or another device | decoding goes by window: outside of it nobody answers |
//! | read or write past 255, or across a word | zeros; nothing |

/// Bytes of a conventional function's space.
pub const CONFIG_BYTES: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
/// Command bits that a driver may change: memory space, bus master, interrupt disable.
const COMMAND_MASK: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const COMMAND_MEMORY: u16 = 1 << 1;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass, programming interface: `0xccsspp`.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// Subsystem device id; the subsystem's vendor is `vendor`.
    pub subsystem: u16,
}

/// A function's configuration space.
#[derive(Clone, Debug)]
pub struct PciConfig {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    next_capability: usize,
    last_link: usize,
}

impl PciConfig {
    /// A space with no BAR and no capability.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut config = Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            next_capability: FIRST_CAPABILITY,
            last_link: CAPABILITIES,
        };
        config.set(0x00, &identity.vendor.to_le_bytes());
        config.set(0x02, &identity.device.to_le_bytes());
        config.set(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        config.set(0x2c, &identity.vendor.to_le_bytes());
        config.set(0x2e, &identity.subsystem.to_le_bytes());
        config.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_MASK.to_le_bytes());
        config
    }

    /// Gives the function a 32-bit memory BAR 0 of this size (a power of two) at this address.
    pub fn set_bar0(&mut self, address: u32, size: u32) {
        debug_assert!(size.is_power_of_two() && address.is_multiple_of(size));
        self.set(BAR0, &address.to_le_bytes());
        self.writable[BAR0..BAR0 + 4].copy_from_slice(&(!(size - 1)).to_le_bytes());
    }

    /// Where BAR 0 is, if memory decoding is on.
    #[must_use]
    pub fn bar0(&self) -> Option<u32> {
        let command = u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]]);
        let bar = u32::from_le_bytes(self.bytes[BAR0..BAR0 + 4].try_into().unwrap_or_default());
        (command & COMMAND_MEMORY != 0).then_some(bar)
    }

    /// Appends a capability: its id, and what follows the link byte, with the mask of what a guest
    /// may write there. Returns its offset, or nothing when the space is full.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        debug_assert_eq!(body.len(), writable.len());
        let at = self.next_capability;
        let end = (at + 2 + body.len()).next_multiple_of(4);
        if end > CONFIG_BYTES {
            return None;
        }
        self.bytes[self.last_link] = u8::try_from(at).ok()?;
        self.set(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.bytes[at] = id;
        self.set(at + 2, body);
        self.writable[at + 2..at + 2 + writable.len()].copy_from_slice(writable);
        self.last_link = at + 1;
        self.next_capability = end;
        Some(at)
    }

    /// Reads; what lies outside reads as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        if let Some(source) = self.bytes.get(offset..offset.saturating_add(data.len())) {
            data.copy_from_slice(source);
        }
    }

    /// Writes the bits that a guest may change.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        if offset.saturating_add(data.len()) > CONFIG_BYTES {
            return;
        }
        for (at, byte) in (offset..).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
        }
    }

    fn set(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> PciConfig {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1042, class: 0x018000, revision: 1, subsystem: 2 };
        let mut config = PciConfig::new(identity);
        config.set_bar0(0xc000_0000, 0x8000);
        config.add_capability(0x11, &[3, 0, 0, 0], &[0, 0xc0, 0, 0]).unwrap();
        config.add_capability(0x09, &[16, 1, 0], &[0, 0, 0]).unwrap();
        config
    }

    fn word(config: &PciConfig, at: usize) -> u32 {
        let mut data = [0; 4];
        config.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_bar_tells_its_size() {
        let mut config = config();
        config.write(BAR0, &u32::MAX.to_le_bytes());
        assert_eq!(word(&config, BAR0), 0xffff_8000);
        assert_eq!(config.bar0(), None);
        config.write(COMMAND, &[2, 0]);
        assert_eq!(config.bar0(), Some(0xffff_8000));
    }

    #[test]
    fn capabilities_are_linked() {
        let config = config();
        assert_eq!(word(&config, CAPABILITIES) & 0xff, 0x40);
        assert_eq!(word(&config, 0x40) & 0xffff, 0x4811);
        assert_eq!(word(&config, 0x48) & 0xffff, 0x0009);
        assert_eq!(word(&config, COMMAND) >> 16, 0x10);
    }

    #[test]
    fn the_space_fills_up() {
        let mut config = config();
        while config.add_capability(9, &[0; 18], &[0; 18]).is_some() {}
        assert!(config.add_capability(9, &[0; 250], &[0; 250]).is_none());
    }

    proptest! {
        /// Whatever is written, only masked bits change, and nothing panics.
        #[test]
        fn only_masked_bits_change(
            writes in prop::collection::vec(
                (0usize..5000, prop::collection::vec(any::<u8>(), 0..9)), 0..64),
        ) {
            let mut config = config();
            let before = config.clone();
            for (offset, data) in &writes {
                config.write(*offset, data);
                let mut back = vec![0; data.len()];
                config.read(*offset, &mut back);
            }
            for at in 0..CONFIG_BYTES {
                prop_assert_eq!(
                    config.bytes[at] & !config.writable[at],
                    before.bytes[at] & !before.writable[at]
                );
            }
            prop_assert_eq!(config.writable, before.writable);
        }
    }
}

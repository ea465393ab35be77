//! The bus: any access anywhere in ECAM and the window of BARs.

use super::script::Script;
use crate::arch::layout;
use crate::pci::PciBus;
use crate::virtio::driver::Driver;
use crate::virtio::rng::Rng;

/// Three functions that are written to and moved about. Their identities stay what they are.
pub(super) fn config(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (mut bus, mut workers) = (PciBus::new(crate::virtio::BAR_BYTES), Vec::new());
    for _ in 0..3 {
        let rng = Rng::default();
        let bar = bus.next_bar(layout::PCI_BARS);
        let (function, worker) = Driver::function_at(rng.profile(), Box::new(rng), bar);
        assert!(bus.add(Box::new(function)).is_ok());
        workers.push(worker);
    }
    for _ in 0..200 {
        if script.is_over() {
            break;
        }
        let kind = script.byte();
        let width = [1, 2, 4, 8][usize::from(kind >> 4 & 3)];
        let device = u64::from(script.byte() % 6) << 15;
        let offset = device | u64::from(script.word() % 0x400);
        let address = layout::PCI_BARS.wrapping_add(u32::from(script.word()) * 4);
        let mut data = [0; 8];
        match kind % 4 {
            0 => bus.config_write(offset, script.take(width)),
            1 => bus.config_read(offset, &mut data[..width]),
            2 => bus.bar_write(address, script.take(width)),
            _ => bus.bar_read(address, &mut data[..width]),
        }
    }
    for device in 1..=3u64 {
        let mut identity = [0; 4];
        bus.config_read(device << 15, &mut identity);
        assert_eq!(identity, [0xf4, 0x1a, 0x44, 0x10]);
    }
}

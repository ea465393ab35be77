//! What a network device may agree on with its driver (virtio 1.2, 5.1.3), and what a tap is told
//! of it.
//!
//! | Not offered | Why |
//! |---|---|
//! | UFO | no kernel has made such frames for years; its code was the way into several |
//! | CTRL_RX, CTRL_VLAN, CTRL_MAC_ADDR | the tap hears what it may hear, whatever the guest asks |
//! | MTU | the VMs' networks have 1500 bytes, which is what a guest takes without it |
//! | RSS, HASH_REPORT | the tap chooses a queue by the flow |
//! | GUEST_ANNOUNCE, STANDBY, SPEED_DUPLEX | nothing moves a running guest here |

use super::super::F_RING;

pub(super) const F_CSUM: u64 = 1 << 0;
pub(super) const F_GUEST_CSUM: u64 = 1 << 1;
pub(super) const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
pub(super) const F_MAC: u64 = 1 << 5;
pub(super) const F_GUEST_TSO4: u64 = 1 << 7;
pub(super) const F_GUEST_TSO6: u64 = 1 << 8;
pub(super) const F_GUEST_ECN: u64 = 1 << 9;
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_HOST_ECN: u64 = 1 << 13;
pub(super) const F_MRG_RXBUF: u64 = 1 << 15;
pub(super) const F_STATUS: u64 = 1 << 16;
pub(super) const F_CTRL_VQ: u64 = 1 << 17;
pub(super) const F_MQ: u64 = 1 << 22;
/// UDP segmentation is of virtio 1.3.
pub(super) const F_GUEST_USO4: u64 = 1 << 54;
pub(super) const F_GUEST_USO6: u64 = 1 << 55;
pub(super) const F_HOST_USO: u64 = 1 << 56;

/// What a driver can take from us, and switch while it runs (5.1.6.5.6.1).
pub(super) const GUEST_OFFLOADS: u64 =
    F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_GUEST_USO4 | F_GUEST_USO6;
/// Frames longer than a wire's may come.
pub(super) const GUEST_SEGMENTS: u64 = F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_USO4 | F_GUEST_USO6;
/// Everybody has these.
const ALWAYS: u64 = F_RING
    | F_CSUM
    | F_GUEST_CSUM
    | F_CTRL_GUEST_OFFLOADS
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN
    | F_MRG_RXBUF
    | F_STATUS
    | F_CTRL_VQ;
const USO: u64 = F_GUEST_USO4 | F_GUEST_USO6 | F_HOST_USO;

/// What to offer.
pub(super) fn offered(mac: bool, pairs: usize, uso: bool) -> u64 {
    let when = |there: bool, features: u64| if there { features } else { 0 };
    ALWAYS | when(mac, F_MAC) | when(pairs > 1, F_MQ) | when(uso, USO)
}

/// `TUN_F_*` (`linux/if_tun.h`).
const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;
const TUN_F_TSO_ECN: u32 = 8;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// What a tap says yes to when its kernel has UDP segmentation.
pub(super) const TUN_USO: u32 = TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6;

/// What the tap may do to frames for a driver that takes this.
pub(super) fn tun_offloads(features: u64) -> u32 {
    let has = |feature: u64| features & feature == feature;
    let when = |there: bool, flags: u32| if there { flags } else { 0 };
    // The tap takes segments only with checksums left out, ECN only with TCP's, and UDP's only for
    // both families.
    if !has(F_GUEST_CSUM) {
        return 0;
    }
    let tso = has(F_GUEST_TSO4) || has(F_GUEST_TSO6);
    TUN_F_CSUM
        | when(has(F_GUEST_TSO4), TUN_F_TSO4)
        | when(has(F_GUEST_TSO6), TUN_F_TSO6)
        | when(tso && has(F_GUEST_ECN), TUN_F_TSO_ECN)
        | when(has(F_GUEST_USO4 | F_GUEST_USO6), TUN_F_USO4 | TUN_F_USO6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_gets_no_combination_that_it_refuses() {
        for (features, flags) in [
            (0, 0),
            (F_GUEST_TSO4 | F_GUEST_USO4 | F_GUEST_USO6, 0),
            (F_GUEST_CSUM | F_GUEST_ECN, TUN_F_CSUM),
            (F_GUEST_CSUM | F_GUEST_USO4, TUN_F_CSUM),
            (F_GUEST_CSUM | F_GUEST_TSO6 | F_GUEST_ECN, TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN),
            (GUEST_OFFLOADS, 0x6f),
        ] {
            assert_eq!(tun_offloads(features), flags, "{features:#x}");
        }
    }
}

//! Which addresses VMs have: a /16 that no uplink uses.

use ipnet::Ipv4Net;

/// In order of preference. First shared address space (RFC 6598), which no farmer's LAN should
/// use, then corners of the private blocks, which few do.
const CANDIDATES: [[u8; 2]; 8] =
    [[100, 64], [100, 107], [100, 121], [10, 213], [10, 87], [172, 29], [172, 22], [192, 168]];

/// The first candidate that overlaps none of `used`; what is in use now stays if it may.
pub fn choose(now: Option<Ipv4Net>, used: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |net: &Ipv4Net| {
        used.iter().any(|other| net.contains(&other.network()) || other.contains(&net.network()))
    };
    now.into_iter().chain(candidates()).find(|net| !overlaps(net))
}

/// All that could be chosen.
pub fn candidates() -> impl Iterator<Item = Ipv4Net> {
    CANDIDATES.iter().map(|[a, b]| Ipv4Net::new_assert([*a, *b, 0, 0].into(), 16))
}

/// The bridge's own address, also DHCP server, gateway and name server of the VMs.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Net {
    let first = u32::from(subnet.network()) + 1;
    Ipv4Net::new_assert(first.into(), subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_subnet_moves_only_when_it_must() {
        let check = |now: Option<&str>, used: &[&str], expected: Option<&str>| {
            let used: Vec<Ipv4Net> = used.iter().map(|net| net.parse().unwrap()).collect();
            let found = choose(now.map(|net| net.parse().unwrap()), &used);
            assert_eq!(found.map(|net| net.to_string()).as_deref(), expected, "{used:?}");
        };
        check(None, &[], Some("100.64.0.0/16"));
        check(None, &["10.0.2.15/24"], Some("100.64.0.0/16"));
        check(None, &["100.64.3.7/10"], Some("10.213.0.0/16"));
        check(None, &["100.64.3.7/20"], Some("100.107.0.0/16"));
        check(Some("10.87.0.0/16"), &["100.64.3.7/20"], Some("10.87.0.0/16"));
        check(Some("10.87.0.0/16"), &["10.1.1.1/8"], Some("100.64.0.0/16"));
        check(None, &["0.0.0.0/0"], None);
    }

    proptest! {
        #[test]
        fn it_never_overlaps(used in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..6)) {
            let used: Vec<Ipv4Net> = used
                .into_iter()
                .map(|(address, prefix)| Ipv4Net::new_assert(address.into(), prefix))
                .collect();
            if let Some(net) = choose(None, &used) {
                for other in &used {
                    prop_assert!(!net.contains(&other.network()));
                    prop_assert!(!other.contains(&net.network()));
                }
            }
        }
    }
}

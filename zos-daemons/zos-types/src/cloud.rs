//! Cloud units, the farmer's price units: CU for compute, SU for storage; NU is metered traffic
//! and has no offer. Both sets of formulas are Zero-OS's; MRU, SRU, HRU in GiB, CRU in threads:
//!
//! | Use     | CU                                                              | SU                       |
//! |---------|-----------------------------------------------------------------|--------------------------|
//! | offered | min((mru - 1)/4, cru*4/2, sru/50)                               | hru/1200 + sru*0.8/200   |
//! | used    | min(max(mru/4, cru/2), max(mru/8, cru), max(mru/2, cru/4))      | hru/1200 + sru/200       |
//!
//! Values are integer thousandths. What is offered rounds down, what is used rounds up.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::capacity::Resources;
use crate::unit::GIB;

/// Cloud units in thousandths: `cu: 1500` is 1.5 CU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct CloudUnits {
    /// Compute units, in thousandths.
    pub cu: u64,
    /// Storage units, in thousandths.
    pub su: u64,
}

/// The CU and SU that a node offers (farming). Rounded down.
pub fn offered(r: &Resources) -> CloudUnits {
    let cu = [
        milli(Fraction { over: r.mru.0.saturating_sub(GIB).into(), under: 4 * gib() }),
        milli(Fraction { over: u128::from(r.cru) * 2, under: 1 }),
        milli(Fraction { over: r.sru.0.into(), under: 50 * gib() }),
    ];
    // hru/1200 + sru*0.8/200 = (5 hru + 24 sru) / 6000
    let su =
        Fraction { over: 5 * u128::from(r.hru.0) + 24 * u128::from(r.sru.0), under: 6000 * gib() };
    CloudUnits { cu: cu.into_iter().min().unwrap_or(0), su: milli(su) }
}

/// The CU and SU that a workload uses (billing). Rounded up.
pub fn used(r: &Resources) -> CloudUnits {
    let pair = |mru: u128, cru_over: u128, cru_under: u128| {
        let memory = milli_up(Fraction { over: r.mru.0.into(), under: mru * gib() });
        let compute = milli_up(Fraction { over: u128::from(r.cru) * cru_over, under: cru_under });
        memory.max(compute)
    };
    let cu = pair(4, 1, 2).min(pair(8, 1, 1)).min(pair(2, 1, 4));
    // hru/1200 + sru/200 = (hru + 6 sru) / 1200
    let su = Fraction { over: u128::from(r.hru.0) + 6 * u128::from(r.sru.0), under: 1200 * gib() };
    CloudUnits { cu, su: milli_up(su) }
}

#[derive(Clone, Copy)]
struct Fraction {
    over: u128,
    under: u128,
}

fn gib() -> u128 {
    u128::from(GIB)
}

fn milli(f: Fraction) -> u64 {
    u64::try_from(f.over * 1000 / f.under).unwrap_or(u64::MAX)
}

fn milli_up(f: Fraction) -> u64 {
    u64::try_from((f.over * 1000).div_ceil(f.under)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Bytes;
    use proptest::prelude::*;

    fn gib(cru: u64, mru: u64, sru: u64, hru: u64) -> Resources {
        let size = |n: u64| Bytes(n * GIB);
        Resources { cru, mru: size(mru), sru: size(sru), hru: size(hru) }
    }

    #[test]
    fn offers() {
        let check = |r: Resources, cu: u64, su: u64| {
            assert_eq!(offered(&r), CloudUnits { cu, su }, "{r:?}");
        };
        check(gib(0, 0, 0, 0), 0, 0);
        check(gib(8, 33, 1000, 0), 8000, 4000); // memory is the least
        check(gib(1, 64, 1000, 12000), 2000, 14000); // threads are the least
        check(gib(8, 64, 100, 0), 2000, 400); // disk is the least
        check(gib(8, 1, 1000, 0), 0, 4000); // the first GiB counts for nothing
        check(gib(4, 2, 0, 1), 0, 0); // rounds down
    }

    #[test]
    fn uses() {
        let check = |r: Resources, cu: u64, su: u64| {
            assert_eq!(used(&r), CloudUnits { cu, su }, "{r:?}");
        };
        check(gib(0, 0, 0, 0), 0, 0);
        check(gib(1, 4, 0, 0), 1000, 0);
        check(gib(4, 4, 0, 0), 2000, 0);
        check(gib(1, 16, 0, 0), 2000, 0);
        check(gib(0, 0, 1, 0), 0, 5);
        check(gib(0, 0, 0, 1), 0, 1); // rounds up
    }

    fn some() -> impl Strategy<Value = Resources> {
        (0..10_000u64, 0..1u64 << 50, 0..1u64 << 60, 0..1u64 << 60).prop_map(
            |(cru, mru, sru, hru)| Resources {
                cru,
                mru: Bytes(mru),
                sru: Bytes(sru),
                hru: Bytes(hru),
            },
        )
    }

    proptest! {
        #[test]
        fn more_of_anything_never_gives_less(a in some(), b in some()) {
            for units in [offered, used] {
                let (one, both) = (units(&a), units(&(a + b)));
                prop_assert!(one.cu <= both.cu && one.su <= both.su);
            }
        }

        #[test]
        fn storage_units_add_up(a in some(), b in some()) {
            let (apart, together) = (offered(&a).su + offered(&b).su, offered(&(a + b)).su);
            prop_assert!(apart <= together && together <= apart + 1);
            let (apart, together) = (used(&a).su + used(&b).su, used(&(a + b)).su);
            prop_assert!(together <= apart && apart <= together + 1);
        }
    }
}

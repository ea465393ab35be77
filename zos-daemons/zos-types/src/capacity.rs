//! What a machine has to give, resource by resource.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::unit::Bytes;

/// One resource: how much there is, and where it went. `free` is what is left to admit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct Amount {
    /// All there is.
    pub total: u64,
    /// What the node keeps for itself.
    pub reserved: u64,
    /// What twins hold.
    pub used: u64,
    /// `total - reserved - used`, never below 0.
    pub free: u64,
}

impl Amount {
    /// An amount of which nothing is used.
    pub fn new(total: u64, reserved: u64) -> Self {
        let reserved = reserved.min(total);
        Self { total, reserved, used: 0, free: total - reserved }
    }

    /// The same amount with `used` of it held by twins.
    pub fn with_used(self, used: u64) -> Self {
        let free = (self.total - self.reserved).saturating_sub(used);
        Self { used, free, ..self }
    }

    /// What may be offered: the total without what the node keeps.
    pub fn offered(&self) -> u64 {
        self.total.saturating_sub(self.reserved)
    }
}

/// The four resources of a node and its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct Capacity {
    /// Compute: hardware threads.
    pub cru: Amount,
    /// Memory, in bytes.
    pub mru: Amount,
    /// Solid state storage, in bytes of pools.
    pub sru: Amount,
    /// Rotating storage, in bytes of pools.
    pub hru: Amount,
    /// Public IPv4 addresses.
    pub ipv4: Amount,
}

/// What something takes: the same resources, as plain quantities.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Compute: virtual CPUs or hardware threads.
    pub cru: u64,
    /// Memory.
    pub mru: Bytes,
    /// Solid state storage.
    pub sru: Bytes,
    /// Rotating storage.
    pub hru: Bytes,
}

impl std::ops::Add for Resources {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cru: self.cru.saturating_add(other.cru),
            mru: self.mru + other.mru,
            sru: self.sru + other.sru,
            hru: self.hru + other.hru,
        }
    }
}

impl std::iter::Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), std::ops::Add::add)
    }
}

impl Capacity {
    /// What the node offers in all, before anything is used.
    pub fn offered(&self) -> Resources {
        Resources {
            cru: self.cru.offered(),
            mru: Bytes(self.mru.offered()),
            sru: Bytes(self.sru.offered()),
            hru: Bytes(self.hru.offered()),
        }
    }

    /// What twins hold.
    pub fn used(&self) -> Resources {
        Resources {
            cru: self.cru.used,
            mru: Bytes(self.mru.used),
            sru: Bytes(self.sru.used),
            hru: Bytes(self.hru.used),
        }
    }

    /// The same capacity with `used` held by twins.
    pub fn with_used(self, used: &Resources) -> Self {
        Self {
            cru: self.cru.with_used(used.cru),
            mru: self.mru.with_used(used.mru.0),
            sru: self.sru.with_used(used.sru.0),
            hru: self.hru.with_used(used.hru.0),
            ipv4: self.ipv4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_amount_adds_up_and_never_goes_below_zero(total: u64, reserved: u64, used: u64) {
            let amount = Amount::new(total, reserved).with_used(used);
            prop_assert!(amount.reserved <= amount.total);
            prop_assert_eq!(amount.free, (amount.total - amount.reserved).saturating_sub(used));
        }
    }
}

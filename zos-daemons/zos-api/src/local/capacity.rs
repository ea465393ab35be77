//! `org.zos.Capacity`: what the machine has to give.

use serde::{Deserialize, Serialize};
use zos_types::{Capacity, CloudUnits};

use super::interface;

interface! {
    /// What the machine has to give.
    "Capacity" on "/run/zos/capacity.sock";
    /// Measured now: totals and what the node keeps. What twins use is provisiond's to know.
    Measure [Provision Api Console] -> Measured;
}

/// What the machine has to give.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The processor's model, in words.
    pub processor: String,
    /// Totals and what the node keeps; nothing used.
    pub capacity: Capacity,
    /// The cloud units that it offers.
    pub offered: CloudUnits,
}

//! Which of a tap's queues are in use, and what the tap may do to frames: one truth for all pairs.
//!
//! ```text
//!  pair 0: always attached
//!  pair n: detached ── its queues are there, and the driver uses more than n pairs ──▶ attached
//!             ▲                                                                          │
//!             └────────────── it is reset, or the driver uses fewer ─────────────────────┘
//! ```
//!
//! A detached queue gets no frames, so that none is lost in a pair that nobody looks at. Every
//! change takes the host's one lock for its network, so none is made that changes nothing.

use super::features::tun_offloads;
use super::tap::Tap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A tap's descriptors, one for each pair, and how they are used.
#[derive(Debug)]
pub(super) struct Steering {
    taps: Vec<Tap>,
    state: Mutex<State>,
}

/// Bits: one for each part of the device.
#[derive(Debug)]
struct State {
    /// Parts that are active.
    parts: u64,
    /// Those that have a pair of queues.
    pairs: u64,
    /// Pairs whose tap queue is attached.
    attached: u64,
    /// Pairs that the driver wants to use.
    wanted: usize,
    /// `TUN_F_*` that are set, when that is known.
    offloads: Option<u32>,
}

impl Steering {
    /// Of these descriptors only the first is attached.
    pub(super) fn new(taps: Vec<Tap>) -> Self {
        let state = State { parts: 0, pairs: 0, attached: 1, wanted: 1, offloads: None };
        Self { taps, state: Mutex::new(state) }
    }

    /// A pair's descriptor.
    pub(super) fn tap(&self, pair: usize) -> &Tap {
        &self.taps[pair]
    }

    /// Pairs that there could be.
    pub(super) fn most(&self) -> usize {
        self.taps.len()
    }

    /// A part becomes active. The first one sets what the driver agreed on; later ones find what
    /// it may have changed since.
    pub(super) fn arrive(&self, part: usize, has_pair: bool, features: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.parts == 0 {
            self.offload(&mut state, features)?;
        }
        state.parts |= 1 << part;
        if has_pair {
            state.pairs |= 1 << part;
        }
        self.apply(&mut state)
    }

    /// A part is reset.
    pub(super) fn leave(&self, part: usize) {
        let mut state = self.lock();
        state.parts &= !(1 << part);
        state.pairs &= !(1 << part);
        if state.parts == 0 {
            state.wanted = 1;
        }
        // A queue that can't be detached drops what nobody reads.
        let _ = self.apply(&mut state);
    }

    /// The driver says how many pairs it uses; tells whether that was done.
    pub(super) fn use_pairs(&self, count: usize) -> bool {
        let mut state = self.lock();
        let right = (1..=self.taps.len()).contains(&count);
        if right {
            state.wanted = count;
        }
        right && self.apply(&mut state).is_ok()
    }

    /// The driver says what it takes.
    pub(super) fn set_offloads(&self, features: u64) -> io::Result<()> {
        self.offload(&mut self.lock(), features)
    }

    fn offload(&self, state: &mut State, features: u64) -> io::Result<()> {
        let flags = tun_offloads(features);
        if state.offloads != Some(flags) {
            state.offloads = None;
            self.taps[0].set_offloads(flags)?;
            state.offloads = Some(flags);
        }
        Ok(())
    }

    /// Attaches and detaches until the tap is as the state wants it.
    fn apply(&self, state: &mut State) -> io::Result<()> {
        for (pair, tap) in self.taps.iter().enumerate().skip(1) {
            let bit = 1 << pair;
            let wanted = pair < state.wanted && state.pairs & bit != 0;
            if wanted != (state.attached & bit != 0) {
                tap.set_attached(wanted)?;
                state.attached ^= bit;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

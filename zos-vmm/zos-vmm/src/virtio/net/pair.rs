//! A pair of queues in its thread; the last one's thread has the control queue too.
//!
//! ```text
//!  kicks, the tap, alarms ─▶ Pair ─┬─ Receiver      queue 2n
//!                                  ├─ Transmitter   queue 2n + 1
//!                                  └─ Control       the queue behind the last pair; with a driver
//!                                                   that knows one pair only, the third
//! ```
//!
//! What waits for its tokens is woken by an alarm: nothing of it is lost, and nobody spins. Commands
//! take the host's one lock for its network, so they too have a rate.

use super::control::Control;
use super::features::{F_CTRL_VQ, F_MQ};
use super::receive::Receiver;
use super::shared::Shared;
use super::throttle::Throttle;
use super::transmit::{Cost, Transmitter};
use super::{Activation, Backend, Broken, Interrupt, Share, Waits};
use crate::memory::GuestMemory;
use crate::rate::Limiter;
use rustix::event::PollFlags;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// The control queue of a driver that knows no further pairs (5.1.2).
const THIRD: usize = 2;

/// One part of the device.
#[derive(Debug)]
pub(super) struct Pair {
    shared: Arc<Shared>,
    number: usize,
    limits: Limits,
    active: Option<Active>,
}

/// What a part's queues may do.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) receive: Limiter,
    pub(super) transmit: Limiter,
    pub(super) commands: Limiter,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
    /// With its number within the part.
    control: Option<(usize, Control)>,
    receiving: Throttle,
    sending: Throttle,
    commands: Throttle,
}

impl Pair {
    pub(super) fn new(shared: Arc<Shared>, number: usize, limits: Limits) -> Self {
        Self { shared, number, limits, active: None }
    }

    fn tap(&self) -> &super::tap::Tap {
        self.shared.steering.tap(self.number)
    }

    fn receive(&mut self) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, interrupt, receiver: Some(receiver), receiving, .. } = active else {
            return Ok(Share::Done);
        };
        receiving.begin();
        let (shared, tap) = (&*self.shared, self.shared.steering.tap(self.number));
        receiver.turn(memory, interrupt, shared, tap, |cost| receiving.may(cost, shared))
    }

    fn transmit(&mut self) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, interrupt, transmitter: Some(transmitter), sending, .. } = active
        else {
            return Ok(Share::Done);
        };
        sending.begin();
        let (shared, tap) = (&*self.shared, self.shared.steering.tap(self.number));
        transmitter.turn(memory, interrupt, shared, tap, |cost| sending.may(cost, shared))
    }

    /// After work that no kick asked for: what is left is done at the next turn.
    fn go_on(&mut self, share: Share, of: impl FnOnce(&mut Active) -> &mut Throttle) {
        if let (Share::More, Some(active)) = (share, &mut self.active) {
            of(active).ring_now();
        }
    }

    fn command(&mut self) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, interrupt, control: Some((_, control)), commands, .. } = active else {
            return Ok(Share::Done);
        };
        commands.begin();
        let cost = Cost { bytes: 0, frames: 1 };
        let shared = &*self.shared;
        control.turn(memory, interrupt, shared, || commands.may(cost, shared))
    }
}

impl Backend for Pair {
    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let Activation { memory, mut queues, features, interrupt, .. } = activation;
        let has = |feature: u64| features & feature != 0;
        let mut take = |index: usize| queues.get_mut(index).and_then(Option::take);
        let most = self.shared.steering.most();
        let control_at = if has(F_MQ) { 2 * most } else { THIRD };
        let control_at = control_at.checked_sub(2 * self.number).filter(|_| has(F_CTRL_VQ));
        let control = control_at
            .and_then(|at| take(at).map(|queue| (at, Control::new(&memory, queue, features))));
        let used = self.number == 0 || has(F_MQ);
        let (receive, transmit) = if used { (take(RECEIVE), take(TRANSMIT)) } else { (None, None) };
        if self.number == 0 && (receive.is_none() || transmit.is_none()) {
            return Err(Broken::Ring);
        }
        let whole = receive.is_some() && transmit.is_some();
        self.shared.try_link();
        self.shared.steering.arrive(self.number, whole, features).map_err(|_| Broken::Backing)?;
        if self.number == 0 {
            self.tap().drain();
        }
        let Limits { receive: receiving, transmit: sending, commands } = self.limits.clone();
        self.active = Some(Active {
            receiver: receive.map(|queue| Receiver::new(&memory, queue, features)),
            transmitter: transmit.map(|queue| Transmitter::new(&memory, queue, features)),
            control,
            memory,
            interrupt,
            receiving: Throttle::new(receiving),
            sending: Throttle::new(sending),
            commands: Throttle::new(commands),
        });
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<Share, Broken> {
        let control = self.active.as_ref().and_then(|active| active.control.as_ref());
        match queue {
            _ if control.is_some_and(|(at, _)| *at == queue) => self.command(),
            RECEIVE => self.receive(),
            TRANSMIT => self.transmit(),
            _ => Ok(Share::Done),
        }
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        // Without room there's no use in hearing of frames.
        let has_room = self.active.as_ref().and_then(|active| active.receiver.as_ref());
        if has_room.is_some_and(Receiver::has_room) && self.shared.has_link() {
            waits.add(0, self.tap().as_fd(), PollFlags::IN);
        }
    }

    fn ready(&mut self, _: u32) -> Result<(), Broken> {
        let share = self.receive()?;
        self.go_on(share, |active| &mut active.receiving);
        Ok(())
    }

    fn alarm(&self) -> Option<Instant> {
        let active = self.active.as_ref()?;
        let throttles = [&active.receiving, &active.sending, &active.commands];
        throttles.into_iter().filter_map(Throttle::until).min()
    }

    fn rang(&mut self) -> Result<(), Broken> {
        let Some(active) = &self.active else { return Ok(()) };
        let now = Instant::now();
        let due = |throttle: &Throttle| throttle.until().is_some_and(|at| at <= now);
        let (receives, sends) = (due(&active.receiving), due(&active.sending));
        let commands = due(&active.commands);
        if receives {
            let share = self.receive()?;
            self.go_on(share, |active| &mut active.receiving);
        }
        if sends {
            let share = self.transmit()?;
            self.go_on(share, |active| &mut active.sending);
        }
        if commands {
            let share = self.command()?;
            self.go_on(share, |active| &mut active.commands);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.shared.steering.leave(self.number);
    }
}

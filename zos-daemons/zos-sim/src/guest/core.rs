//! What a simulated guest does, without clock and without effects: it says what `builtin:hello` says,
//! and ends as it is told or as its fault has it.
//!
//! ```text
//!  Booting ── 300 ms ──▶ Up: a report, then a line each second
//!     │                   │ button ─▶ Off: 100 ms, exit 0
//!     └──── killed ───────┴ fault ──▶ exit as the fault has it
//! ```

use zos_api::local::init::Exit;

use crate::fault::GuestFault;

/// Milliseconds since the guest's start.
pub(crate) type Millis = u64;

/// From the start to the report.
const BOOT: Millis = 300;
/// Between two lines.
const LINE: Millis = 1000;
/// From the power button to the end.
const DOWN: Millis = 100;
/// When a fault strikes.
const STRIKES: Millis = 5000;

/// What a guest finds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Surroundings {
    /// Virtual CPUs.
    pub(crate) cpus: u16,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Each disk's size in bytes, and how often the first was started with.
    pub(crate) disks: Vec<u64>,
    /// See `disks`.
    pub(crate) boots: Option<u64>,
    /// Each network's address, as DHCP gives it.
    pub(crate) addresses: Vec<String>,
}

/// What happens to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Time passed.
    Tick,
    /// Its power button was pressed.
    Button,
    /// Its process was killed by a signal.
    Kill(i32),
}

/// What a guest does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// It writes to its console.
    Print(String),
    /// Its process ends.
    End(Exit),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Booting,
    Up { next: Millis, lines: u64 },
    Off { at: Millis },
    Gone,
}

/// A guest.
#[derive(Debug)]
pub(crate) struct Guest {
    sees: Surroundings,
    fault: Option<GuestFault>,
    phase: Phase,
}

impl Guest {
    /// A guest that starts at 0.
    pub(crate) fn new(sees: Surroundings, fault: Option<GuestFault>) -> Self {
        Self { sees, fault, phase: Phase::Booting }
    }

    /// When it wants to be told that time passed; none: it has ended.
    pub(crate) fn alarm(&self) -> Option<Millis> {
        let due = match self.phase {
            Phase::Booting => BOOT,
            Phase::Up { next, .. } => next,
            Phase::Off { at } => at,
            Phase::Gone => return None,
        };
        Some(if self.fault.is_some() { due.min(STRIKES) } else { due })
    }

    /// Takes an event; gives what the guest does, in this order.
    pub(crate) fn handle(&mut self, now: Millis, event: Event) -> Vec<Output> {
        let mut outputs = Vec::new();
        match (event, self.phase) {
            (_, Phase::Gone) => {}
            (Event::Kill(signal), _) => self.end(&mut outputs, signaled(signal)),
            // No system hears the button yet: the VMM ends the guest.
            (Event::Button, Phase::Booting) => self.end(&mut outputs, exited(0)),
            (Event::Button, Phase::Up { .. }) => {
                outputs.push(Output::Print("hello: power button: powering off\n".into()));
                self.phase = Phase::Off { at: now + DOWN };
            }
            (Event::Button, Phase::Off { .. }) => {}
            (Event::Tick, _) if now >= STRIKES && self.fault.is_some() => {
                self.strike(&mut outputs);
            }
            (Event::Tick, Phase::Booting) if now >= BOOT => {
                outputs.push(Output::Print(self.report(now)));
                self.line(now, 1, &mut outputs);
            }
            (Event::Tick, Phase::Up { next, lines }) if now >= next => {
                self.line(now, lines + 1, &mut outputs);
            }
            (Event::Tick, Phase::Off { at }) if now >= at => self.end(&mut outputs, exited(0)),
            (Event::Tick, _) => {}
        }
        outputs
    }

    fn end(&mut self, outputs: &mut Vec<Output>, exit: Exit) {
        self.phase = Phase::Gone;
        outputs.push(Output::End(exit));
    }

    fn strike(&mut self, outputs: &mut Vec<Output>) {
        let Some(fault) = self.fault else { return };
        let (last_words, exit) = match fault {
            GuestFault::Crash => ("", signaled(11)),
            GuestFault::Reboot => ("hello: rebooting\n", exited(3)),
            GuestFault::Poweroff => ("hello: powering off\n", exited(0)),
        };
        if !last_words.is_empty() {
            outputs.push(Output::Print(last_words.into()));
        }
        self.end(outputs, exit);
    }

    fn line(&mut self, now: Millis, number: u64, outputs: &mut Vec<Output>) {
        let Surroundings { cpus, memory, disks, boots, addresses } = &self.sees;
        let (seconds, tenths) = (now / 1000, now % 1000 / 100);
        let mut line = format!(
            "hello {number}: up {seconds}.{tenths} s, cpus {cpus}, memory {} MiB",
            memory >> 20
        );
        for (letter, size) in ('a'..='z').zip(disks) {
            line += &format!(", vd{letter} {} MiB", size >> 20);
            if let (Some(boots), 'a') = (boots, letter) {
                line += &format!(" boots: {boots}");
            }
        }
        for (number, address) in addresses.iter().enumerate() {
            line += &format!(", eth{number} {address}");
        }
        if !addresses.is_empty() {
            line += ", dhcp bound";
        }
        outputs.push(Output::Print(line + "\n"));
        self.phase = Phase::Up { next: now + LINE, lines: number };
    }

    fn report(&self, now: Millis) -> String {
        let Surroundings { cpus, memory, disks, boots, addresses } = &self.sees;
        let disks: Vec<_> = ('a'..='z')
            .zip(disks)
            .map(|(letter, bytes)| serde_json::json!({ "name": format!("vd{letter}"), "bytes": bytes }))
            .collect();
        let report = serde_json::json!({
            "kernel": "simulated",
            "uptime_ms": now,
            "cpus": cpus,
            "memory": { "total": memory, "available": memory },
            "disks": disks,
            "boots": boots,
            "addresses": addresses,
        });
        format!("{report:#}\n")
    }
}

fn exited(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, oom: false }
}

fn signaled(signal: i32) -> Exit {
    Exit { code: None, signal: Some(signal), oom: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guest(fault: Option<GuestFault>) -> Guest {
        let sees = Surroundings {
            cpus: 2,
            memory: 256 << 20,
            disks: vec![1 << 30, 8 << 20],
            boots: Some(3),
            addresses: vec!["100.64.0.20/16".into()],
        };
        Guest::new(sees, fault)
    }

    /// Lets time pass until the guest ends or the time is over.
    fn play(guest: &mut Guest, until: Millis) -> (String, Option<(Millis, Exit)>) {
        let mut log = String::new();
        while let Some(now) = guest.alarm().filter(|now| *now <= until) {
            for output in guest.handle(now, Event::Tick) {
                match output {
                    Output::Print(text) => log += &text,
                    Output::End(exit) => return (log, Some((now, exit))),
                }
            }
        }
        (log, None)
    }

    #[test]
    fn it_reports_and_then_says_a_line_each_second() {
        let (log, end) = play(&mut guest(None), 3500);
        assert_eq!(end, None);
        let (report, lines) = log.split_at(log.find("hello 1").unwrap());
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        assert_eq!((&report["cpus"], &report["boots"]), (&2.into(), &3.into()));
        assert_eq!(lines.lines().count(), 4, "{lines}");
        let expected = "hello 2: up 1.3 s, cpus 2, memory 256 MiB, vda 1024 MiB boots: 3, \
             vdb 8 MiB, eth0 100.64.0.20/16, dhcp bound";
        assert_eq!(lines.lines().nth(1), Some(expected));
    }

    #[test]
    fn each_fault_strikes_once_and_in_its_way() {
        let check = |fault, words: &str, exit| {
            let (log, end) = play(&mut guest(Some(fault)), 60_000);
            assert_eq!(end, Some((STRIKES, exit)), "{fault:?}");
            assert!(log.ends_with(words), "{log}");
        };
        check(GuestFault::Crash, "dhcp bound\n", signaled(11));
        check(GuestFault::Reboot, "hello: rebooting\n", exited(3));
        check(GuestFault::Poweroff, "hello: powering off\n", exited(0));
    }

    #[test]
    fn the_button_ends_it_orderly_and_a_signal_at_once() {
        let mut up = guest(None);
        play(&mut up, 1000);
        let said = up.handle(1200, Event::Button);
        assert_eq!(said, [Output::Print("hello: power button: powering off\n".into())]);
        assert!(up.handle(1250, Event::Button).is_empty());
        assert_eq!(play(&mut up, 9000), (String::new(), Some((1300, exited(0)))));
        assert_eq!(guest(None).handle(10, Event::Button), [Output::End(exited(0))]);
        assert_eq!(guest(None).handle(10, Event::Kill(9)), [Output::End(signaled(9))]);
    }

    proptest! {
        /// Whatever happens, it ends at most once, says nothing afterwards, and never asks for the past.
        #[test]
        fn any_events(events in prop::collection::vec((0u64..2000, 0u8..8), 0..40), fault in 0u8..4) {
            let fault = [None, Some(GuestFault::Crash), Some(GuestFault::Reboot), Some(GuestFault::Poweroff)][fault as usize];
            let (mut guest, mut now, mut ended) = (guest(fault), 0, false);
            for (pause, event) in events {
                now += pause;
                let event = match event { 0 => Event::Button, 1 => Event::Kill(9), _ => Event::Tick };
                let outputs = guest.handle(now, event);
                prop_assert!(!ended || outputs.is_empty());
                ended |= outputs.iter().any(|output| matches!(output, Output::End(_)));
                prop_assert_eq!(ended, guest.alarm().is_none());
                prop_assert!(outputs.iter().filter(|o| matches!(o, Output::End(_))).count() <= 1);
            }
        }
    }
}

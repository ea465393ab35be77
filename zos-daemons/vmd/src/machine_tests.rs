use proptest::prelude::*;
use zos_types::Bytes;
use zos_types::deployment::{Image, Restart};
use zos_types::unit::MIB;

use super::*;

fn vm(restart: Restart) -> Vm {
    let (disks, networks) = (Vec::new(), Vec::new());
    Vm { cpu: 1, memory: Bytes(256 * MIB), image: Image::Hello, restart, disks, networks }
}

fn exit(code: i32) -> Option<Exit> {
    Some(Exit { code: Some(code), signal: None, oom: false })
}

fn ended(code: i32, at: Millis) -> Event {
    Event::Seen(Seen::Ended { exit: exit(code), at })
}

fn date(at: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.cast_signed()).unwrap()
}

/// Started at 1000 ms, and seen running.
fn running(restart: Restart) -> Machine {
    let mut machine = Machine::new(1000, vm(restart));
    assert_eq!(machine.handle(1000, Event::Tick), [Action::Start { attempt: 1 }]);
    assert_eq!(machine.handle(1010, Event::Started { attempt: 1, result: Ok(()) }), []);
    assert_eq!(machine.handle(1020, Event::Seen(Seen::Alive)), []);
    assert_eq!(machine.state(date), State::Running);
    machine
}

#[test]
fn an_end_is_answered_by_the_policy() {
    use Restart::{Always, Never, OnFailure};
    let check = |restart, code: i32, ran: Millis, again: Option<Millis>| {
        let mut machine = running(restart);
        let now = 1000 + ran;
        let actions = machine.handle(now, ended(code, now));
        assert_eq!(actions[0], Action::Acknowledge);
        match again {
            None => assert!(matches!(machine.phase(), Phase::Ended { .. }), "{restart:?} {code}"),
            Some(0) => assert_eq!(actions[1], Action::Start { attempt: 2 }),
            Some(pause) => assert_eq!(machine.alarm(), Some(now + pause), "{restart:?} {code}"),
        }
    };
    check(Always, 0, 5000, Some(1000));
    check(Always, 1, 5000, Some(1000));
    check(Always, 3, 5000, Some(0));
    check(OnFailure, 0, 5000, None);
    check(OnFailure, 1, 5000, Some(1000));
    check(OnFailure, 3, 5000, Some(0));
    check(Never, 0, 5000, None);
    check(Never, 1, 5000, None);
    check(Never, 3, 5000, Some(0));
}

#[test]
fn a_crash_loop_is_slowed_down_and_shown_but_never_given_up() {
    let mut machine = running(Restart::Always);
    let (mut now, mut pauses) = (2000, Vec::new());
    for attempt in 2..14 {
        machine.handle(now, ended(1, now));
        let State::Degraded { fault, retry_at } = machine.state(date) else { panic!() };
        assert!(fault.contains("VMM met an error"), "{fault}");
        let at = machine.alarm().unwrap();
        assert_eq!(retry_at, date(at));
        pauses.push((at - now) / 1000);
        assert_eq!(machine.handle(at, Event::Tick), [Action::Start { attempt }]);
        machine.handle(at, Event::Started { attempt, result: Ok(()) });
        machine.handle(at, Event::Seen(Seen::Alive));
        now = at + 100;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(machine.restarts, 12);
    // A healthy time forgives.
    let now = now + STABLE;
    machine.handle(now, ended(1, now));
    assert_eq!(machine.alarm(), Some(now + 1000));
}

#[test]
fn a_guest_that_powers_off_now_and_then_is_nobodys_trouble() {
    let mut machine = running(Restart::Always);
    machine.handle(5000, ended(0, 5000));
    assert_eq!(machine.state(date), State::Preparing);
}

#[test]
fn a_removed_vm_is_stopped_and_then_all_it_held_is_given_back() {
    let mut machine = running(Restart::Always);
    assert_eq!(machine.handle(2000, Event::Remove), [Action::Stop { grace: GRACE }]);
    assert_eq!(machine.state(date), State::Stopping);
    assert_eq!(machine.handle(3000, ended(0, 3000)), [Action::Acknowledge, Action::Release]);
    machine.handle(3001, Event::Released(Err("busy".into())));
    assert_eq!(machine.handle(machine.alarm().unwrap(), Event::Tick), [Action::Release]);
    machine.handle(5000, Event::Released(Ok(())));
    assert_eq!(machine.phase(), &Phase::Gone);
}

#[test]
fn a_guest_that_ignores_the_button_is_ended() {
    let mut machine = running(Restart::Always);
    machine.handle(2000, Event::Remove);
    let late = machine.alarm().unwrap();
    assert!(late > 2000 + GRACE);
    assert_eq!(machine.handle(late, Event::Tick), [Action::Stop { grace: 0 }]);
}

#[test]
fn a_vm_that_is_removed_while_it_starts_is_stopped_once_it_can_be() {
    let mut machine = Machine::new(0, vm(Restart::Always));
    machine.handle(0, Event::Tick);
    assert_eq!(machine.handle(10, Event::Remove), []);
    let started = |result| Event::Started { attempt: 1, result };
    let mut failed = machine.clone();
    assert_eq!(machine.handle(20, started(Ok(()))), [Action::Stop { grace: GRACE }]);
    assert_eq!(failed.handle(20, started(Err(Fault::new("x", "y")))), [Action::Release]);
}

#[test]
fn a_changed_vm_is_stopped_and_started_anew_and_a_changed_policy_stops_nothing() {
    let mut machine = running(Restart::Never);
    assert_eq!(machine.handle(2000, Event::Ensure(vm(Restart::Always))), []);
    assert_eq!(machine.state(date), State::Running);
    let more = Vm { cpu: 2, ..vm(Restart::Never) };
    assert_eq!(machine.handle(2000, Event::Ensure(more)), [Action::Stop { grace: GRACE }]);
    assert_eq!(machine.handle(3000, ended(0, 3000)), [Action::Acknowledge, Action::Release]);
    assert_eq!(machine.handle(3010, Event::Released(Ok(()))), [Action::Start { attempt: 2 }]);
    assert_eq!(machine.before, None);
}

#[test]
fn one_that_is_wanted_again_while_it_goes_down_comes_back() {
    let mut machine = running(Restart::Never);
    machine.handle(2000, Event::Remove);
    machine.handle(2100, Event::Ensure(vm(Restart::Never)));
    let actions = machine.handle(3000, ended(0, 3000));
    assert_eq!(actions, [Action::Acknowledge, Action::Start { attempt: 2 }]);
}

#[test]
fn an_end_counts_once_however_often_it_is_shown() {
    let mut machine = running(Restart::Always);
    machine.handle(5000, ended(3, 4990));
    machine.handle(5010, Event::Started { attempt: 2, result: Ok(()) });
    assert_eq!(machine.handle(5011, ended(3, 4990)), []);
    assert_eq!(machine.restarts, 1);
    assert_eq!(machine.phase(), &Phase::Starting { started: Some(5010) });
}

#[test]
fn an_earlier_life_is_continued() {
    let noted = |machine: &Machine| -> Machine {
        serde_json::from_str(&serde_json::to_string(machine).unwrap()).unwrap()
    };
    let mut alive = noted(&running(Restart::Always));
    assert_eq!(alive.handle(9000, Event::Seen(Seen::Alive)), []);
    assert_eq!((alive.phase(), alive.restarts), (&Phase::Running, 0));

    let mut ended_meanwhile = noted(&running(Restart::Always));
    let actions = ended_meanwhile.handle(9000, ended(3, 8000));
    assert_eq!(actions, [Action::Acknowledge, Action::Start { attempt: 2 }]);

    let mut lost = noted(&running(Restart::Always));
    assert_eq!(lost.handle(9000, Event::Seen(Seen::Absent)), [Action::Start { attempt: 2 }]);

    let mut stopped = running(Restart::Never);
    stopped.handle(5000, ended(0, 5000));
    let mut stopped = noted(&stopped);
    assert_eq!(stopped.handle(9000, Event::Seen(Seen::Absent)), []);
    assert!(matches!(stopped.state(date), State::Stopped { .. }));
}

#[test]
fn a_drained_vm_stays_down() {
    let mut machine = running(Restart::Always);
    assert_eq!(machine.handle(2000, Event::Drain), [Action::Stop { grace: GRACE }]);
    assert_eq!(machine.handle(3000, ended(0, 3000)), [Action::Acknowledge]);
    assert!(machine.is_down());
    assert_eq!(machine.handle(9000, Event::Ensure(vm(Restart::Always))), []);
    assert_eq!(machine.handle(9000, Event::Tick), []);
    assert!(machine.is_down());
}

#[test]
fn a_start_that_fails_is_tried_again_and_shown() {
    let mut machine = Machine::new(0, vm(Restart::Never));
    machine.handle(0, Event::Tick);
    let fault = Fault::new("vm.no-kvm", "no virtualization");
    machine.handle(10, Event::Started { attempt: 1, result: Err(fault.clone()) });
    assert_eq!(machine.fault(), Some(&fault));
    assert_eq!(machine.handle(1010, Event::Tick), [Action::Start { attempt: 2 }]);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u32..3).prop_map(|cpu| Event::Ensure(Vm { cpu, ..vm(Restart::Always) })),
        Just(Event::Remove),
        Just(Event::Tick),
        Just(Event::Seen(Seen::Absent)),
        Just(Event::Seen(Seen::Alive)),
        (0..4i32, 0..400_000u64).prop_map(|(code, at)| ended(code, at)),
        (0..9u32, any::<bool>()).prop_map(|(attempt, ok)| {
            let result = if ok { Ok(()) } else { Err(Fault::new("vm.x", "y")) };
            Event::Started { attempt, result }
        }),
        any::<bool>().prop_map(|ok| Event::Released(if ok { Ok(()) } else { Err("busy".into()) })),
    ]
}

proptest! {
    /// Whatever happens, a VM that is removed and whose effects succeed is gone in the end, and at
    /// most one start is under way.
    #[test]
    fn a_removed_vm_is_gone_in_the_end(events in prop::collection::vec((event(), 0..20_000u64), 0..60)) {
        let mut machine = Machine::new(0, vm(Restart::Always));
        let mut now = 0;
        for (event, later) in events {
            now += later;
            machine.handle(now, event);
            if machine.phase() == &Phase::Gone {
                return Ok(());
            }
        }
        // From here on the world answers: no process unless one was started.
        let mut actions = machine.handle(now, Event::Remove);
        for _ in 0..20 {
            if machine.phase() == &Phase::Gone {
                return Ok(());
            }
            now = machine.alarm().unwrap_or(now).max(now) + 1;
            let next = match (machine.phase(), actions.last()) {
                (Phase::Starting { started: None }, _) => {
                    let result = Err(Fault::new("vm.x", "y"));
                    Event::Started { attempt: machine.attempt, result }
                }
                (Phase::Releasing { again: None }, _) => Event::Released(Ok(())),
                (_, Some(Action::Stop { .. })) => ended(0, now + 1_000_000),
                (Phase::Unknown, _) => Event::Seen(Seen::Absent),
                _ => Event::Tick,
            };
            actions = machine.handle(now, next);
        }
        prop_assert_eq!(machine.phase(), &Phase::Gone);
    }
}

use proptest::prelude::*;
use zos_types::Bytes;
use zos_types::deployment::{Image, Restart};
use zos_types::unit::MIB;

use super::*;

fn vm(restart: Restart) -> Vm {
    let (disks, networks) = (Vec::new(), Vec::new());
    let (memory, image, shares) = (Bytes(256 * MIB), Image::Hello, vec![]);
    Vm { cpu: 1, memory, image, restart, disks, networks, shares }
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

/// Ends a running VM so many times in a row, each 100 ms after its start; gives the pauses, in seconds,
/// and the time at which it runs once more.
fn end_again_and_again(machine: &mut Machine, code: i32, times: u32) -> (Vec<u64>, Millis) {
    let (mut now, mut pauses) = (2000, Vec::new());
    for attempt in 2..2 + times {
        let mut actions = machine.handle(now, ended(code, now));
        let at = machine.alarm().unwrap_or(now);
        pauses.push((at - now) / 1000);
        if at > now {
            actions = machine.handle(at, Event::Tick);
        }
        assert_eq!(actions.last(), Some(&Action::Start { attempt }));
        machine.handle(at, Event::Started { attempt, result: Ok(()) });
        machine.handle(at, Event::Seen(Seen::Alive));
        now = at + 100;
    }
    (pauses, now)
}

#[test]
fn a_loop_is_slowed_down_and_then_left_alone_but_never_given_up() {
    let check = |restart, code, pauses: &[u64], cause: &str| {
        let mut machine = running(restart);
        let (found, now) = end_again_and_again(&mut machine, code, 4);
        assert_eq!(found, pauses, "{restart:?} {code}");
        // The fifth end in a row: an hour of peace.
        assert_eq!(machine.handle(now, ended(code, now)), [Action::Acknowledge]);
        let State::Quarantined { cause: told, retry_at } = machine.state(date) else { panic!() };
        assert_eq!((told.as_str(), retry_at), (cause, date(now + QUARANTINE)));
        assert_eq!(machine.fault().unwrap().detail, cause);
        assert_eq!(machine.handle(now + QUARANTINE - 1, Event::Tick), []);
        assert!(!machine.is_down());
        // Tried once more, and at its next end left alone again.
        let now = now + QUARANTINE;
        assert_eq!(machine.handle(now, Event::Tick), [Action::Start { attempt: 6 }]);
        machine.handle(now, Event::Started { attempt: 6, result: Ok(()) });
        machine.handle(now, Event::Seen(Seen::Alive));
        let mut healthy = machine.clone();
        machine.handle(now + 100, ended(code, now + 100));
        assert!(matches!(machine.phase(), Phase::Quarantined { .. }));
        // A healthy time forgives.
        let now = now + STABLE;
        healthy.handle(now, ended(code, now));
        assert!(!matches!(healthy.phase(), Phase::Quarantined { .. }));
    };
    let error = "the VMM met an error; the node's log tells which, 5 times in a row";
    check(Restart::Always, 1, &[1, 2, 4, 8], error);
    check(Restart::OnFailure, 1, &[1, 2, 4, 8], error);
    let off = "the guest powered itself off, 5 times in a row";
    check(Restart::Always, 0, &[1, 2, 4, 8], off);
    // The first reboot costs no pause, whatever the policy.
    let reboot = "the guest rebooted, 5 times in a row";
    for restart in [Restart::Always, Restart::OnFailure, Restart::Never] {
        check(restart, 3, &[0, 2, 4, 8], reboot);
    }
}

#[test]
fn what_leads_out_of_quarantine() {
    let mut quarantined = running(Restart::Always);
    let (_, now) = end_again_and_again(&mut quarantined, 3, 4);
    quarantined.handle(now, ended(3, now));
    let noted = serde_json::to_string(&quarantined).unwrap();
    assert_eq!(serde_json::from_str::<Machine>(&noted).unwrap(), quarantined);
    let check = |event: Event, expect: &[Action], down: bool| {
        let mut machine = quarantined.clone();
        assert_eq!(machine.handle(now + 10, event.clone()), expect, "{event:?}");
        assert_eq!(machine.is_down(), down, "{event:?}");
        machine
    };
    // The same wish again, and what PID 1 shows of it, change nothing.
    check(Event::Ensure(vm(Restart::Always)), &[], false);
    check(Event::Seen(Seen::Absent), &[], false);
    // The twin changes it: what it had is given back first, and it is as if it had never failed.
    let more = Vm { cpu: 2, ..vm(Restart::Always) };
    let mut changed = check(Event::Ensure(more), &[Action::Release], true);
    let started = changed.handle(now + 20, Event::Released(Ok(())));
    assert_eq!((started.as_slice(), changed.ends), (&[Action::Start { attempt: 6 }][..], 0));
    check(Event::Ensure(vm(Restart::Never)), &[Action::Start { attempt: 6 }], false);
    check(Event::Remove, &[Action::Release], true);
    check(Event::Drain, &[], true);
}

#[test]
fn a_node_that_can_not_start_it_is_not_its_fault() {
    let mut machine = Machine::new(0, vm(Restart::Always));
    let (mut now, mut pauses) = (0, Vec::new());
    for attempt in 1..13 {
        assert_eq!(machine.handle(now, Event::Tick), [Action::Start { attempt }]);
        let result = Err(Fault::new("vm.volume", "its disk is not there yet"));
        machine.handle(now, Event::Started { attempt, result });
        let State::Degraded { retry_at, .. } = machine.state(date) else { panic!() };
        let at = machine.alarm().unwrap();
        assert_eq!(retry_at, date(at));
        pauses.push((at - now) / 1000);
        now = at;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
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

#[test]
fn one_that_lost_a_share_is_ended_and_started_again_unless_it_ends_by_itself() {
    let killed = Some(Exit { code: None, signal: Some(9), oom: false });
    let check = |restart, exit, fault: Option<&str>, again: bool| {
        let mut machine = running(restart);
        assert_eq!(machine.handle(5000, Event::ServerGone), []);
        assert_eq!(machine.handle(5500, Event::ServerGone), []);
        assert_eq!(machine.alarm(), Some(6000));
        assert_eq!(machine.handle(5999, Event::Tick), []);
        assert_eq!(machine.handle(6000, Event::Tick), [Action::Stop { grace: 0 }]);
        machine.handle(6010, Event::Seen(Seen::Ended { exit, at: 6010 }));
        assert_eq!(matches!(machine.phase(), Phase::Ended { .. }), !again, "{exit:?}");
        assert_eq!(machine.fault().map(|fault| fault.id.as_str()), fault, "{exit:?}");
        if again {
            // It is forgiven, not forgotten: the pauses grow as they do for any other end.
            let at = machine.alarm().unwrap_or(6010);
            machine.handle(at, Event::Tick);
            machine.handle(at, Event::Started { attempt: 2, result: Ok(()) });
            assert_eq!(machine.handle(at, Event::Seen(Seen::Alive)), []);
            assert_eq!(machine.alarm(), None);
        }
    };
    check(Restart::Always, killed, Some("vm.share"), true);
    check(Restart::OnFailure, killed, Some("vm.share"), true);
    check(Restart::Never, killed, None, false);
    // It was about to end anyway.
    check(Restart::OnFailure, exit(0), None, false);
    check(Restart::OnFailure, exit(3), None, true);

    // What ends within the second was never told to.
    let mut machine = running(Restart::OnFailure);
    machine.handle(5000, Event::ServerGone);
    assert_eq!(machine.handle(5100, ended(0, 5100)), [Action::Acknowledge]);
    assert!(matches!(machine.phase(), Phase::Ended { .. }));
}

//! Units played through.

use super::*;

const OK: Exit = Exit { code: Some(0), signal: None, oom: false };

fn core() -> Core {
    let mut core = Core::new(1);
    for name in SERVICES {
        let actions = core.handle(1, Input::Start(name.into())).unwrap();
        assert_eq!(actions, [Action::Launch(name.into())]);
    }
    core
}

fn state(core: &Core, name: &str) -> (UnitState, u64) {
    let unit = core.unit(name).unwrap();
    (unit.state, unit.restarts)
}

#[test]
fn a_service_that_is_restarted_stops_first() {
    let mut core = core();
    let vmd = || "vmd".to_owned();
    assert_eq!(state(&core, "vmd"), (UnitState::Running, 0));
    assert_eq!(core.handle(5, Input::Restart(vmd())).unwrap(), [Action::Stop(vmd())]);
    assert_eq!(core.handle(6, Input::Restart(vmd())).unwrap(), []);
    assert_eq!(state(&core, "vmd"), (UnitState::Stopping, 0));
    let ended = Input::Ended(vmd(), OK, String::new());
    assert_eq!(core.handle(7, ended).unwrap(), [Action::Launch(vmd())]);
    assert_eq!(state(&core, "vmd"), (UnitState::Running, 1));
}

#[test]
fn a_service_that_ends_by_itself_comes_back_after_a_pause_that_grows() {
    let mut core = core();
    let ended = || Input::Ended("apid".into(), OK, "why".into());
    let mut now = 10;
    for pause in [200, 400, 800] {
        assert_eq!(core.handle(now, ended()).unwrap(), []);
        assert_eq!(core.alarm(), Some(now + pause));
        assert_eq!(core.handle(now + pause - 1, Input::Tick).unwrap(), []);
        now += pause;
        assert_eq!(core.handle(now, Input::Tick).unwrap(), [Action::Launch("apid".into())]);
    }
    assert_eq!((state(&core, "apid"), core.alarm()), ((UnitState::Running, 3), None));
    // It ran for long: the next end is its first.
    now += STABLE;
    core.handle(now, ended()).unwrap();
    assert_eq!(core.alarm(), Some(now + 200));
    // What waits to be started is stopped for good, and started at once when asked for.
    core.handle(now, Input::Stop("apid".into())).unwrap();
    assert_eq!((state(&core, "apid").0, core.alarm()), (UnitState::Exited, None));
    let started = core.handle(now, Input::Start("apid".into())).unwrap();
    assert_eq!(started, [Action::Launch("apid".into())]);
}

#[test]
fn a_killed_service_shows_the_signal() {
    let mut core = core();
    let killed = core.handle(5, Input::Kill("netd".into(), 9)).unwrap();
    assert_eq!(killed, [Action::Kill("netd".into())]);
    core.handle(6, Input::Ended("netd".into(), OK, String::new())).unwrap();
    let unit = core.unit("netd").unwrap();
    assert_eq!((unit.state, unit.exit.unwrap().signal), (UnitState::Backoff, Some(9)));
}

#[test]
fn a_vm_is_kept_until_its_end_is_acknowledged() {
    let mut core = core();
    let vm = || "vm/t/web.hello".to_owned();
    core.handle(5, Input::Vm(vm())).unwrap();
    assert!(core.handle(5, Input::Vm(vm())).is_err());
    assert!(matches!(core.acknowledge(&vm()), Err(CallError::Conflict { .. })));
    assert!(matches!(core.handle(5, Input::Restart(vm())), Err(CallError::Conflict { .. })));
    let killed = core.handle(6, Input::Kill(vm(), 11)).unwrap();
    assert_eq!(killed, [Action::Signal(vm(), 11)]);
    let exit = Exit { code: None, signal: Some(11), oom: false };
    core.handle(7, Input::Ended(vm(), exit, String::new())).unwrap();
    assert_eq!(core.unit(&vm()).unwrap().exit, Some(exit));
    core.acknowledge(&vm()).unwrap();
    assert!(matches!(core.acknowledge(&vm()), Err(CallError::NotFound { .. })));
    assert!(matches!(core.handle(8, Input::Start("x".into())), Err(CallError::NotFound { .. })));
}

#[test]
fn events_are_remembered_for_a_while_and_the_gap_is_told() {
    let mut core = core();
    let (events, missed) = core.events(0);
    assert_eq!((events.len(), missed), (SERVICES.len(), 0));
    assert_eq!(core.events(events.last().unwrap().sequence), (vec![], 0));
    for now in 0..EVENTS as u64 {
        core.handle(now, Input::Ended("vmd".into(), OK, String::new())).unwrap();
    }
    let (events, missed) = core.events(3);
    assert_eq!((events.len(), missed), (EVENTS, SERVICES.len() as u64 - 3));
    assert_eq!(events[0].sequence, SERVICES.len() as u64 + 1);
}

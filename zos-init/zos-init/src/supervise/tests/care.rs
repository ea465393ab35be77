//! How the whole stands.

use super::*;

#[test]
fn services_serve_fail_are_absent_or_leave() {
    let mut sim = Sim::new(&[("a", rules(&[], &[])), ("b", rules(&[], &["a"]))]);
    assert_eq!(sim.supervisor.services(), Services::Fail, "not begun");
    sim.event(Event::Begin);
    assert_eq!(sim.supervisor.services(), Services::Fail, "not ready yet");
    sim.ready("a");
    assert_eq!(sim.supervisor.services(), Services::Serve);
    sim.ended("a", Exit::Code(1));
    assert_eq!(sim.supervisor.services(), Services::Fail, "b waits for a, which fell");
    // A twin's program is no service.
    sim.vm("vm/t/d.w");
    assert_eq!(sim.supervisor.services(), Services::Fail);
    sim.down();
    assert_eq!(
        (sim.supervisor.services(), sim.supervisor.ending()),
        (Services::Leave, Some(End::Poweroff))
    );
    assert_eq!(sim.supervisor.missed(), None);

    let mut none = Supervisor::default();
    assert_eq!(none.services(), Services::Absent);
    none.add_service(0, "a", rules(&[], &[]), Some("corrupt".to_owned()));
    assert_eq!(none.services(), Services::Absent);
    none.add_service(0, "b", rules(&[], &[]), None);
    assert_eq!(none.services(), Services::Fail);
}

use super::*;
use dhcproto::v4::Opcode;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVER: [u8; 4] = [192, 168, 7, 1];
const ADDRESS: [u8; 4] = [192, 168, 7, 50];

/// A client with a clock of its own, and what it said last.
struct Bench {
    client: Client,
    now: Duration,
    said: Vec<Action>,
}

impl Bench {
    fn new(remembered: Option<u64>) -> Self {
        let remembered = remembered.map(|end| (ADDRESS.into(), Duration::from_secs(end)));
        Self { client: Client::new(MAC, remembered), now: Duration::ZERO, said: Vec::new() }
    }

    fn event(&mut self, event: &Event<'_>) -> String {
        self.said = self.client.handle(self.now, 1000, event);
        self.said.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn at(&mut self, second: u64) -> String {
        self.now = Duration::from_secs(second);
        self.event(&Event::Time)
    }

    fn answer(&mut self, kind: MessageType, change: impl Fn(&mut Message)) -> String {
        let zero = Ipv4Addr::UNSPECIFIED;
        let xid = self.xid();
        let mut message = Message::new_with_id(xid, zero, ADDRESS.into(), zero, zero, &MAC);
        message.set_opcode(Opcode::BootReply);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(SERVER.into()));
        options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        change(&mut message);
        self.event(&Event::Message(&message, [3; 6]))
    }

    fn xid(&self) -> u32 {
        match &self.client.state {
            State::Down | State::Bound(_) => 0,
            State::Selecting(e)
            | State::Requesting(e, _)
            | State::Rebooting(e, _)
            | State::Renewing(e, _)
            | State::Rebinding(e, _) => e.xid,
        }
    }

    fn bound() -> Self {
        let mut bench = Self::new(None);
        assert_eq!(bench.event(&Event::Carrier), "discover");
        assert_eq!(bench.answer(MessageType::Offer, |_| ()), "request");
        assert_eq!(bench.answer(MessageType::Ack, |_| ()), "configure");
        bench
    }
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Broadcast(message) => match message.opts().msg_type() {
            Some(MessageType::Discover) => "discover",
            _ if !message.ciaddr().is_unspecified() => "rebind",
            _ => "request",
        },
        Action::Unicast(..) => "renew",
        Action::Configure(_) => "configure",
        Action::Deconfigure => "deconfigure",
    }
}

#[test]
fn a_lease_is_found_renewed_rebound_and_lost() {
    let mut bench = Bench::bound();
    assert_eq!(bench.client.words(), "dhcp: bound");
    assert_eq!(bench.client.deadline(), Some(Duration::from_secs(1800)));
    assert_eq!(bench.at(1799), "");
    assert_eq!(bench.at(1800), "renew");
    // Half of the time until T2 (3150 s), then half of the rest.
    assert_eq!(bench.at(2474), "");
    assert_eq!(bench.at(2475), "renew");
    assert_eq!(bench.at(3150), "rebind");
    assert_eq!(bench.client.lease().unwrap().address.addr(), Ipv4Addr::from(ADDRESS));
    assert_eq!(bench.at(3375), "rebind");
    assert_eq!(bench.at(3600), "deconfigure discover");
    assert!(bench.client.lease().is_none());
}

#[test]
fn an_extension_counts_from_its_question() {
    let mut bench = Bench::bound();
    assert_eq!(bench.at(1800), "renew");
    bench.now = Duration::from_secs(1802);
    assert_eq!(bench.answer(MessageType::Ack, |_| ()), "configure");
    assert_eq!(bench.client.deadline(), Some(Duration::from_secs(3600)));
}

#[test]
fn questions_are_asked_for_ever_with_growing_pauses() {
    let mut bench = Bench::new(None);
    bench.event(&Event::Carrier);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let next = bench.client.deadline().unwrap();
        pauses.push((next - bench.now).as_secs());
        bench.now = next;
        assert_eq!(bench.event(&Event::Time), "discover");
    }
    // The random number of this bench is no jitter at all.
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64, 64]);
    assert_eq!(bench.client.waiting_since(), Some(Duration::ZERO));
}

#[test]
fn a_silent_or_unwilling_server_is_left() {
    let mut bench = Bench::new(None);
    bench.event(&Event::Carrier);
    bench.answer(MessageType::Offer, |_| ());
    let mut words = Vec::new();
    for _ in 0..4 {
        bench.now = bench.client.deadline().unwrap();
        words.push(bench.event(&Event::Time));
    }
    assert_eq!(words, ["request", "request", "request", "discover"]);

    bench.answer(MessageType::Offer, |_| ());
    assert_eq!(bench.answer(MessageType::Nak, |_| ()), "");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.event(&Event::Time), "discover");
}

#[test]
fn a_remembered_address_is_asked_for_first_and_kept_meanwhile() {
    let mut bench = Bench::new(Some(500));
    assert_eq!(bench.event(&Event::Carrier), "request");
    assert_eq!(bench.answer(MessageType::Ack, |_| ()), "configure");

    let mut bench = Bench::new(Some(500));
    bench.event(&Event::Carrier);
    assert_eq!(bench.answer(MessageType::Nak, |_| ()), "deconfigure discover");

    // Nobody answers: look for another server, keep the address until its lease ends.
    let mut bench = Bench::new(Some(500));
    bench.event(&Event::Carrier);
    let mut words = Vec::new();
    for _ in 0..3 {
        bench.now = bench.client.deadline().unwrap();
        words.push(bench.event(&Event::Time));
    }
    assert_eq!(words, ["request", "discover", "discover"]);
    assert_eq!(bench.at(500), "deconfigure discover");

    // Its lease is over already.
    let mut bench = Bench::new(Some(0));
    assert_eq!(bench.event(&Event::Carrier), "deconfigure discover");
}

#[test]
fn a_pulled_cable_keeps_the_address_and_asks_for_it_when_it_is_back() {
    let mut bench = Bench::bound();
    bench.now = Duration::from_secs(100);
    assert_eq!(bench.event(&Event::NoCarrier), "");
    assert_eq!(bench.client.words(), "no cable");
    assert_eq!(bench.client.deadline(), Some(Duration::from_secs(3600)));
    bench.now = Duration::from_secs(200);
    assert_eq!(bench.event(&Event::Carrier), "request");
    assert_eq!(bench.event(&Event::NoCarrier), "");
    assert_eq!(bench.at(3600), "deconfigure");
    assert_eq!(bench.client.deadline(), None);
}

#[test]
fn strangers_and_late_answers_change_nothing() {
    let mut bench = Bench::new(None);
    bench.event(&Event::Carrier);
    assert_eq!(bench.answer(MessageType::Ack, |_| ()), "");
    assert_eq!(bench.answer(MessageType::Nak, |_| ()), "");
    assert_eq!(
        bench.answer(MessageType::Offer, |m| {
            m.set_xid(1);
        }),
        ""
    );
    bench.answer(MessageType::Offer, |_| ());
    let other = |m: &mut Message| {
        m.opts_mut().insert(DhcpOption::ServerIdentifier([192, 168, 7, 9].into()));
    };
    assert_eq!(bench.answer(MessageType::Nak, other), "");
    assert_eq!(bench.answer(MessageType::Ack, other), "");
    assert_eq!(
        bench.answer(MessageType::Ack, |m| {
            m.set_yiaddr([192, 168, 7, 51]);
        }),
        ""
    );
    assert_eq!(bench.answer(MessageType::Ack, |_| ()), "configure");
    assert_eq!(bench.at(1800), "renew");
    assert_eq!(bench.answer(MessageType::Nak, other), "");
    assert_eq!(bench.answer(MessageType::Nak, |_| ()), "deconfigure discover");
}

#[test]
fn a_lease_without_end_never_asks_again() {
    let mut bench = Bench::new(None);
    bench.event(&Event::Carrier);
    let forever = |m: &mut Message| {
        m.opts_mut().insert(DhcpOption::AddressLeaseTime(u32::MAX));
    };
    bench.answer(MessageType::Offer, forever);
    assert_eq!(bench.answer(MessageType::Ack, forever), "configure");
    assert_eq!(bench.client.deadline(), None);
}

proptest! {
    /// Whatever comes in whatever order: an address is taken away as often as it must, and the
    /// client always either waits for a point in time or has no reason to.
    #[test]
    fn no_order_of_events_strands_the_client(
        steps in proptest::collection::vec((0u8..7, 0u64..900, any::<u32>()), 1..80),
    ) {
        let mut bench = Bench::new(None);
        let mut has_address = false;
        for (step, seconds, random) in steps {
            bench.now += Duration::from_secs(seconds);
            match step {
                0 => bench.event(&Event::Carrier),
                1 => bench.event(&Event::NoCarrier),
                2 => bench.answer(MessageType::Offer, |_| ()),
                3 => bench.answer(MessageType::Ack, |_| ()),
                4 => bench.answer(MessageType::Nak, |_| ()),
                5 => bench.answer(MessageType::Ack, |m| { m.set_yiaddr(random); }),
                _ => bench.event(&Event::Time),
            };
            for action in &bench.said {
                match action {
                    Action::Configure(_) => has_address = true,
                    Action::Deconfigure => {
                        prop_assert!(has_address);
                        has_address = false;
                    }
                    _ => {}
                }
            }
            if bench.client.lease().is_some() {
                prop_assert!(has_address);
            }
            let deadline = bench.client.deadline();
            prop_assert!(deadline.is_none_or(|at| at > bench.now), "{:?}", bench.client);
            prop_assert!(deadline.is_some() || (bench.client.state == State::Down && !has_address));
        }
    }
}

//! Two sides that keep the rules, and what arrives.

use super::*;
use std::collections::BTreeMap;

/// A guest that keeps the rules, and the host's sockets, with what each wrote and read.
struct World {
    table: Table,
    guests: BTreeMap<Id, Guest>,
    hosts: BTreeMap<Id, Host>,
}

#[derive(Default)]
struct Guest {
    ports: (u32, u32),
    begin: u32,
    wrote: Vec<u8>,
    /// In its buffer, and read by its program.
    buffer: Vec<u8>,
    read: Vec<u8>,
    /// What the host told.
    host_alloc: u32,
    host_forwarded: u32,
    ended: bool,
}

#[derive(Default)]
struct Host {
    wrote: Vec<u8>,
    taken: usize,
    read: Vec<u8>,
}

const GUEST_BUFFER: usize = 3000;

impl World {
    fn new(connections: usize, begin: u32) -> Self {
        let mut table = Table::new(CID, false);
        let (mut guests, mut hosts) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..connections {
            let (id, ports) = open(&mut table);
            table.connections.get_mut(&id).unwrap().begin_at(begin);
            let guest = Guest {
                ports,
                begin,
                host_alloc: LARGE_WINDOW,
                host_forwarded: begin,
                ..Guest::default()
            };
            guests.insert(id, guest);
            hosts.insert(id, Host::default());
        }
        let mut world = Self { table, guests, hosts };
        for id in world.ids() {
            world.tell(id, op::CREDIT_UPDATE, &[]);
        }
        world
    }

    fn ids(&self) -> Vec<Id> {
        self.guests.keys().copied().collect()
    }

    fn tell(&mut self, id: Id, op: u16, data: &[u8]) -> Option<Action> {
        let guest = &self.guests[&id];
        let mut packet = header(op, guest.ports);
        packet.len = u32::try_from(data.len()).unwrap();
        packet.buf_alloc = GUEST_BUFFER as u32;
        packet.fwd_cnt = guest.begin.wrapping_add(guest.read.len() as u32);
        let action = self.table.guest(&packet, Some(data));
        assert_ne!(action, Some(Action::Close(id)), "a guest that keeps the rules is kept");
        action
    }

    /// The guest's program writes, as far as the credit goes.
    fn guest_writes(&mut self, id: Id, count: usize) {
        let guest = self.guests.get_mut(&id).unwrap();
        let sent = guest.begin.wrapping_add(guest.wrote.len() as u32);
        let free = guest.host_alloc - sent.wrapping_sub(guest.host_forwarded);
        let count = count.min(free as usize);
        let from = guest.wrote.len();
        let data: Vec<u8> = (from..from + count).map(|at| (at % 251) as u8).collect();
        guest.wrote.extend_from_slice(&data);
        self.tell(id, op::RW, &data);
    }

    /// The guest's program reads.
    fn guest_reads(&mut self, id: Id, count: usize) {
        let guest = self.guests.get_mut(&id).unwrap();
        let count = count.min(guest.buffer.len());
        guest.read.extend(guest.buffer.drain(..count));
        self.tell(id, op::CREDIT_UPDATE, &[]);
    }

    fn host_writes(&mut self, id: Id, count: usize) {
        let host = self.hosts.get_mut(&id).unwrap();
        let from = host.wrote.len();
        host.wrote.extend((from..from + count).map(|at| (at % 241) as u8));
        self.table.readable(id);
    }

    /// The client reads: so the socket takes bytes.
    fn host_reads(&mut self, id: Id, count: usize) {
        let waits = self.table.outgoing(id);
        let count = count.min(waits.len());
        self.hosts.get_mut(&id).unwrap().read.extend_from_slice(&waits[..count]);
        self.table.flushed(id, count);
    }

    /// One packet goes to the guest; false: there was none.
    fn deliver(&mut self, room: usize) -> bool {
        let (id, packet) = match self.table.next() {
            None => return false,
            Some(Turn::Packet(packet)) => {
                let owner = self.guests.iter().find(|(_, g)| g.ports.1 == packet.src_port);
                (*owner.unwrap().0, packet)
            }
            Some(Turn::Data(id, most)) => {
                let host = self.hosts.get_mut(&id).unwrap();
                let count = most.min(room).min(host.wrote.len() - host.taken);
                if count == 0 {
                    self.table.unreadable(id);
                    return true;
                }
                let data = &host.wrote[host.taken..host.taken + count];
                let guest = self.guests.get_mut(&id).unwrap();
                guest.buffer.extend_from_slice(data);
                host.taken += count;
                assert!(guest.buffer.len() <= GUEST_BUFFER, "its credit is exceeded");
                (id, self.table.sent(id, count).unwrap())
            }
        };
        let guest = self.guests.get_mut(&id).unwrap();
        (guest.host_alloc, guest.host_forwarded) = (packet.buf_alloc, packet.fwd_cnt);
        match packet.op {
            op::CREDIT_REQUEST => drop(self.tell(id, op::CREDIT_UPDATE, &[])),
            op::SHUTDOWN => guest.ended = true,
            op::RST => panic!("a guest that keeps the rules is refused"),
            _ => {}
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = self.deliver(1000);
            for id in self.ids() {
                busy |= !self.table.outgoing(id).is_empty();
                busy |= !self.guests[&id].buffer.is_empty();
                self.host_reads(id, usize::MAX);
                if !self.guests[&id].buffer.is_empty() {
                    self.guest_reads(id, usize::MAX);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("it never settles");
    }
}

proptest! {
    /// Two sides that keep the rules, in any order of events, counters at any point: bytes arrive
    /// whole and in order, both ways, and no credit is ever exceeded.
    #[test]
    fn bytes_arrive_whole_and_in_order(
        begin in prop_oneof![Just(0), Just(u32::MAX - 1000), any::<u32>()],
        steps in prop::collection::vec((0usize..3, 0u8..5, 0usize..20_000), 1..120),
    ) {
        let mut world = World::new(3, begin);
        let ids = world.ids();
        for (which, what, count) in steps {
            let id = ids[which];
            match what {
                0 => world.guest_writes(id, count),
                1 => world.guest_reads(id, count),
                2 => world.host_writes(id, count),
                3 => world.host_reads(id, count),
                _ => { world.deliver(count.max(1)); }
            }
        }
        world.settle();
        for id in &ids {
            prop_assert_eq!(world.table.host_shuts(*id, NO_SEND, Instant::now()), None);
        }
        world.settle();
        for id in ids {
            let (guest, host) = (&world.guests[&id], &world.hosts[&id]);
            prop_assert!(guest.read == host.wrote, "host to guest");
            prop_assert!(host.read == guest.wrote, "guest to host");
            prop_assert!(guest.ended);
            // After a pause a guest may always write again.
            let sent = guest.begin.wrapping_add(guest.wrote.len() as u32);
            let free = guest.host_alloc - sent.wrapping_sub(guest.host_forwarded);
            prop_assert!(free >= LARGE_WINDOW / 2, "{free}");
        }
    }
}

//! Simulated vCPUs under every order of calls, and real ones with a few bytes of guest.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// What all simulated vCPUs of a machine share.
#[derive(Default)]
struct World {
    inside: AtomicUsize,
    entries: AtomicU64,
    gone_on: AtomicU64,
    held: Mutex<()>,
    /// How one of them ends the VM, if it shall.
    end: Mutex<Option<Ending>>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Bell for Flag {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }
}

/// A guest that never leaves by itself, like `jmp .`; what it holds tells that it was let go.
struct Simulated {
    bell: Arc<Flag>,
    world: Arc<World>,
    _held: Arc<()>,
}

impl Cpu for Simulated {
    fn run(&mut self) -> Result<Exit, Ending> {
        self.world.inside.fetch_add(1, Ordering::SeqCst);
        self.world.entries.fetch_add(1, Ordering::SeqCst);
        // An exit to a device that holds a lock for a moment.
        drop(self.world.held.lock().unwrap());
        let ended = loop {
            if self.bell.0.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(ending) = self.world.end.lock().unwrap().take() {
                break Some(ending);
            }
            std::thread::sleep(Duration::from_micros(20));
        };
        self.world.inside.fetch_sub(1, Ordering::SeqCst);
        ended.map_or(Ok(Exit::Other), Err)
    }

    fn goes_on(&mut self) {
        self.world.gone_on.fetch_add(1, Ordering::SeqCst);
    }

    fn bell(&mut self) -> Arc<dyn Bell> {
        self.bell.clone()
    }
}

struct Bench {
    world: Arc<World>,
    lifecycle: Arc<Lifecycle>,
    cpus: Cpus,
    held: Arc<()>,
}

fn bench(count: usize) -> Bench {
    let (world, held) = (Arc::new(World::default()), Arc::new(()));
    let lifecycle = Arc::new(Lifecycle::new().unwrap());
    let one = |_| -> Box<dyn Cpu> {
        Box::new(Simulated { bell: Arc::default(), world: world.clone(), _held: held.clone() })
    };
    let stats = Arc::new(Stats::new(Instant::now()));
    let cpus = Cpus::start((0..count).map(one).collect(), &lifecycle, &stats, || {}).unwrap();
    Bench { world, lifecycle, cpus, held }
}

impl Bench {
    fn inside(&self) -> usize {
        self.world.inside.load(Ordering::SeqCst)
    }

    fn until_inside(&self, count: usize) {
        while self.inside() != count {
            std::thread::yield_now();
        }
    }
}

#[test]
fn at_rest_no_guest_runs_and_afterwards_each_goes_on() {
    let bench = bench(4);
    for round in 1..200 {
        bench.cpus.pause().unwrap();
        assert_eq!(bench.inside(), 0);
        bench.cpus.pause().unwrap();
        bench.cpus.resume();
        bench.until_inside(4);
        assert_eq!(bench.world.gone_on.load(Ordering::SeqCst) % 4, 0, "round {round}");
    }
    bench.cpus.stop().unwrap();
    assert_eq!((bench.inside(), Arc::strong_count(&bench.held)), (0, 1));
    assert_eq!(bench.cpus.pause(), Err(RestError::Ended));
    bench.cpus.resume();
    bench.cpus.stop().unwrap();
}

#[test]
fn one_that_ended_the_vm_counts_as_resting() {
    let bench = bench(3);
    bench.until_inside(3);
    *bench.world.end.lock().unwrap() = Some(Ending::PowerOff);
    while bench.lifecycle.ending().is_none() {
        std::thread::yield_now();
    }
    bench.cpus.pause().unwrap();
    assert_eq!(bench.inside(), 0);
    bench.cpus.stop().unwrap();
    assert_eq!(bench.lifecycle.ending(), Some(&Ending::PowerOff));
}

#[test]
fn one_that_a_device_holds_up_is_told_and_the_others_go_on() {
    let bench = bench(2);
    bench.until_inside(2);
    bench.cpus.pause().unwrap();
    let held = bench.world.held.lock().unwrap();
    bench.cpus.resume();
    bench.until_inside(2);
    assert_eq!(bench.cpus.pause(), Err(RestError::HeldUp));
    drop(held);
    bench.until_inside(2);
    bench.cpus.pause().unwrap();
}

/// Pause, resume and end by many at once, while vCPUs end the VM: nobody waits for ever. A deadlock
/// shows as a test that doesn't end.
#[test]
fn any_order_of_calls_comes_to_an_end() {
    for round in 0..40u64 {
        let bench = bench(1 + usize::try_from(round % 5).unwrap());
        std::thread::scope(|scope| {
            for caller in 0..8u64 {
                let bench = &bench;
                scope.spawn(move || {
                    let mut dice = round * 8 + caller + 1;
                    for _ in 0..60 {
                        dice ^= dice << 13;
                        dice ^= dice >> 7;
                        dice ^= dice << 17;
                        match dice % 64 {
                            0 if round % 2 == 0 => drop(bench.cpus.stop()),
                            1 if round % 3 == 0 => {
                                *bench.world.end.lock().unwrap() = Some(Ending::Reboot);
                            }
                            2..30 => bench.cpus.resume(),
                            _ => drop(bench.cpus.pause()),
                        }
                    }
                });
            }
        });
        bench.cpus.stop().unwrap();
        assert_eq!((bench.inside(), Arc::strong_count(&bench.held)), (0, 1));
    }
}

#[cfg(target_arch = "x86_64")]
mod kvm {
    use super::*;
    use crate::vcpu::ImmediateExit;
    use kvm_ioctls::{Kvm, VcpuFd, VmFd};
    use vm_memory::{Bytes, GuestAddress};

    /// A vCPU in real mode without devices.
    struct Toy {
        vcpu: VcpuFd,
        bell: Arc<ImmediateExit>,
        entries: Arc<AtomicU64>,
        _memory: crate::memory::GuestMemory,
        _vm: VmFd,
    }

    impl Cpu for Toy {
        fn run(&mut self) -> Result<Exit, Ending> {
            self.entries.fetch_add(1, Ordering::SeqCst);
            match self.vcpu.run() {
                Ok(kvm_ioctls::VcpuExit::IoOut(..)) => Ok(Exit::PortWrite),
                Err(error) if error.errno() == libc::EINTR => Ok(Exit::Other),
                other => Err(Ending::Failed(format!("{other:?}"))),
            }
        }

        fn bell(&mut self) -> Arc<dyn Bell> {
            self.bell.clone()
        }
    }

    impl Drop for Toy {
        fn drop(&mut self) {
            self.bell.forget();
        }
    }

    fn toy(code: &[u8], entries: &Arc<AtomicU64>) -> Result<Toy, String> {
        let words = |error: kvm_ioctls::Error| error.to_string();
        let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).map_err(words)?;
        let memory = crate::memory::create(&[(GuestAddress(0), 1 << 20)]).unwrap();
        crate::memory::register(&vm, &memory).map_err(|error| error.to_string())?;
        memory.write_slice(code, GuestAddress(0x1000)).unwrap();
        let mut vcpu = vm.create_vcpu(0).map_err(words)?;
        let mut sregs = vcpu.get_sregs().map_err(words)?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).map_err(words)?;
        let regs = kvm_bindings::kvm_regs { rip: 0x1000, rflags: 2, ..Default::default() };
        vcpu.set_regs(&regs).map_err(words)?;
        let bell = Arc::new(ImmediateExit::of(&mut vcpu));
        Ok(Toy { vcpu, bell, entries: entries.clone(), _memory: memory, _vm: vm })
    }

    /// A guest that spins, and one that leaves all the time: each is brought to rest whatever it was
    /// about to do.
    #[test]
    fn real_guests_come_to_rest() {
        // jmp .          and: out 0x80, al; jmp .-2
        for (code, leaves) in [(&[0xeb, 0xfe][..], false), (&[0xe6, 0x80, 0xeb, 0xfc], true)] {
            let entries = Arc::new(AtomicU64::new(0));
            let toy = match toy(code, &entries) {
                Ok(toy) => toy,
                Err(why) => return eprintln!("skipped: no KVM for a toy guest here: {why}"),
            };
            let lifecycle = Arc::new(Lifecycle::new().unwrap());
            let stats = Arc::new(Stats::new(Instant::now()));
            let cpus = Cpus::start(vec![Box::new(toy)], &lifecycle, &stats, || {}).unwrap();
            let count = || entries.load(Ordering::SeqCst);
            let mut at_rest = 0;
            for _ in 0..300 {
                while count() == at_rest {
                    assert_eq!(lifecycle.ending(), None);
                    std::thread::yield_now();
                }
                cpus.pause().unwrap();
                at_rest = count();
                std::thread::sleep(Duration::from_micros(200));
                assert_eq!(count(), at_rest);
                cpus.resume();
            }
            cpus.stop().unwrap();
            assert_eq!(lifecycle.ending(), None);
            let outs = stats.report("").exits["port-write"];
            assert_eq!(outs > 0, leaves, "{outs} exits by the guest itself");
        }
    }
}

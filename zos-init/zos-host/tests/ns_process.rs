//! Starting processes in their fences, against the running kernel. Needs root.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use zos_host::process::{
    Capabilities, Exit, Namespace, Program, Resource, Root, Sandbox, Spawn, Step, c_string,
};

mod ended;

use ended::Ended;

// `reap` takes any child: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a program with its output in a pipe.
fn run(program: Program, arguments: &[&str], change: impl FnOnce(&mut Spawn<'_>)) -> Ended {
    run_with(program, arguments, &[], change)
}

fn run_with(
    program: Program,
    arguments: &[&str],
    more: &[(&OwnedFd, i32)],
    change: impl FnOnce(&mut Spawn<'_>),
) -> Ended {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let null = File::open("/dev/null").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spawn = Spawn {
        program,
        arguments: arguments.iter().map(|text| c_string(text).unwrap()).collect(),
        environment: vec![c_string("PATH=/usr/bin:/bin").unwrap()],
        listen_pid: true,
        descriptors: vec![(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2)],
        cgroup: None,
        user: 115,
        group: 115,
        capabilities: Capabilities::NONE,
        limits: vec![(Resource::Files, 64)],
        namespaces: Vec::new(),
        root: Root::Inherited,
        dir: None,
        sandbox: Sandbox::default(),
    };
    spawn.descriptors.extend(more.iter().map(|(fd, number)| (fd.as_fd(), *number)));
    change(&mut spawn);
    let child = spawn.start().unwrap();
    drop(writer);
    Ended::of(&child, reader)
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn path(path: &str) -> Program {
    Program::Path(c_string(path).unwrap())
}

#[test]
fn a_service_has_its_user_and_capabilities_only() {
    if !root() {
        return;
    }
    let ended =
        run(path("/bin/cat"), &["cat", "/proc/self/status", "/proc/self/limits"], |spawn| {
            spawn.capabilities = Capabilities::NONE.with("NET_ADMIN").unwrap();
        });
    assert_eq!((ended.exit, ended.failure), (Exit::Code(0), None), "{}", ended.output);
    let facts: BTreeMap<&str, &str> = ended
        .output
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    assert_eq!(facts["Uid"], "115\t115\t115\t115");
    assert_eq!(facts["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(facts[set], "0000000000001000", "{set}");
    }
    assert_eq!(facts["NoNewPrivs"], "1");
    assert_eq!(facts["SigBlk"], "0000000000000000");
    let ignored = u64::from_str_radix(facts["SigIgn"], 16).unwrap();
    assert_eq!(ignored >> 12 & 1, 0, "SIGPIPE");
    assert!(ended.output.contains("Max open files            64"), "{}", ended.output);
}

#[test]
fn it_works_where_it_is_told_to() {
    if !root() {
        return;
    }
    let ended = run(path("/bin/pwd"), &["pwd"], |spawn| {
        spawn.dir = Some(c_string("/usr/bin").unwrap());
    });
    assert_eq!((ended.exit, ended.output.as_str()), (Exit::Code(0), "/usr/bin\n"));
}

#[test]
fn only_named_descriptors_and_its_own_pid_arrive() {
    if !root() {
        return;
    }
    let (_keep, extra) = std::io::pipe().unwrap();
    let extra = OwnedFd::from(extra);
    let script = "echo $LISTEN_PID $$; ls /proc/self/fd; readlink /proc/$$/fd/5";
    let ended = run_with(path("/bin/sh"), &["sh", "-c", script], &[(&extra, 5)], |_| {});
    let lines: Vec<&str> = ended.output.lines().collect();
    let (told, own) = lines[0].split_once(' ').unwrap();
    assert_eq!(told, own);
    assert!(lines.last().unwrap().starts_with("pipe:"), "{lines:?}");
    // 3 is ls's own look at the folder.
    assert_eq!(&lines[1..6], ["0", "1", "2", "3", "5"]);
}

#[test]
fn a_jail_shows_nothing() {
    if !root() {
        return;
    }
    let named = std::env::var("ZOS_TEST_BUSYBOX").unwrap_or_default();
    // One that needs a loader can't run where there is no file.
    let is_static = |path: &&str| {
        let program = std::fs::read(path).unwrap_or_default();
        !program.is_empty() && !program.windows(7).any(|part| part == b"/ld-lin")
    };
    let Some(busybox) = [named.as_str(), "/bin/busybox"].into_iter().find(is_static) else {
        eprintln!("skipped: needs a static busybox at /bin/busybox or where ZOS_TEST_BUSYBOX says");
        return;
    };
    let busybox = File::open(busybox).unwrap();
    let script = "echo $LISTEN_PID $$; echo /*; echo x > /x; echo $?; mkdir /y; echo $?";
    let ended = run(Program::Descriptor(busybox.into()), &["sh", "-c", script], |spawn| {
        spawn.namespaces =
            vec![Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts];
        spawn.user = 20_007;
        spawn.root = Root::Empty {
            stage: c_string("/tmp").unwrap(),
            detach: vec![c_string("/proc").unwrap()],
            proc: false,
        };
    });
    assert_eq!(ended.failure, None, "{}", ended.output);
    assert!(ended.output.starts_with("1 1\n/*\n"), "{}", ended.output);
    assert_eq!(ended.output.lines().filter(|line| *line == "1").count(), 2, "{}", ended.output);

    // With a /proc of its own: itself as process 1, its descriptors, and nothing of the kernel's.
    let busybox = File::open([named.as_str(), "/bin/busybox"].into_iter().find(is_static).unwrap());
    let script =
        "echo /*; cd /proc; echo [0-9]* ; echo sys; echo sy*; echo self/fd/1; mkdir /y; echo $?";
    let ended = run(Program::Descriptor(busybox.unwrap().into()), &["sh", "-c", script], |spawn| {
        spawn.namespaces = vec![Namespace::Mount, Namespace::Pid];
        spawn.user = 20_007;
        let (stage, detach) = (c_string("/tmp").unwrap(), vec![c_string("/proc").unwrap()]);
        spawn.root = Root::Empty { stage, detach, proc: true };
    });
    assert_eq!(ended.failure, None, "{}", ended.output);
    assert!(ended.output.starts_with("/proc\n1\nsys\nsy*\nself/fd/1\n"), "{}", ended.output);
    assert!(ended.output.ends_with("1\n"), "{}", ended.output);
}

#[test]
fn what_fails_before_exec_is_told() {
    if !root() {
        return;
    }
    let ended = run(path("/nothing/here"), &["here"], |_| {});
    assert_eq!((ended.exit, ended.failure), (Exit::Code(127), Some(Step::Exec)));
    let ended = run(path("/bin/true"), &["true"], |spawn| {
        spawn.dir = Some(c_string("/nothing").unwrap());
    });
    assert_eq!((ended.exit, ended.failure), (Exit::Code(127), Some(Step::Folder)));
    let ended = run(path("/bin/true"), &["true"], |spawn| {
        spawn.namespaces = vec![Namespace::Mount];
        let (stage, detach) = (c_string("/nothing").unwrap(), Vec::new());
        spawn.root = Root::Empty { stage, detach, proc: false };
    });
    assert_eq!((ended.exit, ended.failure), (Exit::Code(127), Some(Step::Root)));
}

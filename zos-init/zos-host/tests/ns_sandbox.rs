//! Processes in their sandboxes, against the running kernel. Needs root.
//!
//! The programs in the fence are Debian's and this test itself: started with `ZOS_TEST_CALL`, it makes one system
//! call and tells the answer.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nix::libc;
use zos_host::mount::{self, MountFlags, UnmountFlags};
use zos_host::process::{
    Capabilities, Exit, Mounts, Paths, Profile, Program, Root, Sandbox, Spawn, Step, c_string,
    landlock,
};

mod ended;

use ended::Ended;

// `reap` takes any child, and mounts are everybody's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn start(arguments: &[&str], environment: &[&str], user: u32, sandbox: Sandbox) -> Ended {
    let null = File::open("/dev/null").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let strings = |texts: &[&str]| texts.iter().map(|text| c_string(text).unwrap()).collect();
    let child = Spawn {
        program: Program::Path(c_string(arguments[0]).unwrap()),
        arguments: strings(arguments),
        environment: strings(&[environment, &["PATH=/usr/bin:/bin", "LC_ALL=C"]].concat()),
        listen_pid: false,
        descriptors: vec![(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2)],
        cgroup: None,
        user,
        group: user,
        capabilities: Capabilities::NONE,
        limits: Vec::new(),
        namespaces: Vec::new(),
        root: Root::Inherited,
        dir: None,
        sandbox,
    }
    .start()
    .unwrap();
    drop(writer);
    Ended::of(&child, reader)
}

fn shell(script: &str, user: u32, sandbox: Sandbox) -> Ended {
    start(&["/bin/sh", "-c", script], &[], user, sandbox)
}

fn list(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn mounts(read_only: &[&str], writable: &[&str], private: &[&str], hidden: &[&str]) -> Sandbox {
    let [read_only, writable, private, hidden] = [read_only, writable, private, hidden].map(list);
    let mounts = Mounts::new(&read_only, &writable, &private, &hidden).unwrap();
    Sandbox { mounts: Some(mounts), ..Sandbox::default() }
}

fn paths(read: Option<&[&str]>, write: Option<&[&str]>, exec: Option<&[&str]>) -> Sandbox {
    let [read, write, exec] = [read, write, exec].map(|paths| paths.map(list));
    let rules = Paths { read, write, exec }.ruleset("/bin/sh").unwrap();
    Sandbox { paths: Some(rules.expect("landlock")), ..Sandbox::default() }
}

/// One test at a time, as root; `None`: skipped.
fn alone() -> Option<std::sync::MutexGuard<'static, ()>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

// ---- system calls

/// Not a test of its own: what [`calling`] starts.
#[test]
fn makes_a_call() {
    let Ok(call) = std::env::var("ZOS_TEST_CALL") else { return };
    let numbers: Vec<i64> = call.split(' ').map(|number| number.parse().unwrap()).collect();
    let [call, a, b, c] = numbers[..] else { panic!("{call}") };
    // SAFETY: the callers below pass integers only, and where a pointer is wanted, null.
    let done = unsafe { libc::syscall(call, a, b, c, 0_i64, 0_i64) };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    println!("answer: {}", if done == -1 { -i64::from(error) } else { 0 });
}

/// Profile, call, its arguments, its end.
type Row = (Profile, i64, [i64; 3], (Exit, Option<i64>));

/// Makes a system call in a profile: its exit and, if it came back, 0 or minus its error.
fn calling(profile: Profile, call: i64, arguments: [i64; 3]) -> (Exit, Option<i64>) {
    let [a, b, c] = arguments;
    let own = std::env::current_exe().unwrap();
    let sandbox = Sandbox { seccomp: Some(profile), ..Sandbox::default() };
    let ended = start(
        &[own.to_str().unwrap(), "--exact", "makes_a_call", "--nocapture", "--test-threads=1"],
        &[&format!("ZOS_TEST_CALL={call} {a} {b} {c}")],
        // The test program lies where only its owner may look.
        0,
        sandbox,
    );
    assert_eq!(ended.failure, None, "{ended:?}");
    let answer = ended.output.lines().find_map(|line| line.split_once("answer: "));
    (ended.exit, answer.map(|(_, number)| number.parse().unwrap()))
}

#[test]
fn what_is_hostile_kills_and_what_is_not_listed_fails() {
    let Some(_alone) = alone() else { return };
    const SIGSYS: i32 = libc::SIGSYS;
    let killed = (Exit::Signal(SIGSYS), None);
    let answered = |answer: i32| (Exit::Code(0), Some(i64::from(answer)));
    let newuser = i64::from(libc::CLONE_NEWUSER);
    let rows: &[Row] = &[
        (Profile::Net, libc::SYS_getpid, [0; 3], answered(0)),
        (Profile::Net, libc::SYS_mount, [0; 3], killed),
        (Profile::Net, libc::SYS_unshare, [newuser, 0, 0], killed),
        (Profile::Net, libc::SYS_ptrace, [0; 3], killed),
        (Profile::Net, libc::SYS_keyctl, [0; 3], killed),
        (Profile::Net, libc::SYS_bpf, [0; 3], killed),
        (Profile::Storage, libc::SYS_reboot, [0; 3], killed),
        (Profile::Storage, libc::SYS_kexec_load, [0; 3], killed),
        // A profile that allows it leaves the answer to the kernel.
        (Profile::Storage, libc::SYS_mount, [0; 3], answered(-libc::EFAULT)),
        (Profile::Storage, libc::SYS_mprotect, [0, 0, 4], answered(0)),
        (Profile::Net, libc::SYS_io_uring_setup, [1, 0, 0], answered(-libc::EPERM)),
        (Profile::Net, libc::SYS_setuid, [0; 3], answered(-libc::EPERM)),
        (Profile::Net, libc::SYS_clone, [newuser, 0, 0], answered(-libc::EPERM)),
        (Profile::Net, libc::SYS_clone3, [0; 3], answered(-libc::ENOSYS)),
        (Profile::Net, libc::SYS_socket, [40, 1, 0], answered(-libc::EPERM)),
        (Profile::Net, libc::SYS_socket, [16, 3, 0], answered(0)),
    ];
    for (profile, call, arguments, expected) in rows {
        let got = calling(*profile, *call, *arguments);
        assert_eq!(got, *expected, "{profile:?} {call} {arguments:?}");
    }
    let told = Exit::Signal(SIGSYS).to_string();
    assert_eq!(told, "signal 31 (SYS: a system call that its seccomp profile forbids)");
}

#[test]
fn a_daemon_maps_no_code() {
    let Some(_alone) = alone() else { return };
    // The shell's loader maps libraries, which `daemon` has no use for: ours are linked statically.
    let sandbox = |profile| Sandbox { seccomp: Some(profile), ..Sandbox::default() };
    let ended = shell("echo on", 115, sandbox(Profile::Daemon));
    assert_ne!(ended.exit, Exit::Code(0), "{ended:?}");
    assert!(!ended.output.contains("on\n"), "{ended:?}");
}

#[test]
fn ordinary_programs_run_in_the_profiles_that_run_programs() {
    let Some(_alone) = alone() else { return };
    let script = "cd /tmp; f=$(mktemp); echo a > $f; cp $f $f.2; sort $f.2; ls /proc/self/fd | wc -l; \
                  rm $f $f.2; sleep 0.01; true & wait";
    for profile in [Profile::Net, Profile::Storage] {
        let ended = shell(script, 115, Sandbox { seccomp: Some(profile), ..Sandbox::default() });
        assert_eq!((ended.exit, ended.output.as_str()), (Exit::Code(0), "a\n4\n"), "{profile:?}");
    }
    // A child of the fenced one is fenced as well.
    let sandbox = Sandbox { seccomp: Some(Profile::Net), ..Sandbox::default() };
    let ended = shell("unshare -U true; echo $?", 115, sandbox);
    assert!(ended.output.ends_with("159\n"), "{ended:?}");
}

// ---- paths

const SYSTEM: &[&str] = &["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null"];

#[test]
fn landlock_leaves_the_paths_that_are_listed() {
    let Some(_alone) = alone() else { return };
    assert!(landlock::supported(), "this kernel has no landlock");
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().to_str().unwrap();
    let check = |script: &str, expected: &str, sandbox: Sandbox| {
        let ended = shell(script, 0, sandbox);
        assert_eq!((ended.failure, ended.output.as_str()), (None, expected), "{script}");
    };
    // As root: the bits of files and folders allow all of it.
    let read = "head -c1 /etc/shadow >/dev/null 2>&1; echo $?; head -c4 /usr/bin/env | wc -c";
    check(read, "0\n4\n", Sandbox::default());
    check(read, "1\n4\n", paths(Some(SYSTEM), None, None));
    let write = format!("echo a > {inside}/f; echo $?; (echo a > /tmp/f) 2>/dev/null; echo $?");
    check(&write, "0\n2\n", paths(None, Some(&[inside, "/dev/null"]), None));
    let _ = fs::remove_file("/tmp/f");
    let exec = "/usr/bin/id -u; /usr/bin/env true 2>/dev/null; echo $?";
    let some = &["/lib", "/lib64", "/usr/lib", "/usr/bin/id"][..];
    check(exec, "0\n126\n", paths(None, None, Some(some)));
    // What is private is allowed by that.
    let private = Mounts::new(&[], &[], &list(&["/tmp"]), &[]).unwrap();
    let some = paths(Some(SYSTEM), Some(&["/dev/null"]), Some(SYSTEM));
    let both = Sandbox { mounts: Some(private), ..some };
    check("echo a > /tmp/f; cat /tmp/f; (echo a > /var/f) 2>/dev/null; echo $?", "a\n2\n", both);
    // Nodes are made under no list, and no signal leaves the fence.
    let sandbox = paths(None, None, Some(SYSTEM));
    let script = format!("kill -0 {} 2>/dev/null; echo $?", std::process::id());
    check(&script, "1\n", sandbox);
}

#[test]
fn a_rule_does_not_cover_what_is_mounted_over_it_later() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let rules = || paths(None, Some(&[place, "/dev/null"]), None);
    let script = format!("(echo a > {place}/f) 2>/dev/null; echo $?");
    assert_eq!(shell(&script, 0, rules()).output, "0\n");
    let before = rules();
    mount::mount("tmpfs", place, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
    let (late, now) = (shell(&script, 0, before), shell(&script, 0, rules()));
    mount::unmount(place, UnmountFlags::DETACH).unwrap();
    assert_eq!((late.output.as_str(), now.output.as_str()), ("2\n", "0\n"));
}

// ---- mounts

#[test]
fn private_and_hidden_and_read_only() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for name in ["tmp", "secret", "own"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), "words").unwrap();
    }
    let at = |name: &str| format!("{path}/{name}");
    let (tmp, secret, own, key) = (at("tmp"), at("secret"), at("own"), at("own/file"));
    let check = |script: &str, expected: &str, sandbox: Sandbox| {
        let ended = shell(&format!("exec 2>/dev/null; cd {path}; {script}"), 0, sandbox);
        assert_eq!((ended.failure, ended.output.as_str()), (None, expected), "{script}");
    };
    check(
        "ls tmp; echo a > tmp/x; cat tmp/x; cp /bin/true tmp; tmp/true; echo $?",
        "a\n126\n",
        mounts(&[], &[], &[&tmp], &[]),
    );
    assert!(!Path::new(&tmp).join("x").exists(), "what is private is gone");
    check(
        "ls secret; echo a > secret/x; echo $?; wc -c < own/file",
        "2\n0\n",
        mounts(&[], &[], &[], &[&secret, &key]),
    );
    check(
        "echo a > tmp/x; echo $?; echo a > own/x; echo $?; rm own/x; cat own/file",
        "2\n0\nwords",
        mounts(&["/"], &[&own], &[], &[]),
    );
    check("echo a > own/x; echo $?; cat own/file", "2\nwords", mounts(&[&own], &[], &[], &[]));
    // What is not there is no reason to fail.
    check("echo on", "on\n", mounts(&["/nothing"], &["/nothing"], &["/nothing"], &["/nothing"]));
}

#[test]
fn what_is_mounted_later_arrives_with_its_own_flags() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    let shared = shared.to_str().unwrap();
    // As PID 1 does it for the whole tree: a shared mount, on which others mount later.
    mount::mount("tmpfs", shared, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
    mount::make_shared(shared).unwrap();
    let (state, hidden, go) =
        (format!("{shared}/state"), format!("{shared}/hidden"), format!("{shared}/go"));
    fs::create_dir(&state).unwrap();
    fs::create_dir(&hidden).unwrap();
    let script = format!(
        "while ! test -e {go}; do sleep 0.01; done; echo a > {state}/x; echo $?; ls {hidden}; \
         (echo a > {shared}/y) 2>/dev/null; echo $?"
    );
    for writable in [&[][..], &[state.as_str()][..]] {
        let sandbox = mounts(&["/"], writable, &[], &[&hidden]);
        let ended = std::thread::scope(|scope| {
            let child = scope.spawn(|| shell(&script, 0, sandbox));
            std::thread::sleep(Duration::from_millis(200));
            mount::mount("tmpfs", &state, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
            mount::mount("tmpfs", &hidden, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
            fs::write(format!("{hidden}/seen"), "").unwrap();
            fs::write(&go, "").unwrap();
            child.join().unwrap()
        });
        assert_eq!((ended.failure, ended.output.as_str()), (None, "0\n2\n"), "{writable:?}");
        // The next one starts when it is mounted already.
        let again = shell(&script, 0, mounts(&["/"], &[&state], &[], &[&hidden]));
        assert_eq!((again.failure, again.output.as_str()), (None, "0\n2\n"), "{writable:?}");
        let barred = shell(&script, 0, mounts(&["/"], &[], &[], &[&hidden]));
        assert!(barred.output.ends_with("2\n2\n"), "{barred:?}");
        fs::remove_file(&go).unwrap();
        mount::unmount(&state, UnmountFlags::empty()).unwrap();
        mount::unmount(&hidden, UnmountFlags::empty()).unwrap();
    }
    mount::unmount(shared, UnmountFlags::empty()).unwrap();
}

/// A disk is lost and another takes its place, as the state's copies do, after a daemon was started again.
#[test]
fn what_is_mounted_in_place_of_another_is_seen_and_what_is_unmounted_let_go() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    let shared = shared.to_str().unwrap();
    mount::mount("tmpfs", shared, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
    mount::make_shared(shared).unwrap();
    let (state, go) = (format!("{shared}/state"), format!("{shared}/go"));
    fs::create_dir(&state).unwrap();
    let one = |name: &str| {
        mount::mount("tmpfs", &state, "tmpfs", MountFlags::empty(), "size=64k").unwrap();
        fs::write(format!("{state}/{name}"), "").unwrap();
    };
    let script = format!(
        "ls {state}; echo a > {state}/x; echo $?; while ! test -e {go}; do sleep 0.01; done; \
         ls {state}; echo a > {state}/x; echo $?; grep -c {state} /proc/self/mountinfo; \
         (echo a > {shared}/y) 2>/dev/null; echo $?"
    );
    one("first");
    let ended = std::thread::scope(|scope| {
        let child = scope.spawn(|| shell(&script, 0, mounts(&["/"], &[&state], &[], &[])));
        until_there(&format!("{state}/x"));
        mount::unmount(&state, UnmountFlags::DETACH).unwrap();
        one("second");
        fs::write(&go, "").unwrap();
        child.join().unwrap()
    });
    let expected = "first\n0\nsecond\n0\n1\n2\n";
    assert_eq!((ended.failure, ended.output.as_str()), (None, expected));
    // Beneath what hides it, too.
    fs::remove_file(&go).unwrap();
    let script = format!(
        "grep -c {state} /proc/self/mountinfo; touch {shared}/ready; \
         while ! test -e {go}; do sleep 0.01; done; \
         grep -c {state} /proc/self/mountinfo"
    );
    let ended = std::thread::scope(|scope| {
        let child = scope.spawn(|| shell(&script, 0, mounts(&["/"], &[shared], &[], &[&state])));
        until_there(&format!("{shared}/ready"));
        mount::unmount(&state, UnmountFlags::DETACH).unwrap();
        fs::write(&go, "").unwrap();
        child.join().unwrap()
    });
    assert_eq!((ended.failure, ended.output.as_str()), (None, "2\n1\n"));
    mount::unmount(shared, UnmountFlags::empty()).unwrap();
}

fn until_there(path: &str) {
    while !Path::new(path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

// ---- failures

#[test]
fn what_the_fence_failed_at_is_told() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let sandbox = mounts(&[], &[], &[gone.to_str().unwrap()], &[]);
    fs::remove_dir(&gone).unwrap();
    let ended = shell("true", 0, sandbox);
    assert_eq!((ended.exit, ended.failure), (Exit::Code(127), Some(Step::Mounts)));

    // Landlock and seccomp want no_new_privs, or a capability that is gone by then.
    let sandbox = Sandbox { no_new_privs: false, ..paths(None, None, Some(SYSTEM)) };
    assert_eq!(shell("true", 115, sandbox).failure, Some(Step::Paths));
    let sandbox =
        Sandbox { no_new_privs: false, seccomp: Some(Profile::Net), ..Sandbox::default() };
    assert_eq!(shell("true", 115, sandbox).failure, Some(Step::Seccomp));

    // A program that landlock doesn't let be executed.
    let own = std::env::current_exe().unwrap();
    let rules = Paths { exec: Some(Vec::new()), ..Paths::default() }.ruleset("/bin/sh").unwrap();
    let ended =
        start(&[own.to_str().unwrap()], &[], 0, Sandbox { paths: rules, ..Sandbox::default() });
    assert_eq!(ended.failure, Some(Step::Exec));
}

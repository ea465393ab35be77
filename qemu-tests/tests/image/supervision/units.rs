//! The units that the tests of supervision add to an image: services that behave badly, and files that are wrong.
//!
//! `when` holds a service back until the test wants it (`/run/act/<name>`).

/// The smallest program there is: `_exit(0)`, as an ELF file of one segment (ELF-64 object file format; x86-64: number
/// 60 is `exit`). Ten thousand of anything larger would take minutes.
pub(crate) fn nothing() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let code = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, value: u16| elf.extend(value.to_le_bytes());
    let long = |elf: &mut Vec<u8>, value: u64| elf.extend(value.to_le_bytes());
    half(&mut elf, 2); // an executable
    half(&mut elf, 62); // x86-64
    elf.extend(1_u32.to_le_bytes());
    long(&mut elf, BASE + 120); // entry
    long(&mut elf, 64); // program headers
    long(&mut elf, 0); // no sections
    elf.extend(0_u32.to_le_bytes());
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut elf, value);
    }
    let size = 120 + code.len() as u64;
    elf.extend(1_u32.to_le_bytes()); // loaded,
    elf.extend(5_u32.to_le_bytes()); // readable and executable
    for value in [0, BASE, BASE, size, size, 4096] {
        long(&mut elf, value);
    }
    elf.extend(code);
    elf
}

/// Services that behave badly, by name.
pub(crate) const BAD: [(&str, &str); 12] = [
    (
        "forking",
        r#"
exec = ["/bin/zos-probe", "act", "when", "forking", "fork"]
user = "root"
restart = "never"
"#,
    ),
    (
        "deaf",
        r#"
exec = ["/bin/zos-probe", "act", "deaf"]
user = "root"
ready = "fd"
stop-timeout = "2s"
"#,
    ),
    (
        "flooding",
        r#"
exec = ["/bin/zos-probe", "act", "when", "flooding", "flood", "100"]
user = "root"
restart = "never"
log = { ring = "64KiB" }
"#,
    ),
    (
        "crashing",
        r#"
exec = ["/bin/zos-probe", "act", "exit", "3"]
user = "root"
backoff = { first = "20ms", longest = "100ms" }
crash-budget = { crashes = 5, within = "1min" }
retry = "never"
"#,
    ),
    (
        "eating",
        r#"
exec = ["/bin/zos-probe", "act", "when", "eating", "eat"]
user = "root"
restart = "never"
cgroup = { memory-max = "32MiB" }
"#,
    ),
    (
        "breeding",
        r#"
exec = ["/bin/zos-probe", "act", "when", "breeding", "zombies", "10000", "/bin/nothing"]
user = "root"
restart = "never"
cgroup = { pids-max = 20000 }
"#,
    ),
    (
        "silent",
        r#"
exec = ["/bin/zos-probe", "act", "sleep"]
user = "root"
ready = "fd"
watchdog = "2s"
crash-budget = { crashes = 1000, within = "1min" }
"#,
    ),
    (
        "unwell",
        r#"
exec = ["/bin/zos-probe", "act", "sleep"]
user = "root"
ready = "fd"
liveness = { exec = ["/bin/zos-probe", "act", "exit", "1"], every = "500ms", timeout = "5s", failures = 2 }
crash-budget = { crashes = 1000, within = "1min" }
"#,
    ),
    (
        "stuck",
        r#"
exec = ["/bin/zos-probe", "act", "sleep"]
user = "root"
ready = "fd"
liveness = { exec = ["/bin/zos-probe", "act", "deaf"], every = "500ms", timeout = "500ms", failures = 2 }
crash-budget = { crashes = 1000, within = "1min" }
"#,
    ),
    (
        "preparing",
        r#"
exec = ["/bin/zos-probe", "act", "fail", "2", "/run/preparing"]
user = "root"
oneshot = true
restart = "on-failure"
backoff = { first = "50ms", longest = "100ms" }
"#,
    ),
    (
        "hopeless",
        r#"
exec = ["/bin/zos-probe", "act", "fail", "4", "/run/hopeless"]
user = "root"
oneshot = true
restart = "on-failure"
backoff = { first = "50ms", longest = "100ms" }
crash-budget = { crashes = 2, within = "1min" }
retry = "3s"
"#,
    ),
    (
        "patient",
        r#"
exec = ["/bin/zos-probe", "act", "sleep"]
user = "root"
requires = ["preparing", "hopeless"]
"#,
    ),
];

/// Unit files that are wrong: name, text, the line (0: the whole file) and what must be said of it.
pub(crate) const WRONG: [(&str, &str, usize, &str); 14] = [
    ("x-key", "exec = [\"/bin/x\"]\nuser = \"root\"\nrestrat = \"never\"\n", 3, "restart"),
    ("x-toml", "user = \"root\"\nexec = [\n", 2, ""),
    ("x-type", "exec = \"/bin/x\"\nuser = \"root\"\n", 1, "exec"),
    ("x-empty", "", 0, "exec"),
    ("x-relative", "exec = [\"x\"]\nuser = \"root\"\n", 1, "absolute"),
    ("x-user", "exec = [\"/bin/x\"]\nuser = \"nobody-knows\"\n", 2, "nobody-knows"),
    ("x-time", "exec = [\"/bin/x\"]\nuser = \"root\"\nstop-timeout = \"a while\"\n", 3, "a while"),
    ("x-word", "exec = [\"/bin/x\"]\nuser = \"root\"\nrestart = \"sometimes\"\n", 3, "on-failure"),
    ("x-signal", "exec = [\"/bin/x\"]\nuser = \"root\"\nstop-signal = \"WAVE\"\n", 3, "WAVE"),
    (
        "x-capability",
        "exec = [\"/bin/x\"]\nuser = \"root\"\ncapabilities = [\"NET_ADMN\"]\n",
        3,
        "NET_ADMIN",
    ),
    (
        "x-size",
        "exec = [\"/bin/x\"]\nuser = \"root\"\ncgroup = { memory-max = \"12 apples\" }\n",
        3,
        "memory-max",
    ),
    (
        "x-part",
        "exec = [\"/bin/x\"]\nuser = \"root\"\ncgroup = { memory-maximum = 1 }\n",
        3,
        "memory-max",
    ),
    ("x-missing", "exec = [\"/bin/x\"]\nuser = \"root\"\nrequires = [\"nobody\"]\n", 0, "nobody"),
    (
        "x-profile",
        "exec = [\"/bin/x\"]\nuser = \"root\"\nsandbox = { seccomp = \"deamon\" }\n",
        3,
        "daemon",
    ),
];

/// Units that wait for each other in a ring.
pub(crate) const RING: [(&str, &str); 3] = [
    ("ring-a", "exec = [\"/bin/x\"]\nuser = \"root\"\nafter = [\"ring-c\"]\n"),
    ("ring-b", "exec = [\"/bin/x\"]\nuser = \"root\"\nafter = [\"ring-a\"]\n"),
    ("ring-c", "exec = [\"/bin/x\"]\nuser = \"root\"\nrequires = [\"ring-b\"]\n"),
];

//! What a service may not, in its fence: each daemon stands in its own, and a stranger in one gets no further.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Node, scene};

use crate::supervision::{says, until, wait_log};
use crate::vm::DAEMONS;

/// Root by its number, so that no bits of files stand in its way, in a fence like capacityd's.
const WALLED: &str = r#"
exec = [
    "/bin/zos-probe", "act", "try",
    "read", "/run/zos/settings.json",
    "read", "/etc/passwd",
    "write", "/run/zos/probe/own",
    "write", "/run/zos/other",
    "write", "/etc/zos/other",
    "write", "/tmp/own",
    "run", "/bin/nft",
    "list", "/sys/kernel",
    "list", "/state",
]
user = "root"
restart = "never"

[sandbox]
seccomp = "net"
read = ["/proc", "/run/zos", "/state", "/sys", "/dev/null"]
write = ["/run/zos/root", "/dev/null"]
exec = []
read-only = ["/"]
writable = ["/run/zos/root"]
private = ["/tmp"]
hidden = ["/state", "/sys/kernel"]
"#;

/// What it told: the program's words, and what the fence answered.
const TOLD: [(&str, &str); 9] = [
    ("read /run/zos/settings.json", "yes"),
    ("read /etc/passwd", "PermissionDenied"),
    ("write /run/zos/root/own", "yes"),
    ("write /run/zos/other", "ReadOnlyFilesystem"),
    ("write /etc/zos/other", "ReadOnlyFilesystem"),
    ("write /tmp/own", "yes"),
    ("run /bin/nft", "PermissionDenied"),
    ("list /sys/kernel", "NotFound"),
    // The folder that was named is covered by an empty one, which is another.
    ("list /state", "PermissionDenied"),
];

/// Hides without landlock: what is hidden is empty.
const HIDDEN: &str = r#"
exec = ["/bin/zos-probe", "act", "try", "list", "/sys/kernel", "list", "/state", "write", "/tmp/own", "write", "/x"]
user = "root"
restart = "never"
sandbox = { read-only = ["/"], private = ["/tmp"], hidden = ["/state", "/sys/kernel"] }
"#;

const HIDDEN_TOLD: [(&str, &str); 4] = [
    ("list /sys/kernel", "NotFound"),
    ("list /state", "NotFound"),
    ("write /tmp/own", "yes"),
    ("write /x", "ReadOnlyFilesystem"),
];

const MOUNTING: &str = r#"
exec = ["/bin/zos-probe", "act", "try", "mount", "/tmp"]
user = "root"
restart = "never"
sandbox = { seccomp = "daemon" }
"#;

#[test]
fn services_stay_in_their_fences() {
    scene("sandbox", |scene| {
        let plan = Node::with_disks([scene.disk("key", 4 * GIB)?]).with_probe();
        let walled = WALLED.replace("/run/zos/probe/own", "/run/zos/root/own");
        let plan = plan.with_unit("walled", &walled).with_unit("hidden", HIDDEN);
        let mut node = scene.start(&plan.with_unit("mounting", MOUNTING))?;
        let found = node.wait_ready()?;
        let lacking = found.faults.iter().find(|fault| fault.id == "landlock");
        ensure!(lacking.is_none(), "{lacking:?}");
        let probe = node.probe()?;
        for name in DAEMONS {
            fenced(probe, name)?;
        }
        for (unit, told) in [("walled", &TOLD[..]), ("hidden", &HIDDEN_TOLD)] {
            for (attempt, answer) in told {
                let line = wait_log(probe, unit, attempt)?;
                ensure!(line == format!("{attempt}: {answer}"), "{unit}: {line}, not {answer}");
            }
        }
        let ended = until(probe, "mounting", |unit| unit["exit"]["signal"] == 31)?;
        let cause = "a system call that its seccomp profile forbids";
        ensure!(says(&ended["unit"], cause), "the cause is not told: {ended}");
        ensure!(!probe.list("/tmp")?.contains(&"own".to_owned()), "what is private is seen");
        node.power_off()
    });
}

/// A daemon runs with filters, without new privileges, and on a tree that it can't change.
fn fenced(probe: &mut Probe, name: &str) -> Result<()> {
    let processes = probe.processes()?;
    let pid = processes.iter().find(|process| process["name"] == name);
    let pid = pid.with_context(|| format!("no {name} runs"))?["pid"].clone();
    let status = probe.read(&format!("/proc/{pid}/status"))?;
    let fact = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    // seccomp(2): 2 is SECCOMP_MODE_FILTER.
    let facts = [fact("Seccomp:"), fact("Seccomp_filters:"), fact("NoNewPrivs:")];
    ensure!(facts == ["2", "3", "1"], "{name} has filters and privileges {facts:?}");
    let mounts = probe.read(&format!("/proc/{pid}/mountinfo"))?;
    let options = |target: &str| {
        // proc_pid_mountinfo(5): id, parent, device, root, target, options. One that arrives beneath another is later
        // in the list; the topmost is nobody's parent there.
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let here: Vec<_> = fields.filter(|fields| fields.get(4) == Some(&target)).collect();
        // (The first mount of all is its own parent.)
        let top = here
            .iter()
            .find(|one| here.iter().all(|other| other[1] != one[0] || other[0] == one[0]));
        top.map(|fields| fields[5].to_owned()).unwrap_or_default()
    };
    if name == "storaged" {
        ensure!(options("/").starts_with("rw"), "storaged has a tree of its own: {mounts}");
        return Ok(());
    }
    ensure!(options("/").starts_with("ro"), "{name} can change the tree: {mounts}");
    // storaged mounted it when this daemon ran already, or it is hidden from it.
    let keeps = ["identityd", "netd", "provisiond"].contains(&name);
    let expected = if keeps { "rw" } else { "ro" };
    ensure!(options("/state").starts_with(expected), "{name} and /state: {mounts}");
    Ok(())
}

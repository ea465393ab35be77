//! The agent as its host meets it: the real program on a Unix socket, real processes.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use zos_agent::{
    Answer, Event, Exec, Exit, Frame, Host, HostError, Mount, PORT, Power, Request, Terminal, User,
};

struct Agent {
    dir: tempfile::TempDir,
    process: Child,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Who runs the tests may ignore SIGHUP (nohup does), and all that is started inherits that: no shell may trap it then.
        let process = Command::new("env")
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_zos-guest"), "agent"])
            .arg(dir.path().join("agent"))
            .spawn()
            .unwrap();
        Self { dir, process }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    fn stream(&self) -> UnixStream {
        loop {
            // Until it has bound its socket.
            match UnixStream::connect(self.path()) {
                Ok(stream) => return stream,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
    }

    fn host(&self) -> Host<UnixStream> {
        Host::new(self.stream())
    }

    fn run(&self, exec: Exec) -> (String, String, Exit) {
        let mut host = self.host();
        host.exec(exec).unwrap();
        to_the_end(&mut host)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn to_the_end(host: &mut Host<UnixStream>) -> (String, String, Exit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match host.event().unwrap() {
            Event::Stdout(bytes) => out.extend(bytes),
            Event::Stderr(bytes) => err.extend(bytes),
            Event::Exit(exit) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), exit);
            }
        }
    }
}

fn shell(script: &str) -> Exec {
    Exec {
        arguments: ["sh", "-c", script].map(String::from).to_vec(),
        environment: vec!["PATH=/usr/bin:/bin".into(), "A=b c".into()],
        ..Exec::default()
    }
}

#[test]
fn processes_with_their_outputs_and_ends() {
    let agent = Agent::start();
    let rows: &[(Exec, &str, &str, Exit)] = &[
        (shell("echo out; echo err >&2; exit 3"), "out\n", "err\n", Exit::Code(3)),
        (shell("echo \"$A\"; pwd; kill -9 $$"), "b c\n/\n", "", Exit::Signal(9)),
        (Exec { folder: Some("/usr".into()), ..shell("pwd") }, "/usr\n", "", Exit::Code(0)),
        (
            shell("env | grep -v -e ^_ -e ^PWD -e ^SHLVL -e ^OLDPWD | sort"),
            "A=b c\nPATH=/usr/bin:/bin\n",
            "",
            Exit::Code(0),
        ),
        // A signal's mask is nothing that a process inherits.
        (shell("grep SigBlk /proc/self/status"), "SigBlk:\t0000000000000000\n", "", Exit::Code(0)),
    ];
    for (exec, out, err, exit) in rows {
        let found = agent.run(exec.clone());
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2), (*out, *err, *exit));
    }
}

#[test]
fn what_cannot_run_says_why() {
    let agent = Agent::start();
    let program = |name: &str| Exec { arguments: vec![name.into()], ..Exec::default() };
    for (exec, word, code) in [
        (program("/no/such"), "/no/such: No such file", 127),
        (program("/etc/passwd"), "/etc/passwd: Permission denied", 126),
        (Exec { folder: Some("/no".into()), ..shell("true") }, "enter the folder /no", 126),
        (Exec { root: Some("/no".into()), ..shell("true") }, "enter the root /no", 126),
    ] {
        let (_, err, exit) = agent.run(exec);
        assert!(err.contains(word), "{err}");
        assert_eq!(exit, Exit::Code(code));
    }
    let error = agent.host().exec(Exec::default()).unwrap_err().to_string();
    assert!(error.contains("no arguments"), "{error}");
}

#[test]
fn input_signals_and_the_end_of_input() {
    let agent = Agent::start();
    let mut host = agent.host();
    host.exec(shell("cat; echo end")).unwrap();
    let long = vec![b'x'; 200_000];
    for piece in long.chunks(50_000) {
        host.send(&Frame::Stdin(piece.to_vec())).unwrap();
    }
    host.send(&Frame::Stdin(Vec::new())).unwrap();
    let (out, _, exit) = to_the_end(&mut host);
    assert_eq!((out.len(), exit), (200_004, Exit::Code(0)));

    let mut host = agent.host();
    host.exec(shell("trap 'echo told; exit 7' TERM; echo up; while :; do sleep 0.1; done"))
        .unwrap();
    assert_eq!(host.event().unwrap(), Event::Stdout(b"up\n".to_vec()));
    host.send(&Frame::Signal(15)).unwrap();
    let (out, _, exit) = to_the_end(&mut host);
    assert_eq!((out.as_str(), exit), ("told\n", Exit::Code(7)));
}

#[test]
fn a_terminal_is_one() {
    let agent = Agent::start();
    let mut host = agent.host();
    let terminal = Some(Terminal { rows: 10, columns: 33 });
    host.exec(Exec {
        terminal,
        ..shell("tty >&2; stty size; read x; echo \"got $x\"; stty size; cat")
    })
    .unwrap();
    host.send(&Frame::Resize { rows: 20, columns: 44 }).unwrap();
    host.send(&Frame::Stdin(b"hello\n".to_vec())).unwrap();
    // Ctrl-D ends the input of cat.
    host.send(&Frame::Stdin(Vec::new())).unwrap();
    let (out, err, exit) = to_the_end(&mut host);
    assert!(out.contains("/dev/pts/") && out.contains("got hello\r\n20 44\r\n"), "{out}");
    assert_eq!((err.as_str(), exit), ("", Exit::Code(0)));
}

#[test]
fn another_user_is_that_user_alone() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("left out: only root may become somebody else");
    }
    let agent = Agent::start();
    let user = Some(User { uid: 4321, gid: 1234, groups: vec![77] });
    let (out, ..) = agent.run(Exec { user, ..shell("id -u; id -g; id -G; echo x > /etc/owned") });
    assert_eq!(out, "4321\n1234\n1234 77\n");
    assert!(!Path::new("/etc/owned").exists());
}

/// A host that hangs up takes its process along, and what that one started in its group.
#[test]
fn hanging_up_ends_the_process() {
    let agent = Agent::start();
    let mark = agent.dir.path().join("mark");
    let mut host = agent.host();
    // Deaf to SIGHUP would be killed later; this one obeys.
    let script =
        format!("trap 'echo bye > {}; exit' HUP; sleep 1000 & echo up; wait", mark.display());
    host.exec(shell(&script)).unwrap();
    assert_eq!(host.event().unwrap(), Event::Stdout(b"up\n".to_vec()));
    drop(host);
    while !mark.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn orphans_are_reaped_and_leftovers_of_a_group_end() {
    let agent = Agent::start();
    // One leaves the group and ends soon, one stays in it for long.
    let (out, _, exit) = agent.run(shell(
        "setsid sh -c 'sleep 0.2' >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & echo $!",
    ));
    assert_eq!(exit, Exit::Code(0));
    let left = PathBuf::from(format!("/proc/{}", out.trim()));
    let children = format!("/proc/{0}/task/{0}/children", agent.process.id());
    loop {
        let children = std::fs::read_to_string(&children).unwrap();
        if !left.exists() && children.trim().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn other_calls_are_answered() {
    let agent = Agent::start();
    assert!(matches!(agent.host().call(Request::Describe).unwrap(), Answer::Description(_)));
    assert!(matches!(agent.host().call(Request::Stats).unwrap(), Answer::Stats(_)));
    for (request, word) in [
        (Request::Power(Power::Off), "not PID 1"),
        (Request::Unmount { target: "/no/such".into() }, "unmount /no/such"),
        (Request::Mount(Mount { target: "relative".into(), ..Mount::default() }), "absolute"),
    ] {
        match agent.host().call(request) {
            Err(HostError::Refused(reason)) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn garbage_disturbs_nobody() {
    let agent = Agent::start();
    let silent: Vec<UnixStream> = (0..20).map(|_| agent.stream()).collect();
    for garbage in
        [&[0xff; 64][..], &[0; 64], b"CONNECT 1024\n", &[1, 0, 0, 0, 2], b"\x06\0\0\0\x01nonsense"]
    {
        let mut stream = agent.stream();
        let _ = stream.write_all(garbage);
        let mut host = Host::new(stream);
        assert!(host.event().is_err());
    }
    assert!(matches!(agent.host().call(Request::Describe), Ok(Answer::Description(_))));
    drop(silent);
    assert_eq!(PORT, 1024);
}

//! What the supervisor goes by: of each unit, when it starts, how it is watched and what follows its end.

use zos_host::process::signal_number;

use super::form::Form;

/// What the supervisor needs to know of a unit. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Units that are tried first; it starts when each is ready, or has failed.
    pub(crate) after: Vec<String>,
    /// Units without which it isn't started; each is in `after` too.
    pub(crate) requires: Vec<String>,
    /// When it counts as ready.
    pub(crate) ready: Ready,
    /// After so long one that isn't ready is started again.
    pub(crate) ready_timeout: u64,
    /// When it is started again.
    pub(crate) restart: Restart,
    /// How long it waits before that.
    pub(crate) backoff: Backoff,
    /// How often it may end before it is given up.
    pub(crate) budget: Budget,
    /// After so long one that was given up is tried anew, with a new budget; `None`: never.
    pub(crate) retry: Option<u64>,
    /// It must say at least so often that it lives, by a newline on its readiness pipe.
    pub(crate) watchdog: Option<u64>,
    /// While it has failed or hangs, the machine's watchdog isn't fed.
    pub(crate) vital: bool,
    /// A check that is run while it is ready.
    pub(crate) liveness: Option<Liveness>,
    /// Signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// From that signal until its cgroup is killed.
    pub(crate) stop_timeout: u64,
    /// On the way down it is asked to stop the transient units orderly, before anybody is stopped.
    pub(crate) drains: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            after: Vec::new(),
            requires: Vec::new(),
            ready: Ready::Started,
            ready_timeout: 120_000,
            restart: Restart::Always,
            backoff: Backoff { first: 200, longest: 30_000 },
            budget: Budget { crashes: 10, within: 600_000 },
            retry: Some(600_000),
            watchdog: None,
            vital: false,
            liveness: None,
            stop_signal: SIGTERM,
            stop_timeout: 10_000,
            drains: false,
        }
    }
}

/// Asks a process to end.
pub(crate) const SIGTERM: i32 = 15;

/// When a unit counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// As soon as it runs.
    Started,
    /// When it writes a newline to the descriptor `ZOS_READY_FD`.
    Told,
    /// When a connect to its socket succeeds.
    Socket,
    /// When it has ended with code 0: it does its work once.
    Ended,
}

/// When a unit that ended is started again. One that ends with 0 and is ready by that isn't, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Always.
    Always,
    /// When it ended by a signal or with another code than 0.
    OnFailure,
    /// Never.
    Never,
}

/// The delay before a unit is started again: `first`, then twice as long each time, up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// After the first quick end.
    pub(crate) first: u64,
    /// The most.
    pub(crate) longest: u64,
}

/// At so many ends `within` a time that slides along, a unit is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// 1 or more.
    pub(crate) crashes: u32,
    /// Milliseconds.
    pub(crate) within: u64,
}

/// A check of a unit that says it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Liveness {
    /// From the end of one check to the next.
    pub(crate) every: u64,
    /// A check that takes longer is killed, and has failed.
    pub(crate) timeout: u64,
    /// After so many failures in a row, 1 or more, the unit is started again.
    pub(crate) failures: u32,
}

pub(super) fn parse(form: &mut Form<'_>) -> (Rules, Vec<String>) {
    let known = Rules::default();
    let requires = names(form, "requires");
    let mut after = names(form, "after");
    after.extend(requires.iter().filter(|name| !after.contains(name)).cloned().collect::<Vec<_>>());
    let oneshot = form.flag("oneshot").unwrap_or(false);
    let words = [("none", Ready::Started), ("fd", Ready::Told), ("socket", Ready::Socket)];
    let ready = form.word("ready", &words);
    let ready_timeout = form.millis("ready-timeout");
    let words = [
        ("always", Restart::Always),
        ("on-failure", Restart::OnFailure),
        ("never", Restart::Never),
    ];
    let restart = form.word("restart", &words);
    let backoff = backoff(form);
    let budget = form.within("crash-budget", |form| Budget {
        crashes: count(form, "crashes").unwrap_or(known.budget.crashes),
        within: form.positive_millis("within").unwrap_or(known.budget.within),
    });
    let retry = form.millis_or_never("retry");
    let watchdog = form.positive_millis("watchdog");
    let vital = form.flag("vital").unwrap_or(false);
    let liveness = liveness(form);
    let stop_signal = signal(form, "stop-signal");
    let stop_timeout = form.millis("stop-timeout");
    let drains = form.flag("drains").unwrap_or(false);
    if oneshot {
        let useless = [
            ("ready", ready.is_some()),
            ("watchdog", watchdog.is_some()),
            ("liveness", liveness.is_some()),
            ("drains", drains),
        ];
        for (key, _) in useless.iter().filter(|(_, given)| *given) {
            let what = format!("`{key}` and `oneshot`: a oneshot is ready when it has ended");
            form.refuse_as_a_whole(what);
        }
    }
    let ready = if oneshot { Ready::Ended } else { ready.unwrap_or(Ready::Started) };
    let (liveness, check) = liveness.unzip();
    let rules = Rules {
        after,
        requires,
        ready,
        ready_timeout: ready_timeout.unwrap_or(known.ready_timeout),
        restart: restart.unwrap_or(known.restart),
        backoff,
        budget: budget.unwrap_or(known.budget),
        retry: retry.unwrap_or(known.retry),
        watchdog,
        vital,
        liveness,
        stop_signal,
        stop_timeout: stop_timeout.unwrap_or(known.stop_timeout),
        drains,
    };
    (rules, check.unwrap_or_default())
}

fn backoff(form: &mut Form<'_>) -> Backoff {
    let known = Rules::default().backoff;
    let read = form.within("backoff", |form| {
        let first = form.positive_millis("first").unwrap_or(known.first);
        let longest = form.positive_millis("longest").unwrap_or(known.longest.max(first));
        if longest < first {
            form.refuse_as_a_whole("`backoff`: `longest` is shorter than `first`".to_owned());
        }
        Backoff { first, longest }
    });
    read.unwrap_or(known)
}

fn liveness(form: &mut Form<'_>) -> Option<(Liveness, Vec<String>)> {
    form.within("liveness", |form| {
        let exec = exec(form);
        let rules = Liveness {
            every: form.positive_millis("every").unwrap_or(30_000),
            timeout: form.positive_millis("timeout").unwrap_or(5_000),
            failures: count(form, "failures").unwrap_or(3),
        };
        (rules, exec)
    })
}

/// A number from 1 to 1000.
fn count(form: &mut Form<'_>, key: &'static str) -> Option<u32> {
    form.number_in(key, 1..=1000).and_then(|count| u32::try_from(count).ok())
}

/// `exec`, which each unit and check has; the program is an absolute path.
pub(super) fn exec(form: &mut Form<'_>) -> Vec<String> {
    let words = form.texts("exec");
    let key = form.named("exec");
    match words.first() {
        None => {
            let what = format!("`{key}` is missing: a list of the program and its arguments");
            form.refuse_as_a_whole(what);
        }
        Some((line, program)) if !program.starts_with('/') => {
            form.refuse(*line, format!("`{key}`: {program} is not an absolute path"));
        }
        Some(_) => {}
    }
    let (line, words): (Vec<usize>, Vec<String>) = words.into_iter().unzip();
    if words.iter().any(|word| word.contains('\0')) {
        form.refuse(line[0], format!("`{key}`: NUL inside"));
    }
    words
}

/// The stop signal, SIGTERM if nothing is said.
pub(super) fn signal(form: &mut Form<'_>, key: &'static str) -> i32 {
    match form.text(key) {
        None => SIGTERM,
        Some((line, word)) => signal_number(&word).unwrap_or_else(|| {
            form.refuse(line, format!("`{key}`: unknown signal {word}"));
            SIGTERM
        }),
    }
}

fn names(form: &mut Form<'_>, key: &'static str) -> Vec<String> {
    form.texts(key).into_iter().map(|(_, name)| name).collect()
}

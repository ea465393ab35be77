//! A service's file.

use zos_host::cmdline::nearest;
use zos_host::process::{Capabilities, signal_number};
use zos_host::user;

use super::form::{Form, Value};
use super::{Problem, Ready, Restart, Rules, Service};

pub(super) fn parse(file: &str, name: &str, text: &str) -> Result<Service, Vec<Problem>> {
    let mut form = Form::open(file, text)?;
    let exec = exec(&mut form);
    let env = environment(&mut form);
    let user = match form.text("user") {
        Some((line, word)) => user::id(&word).unwrap_or_else(|| {
            let names: Vec<&str> = user::NAMES.iter().map(|(name, _)| *name).collect();
            form.refuse(line, format!("unknown user `{word}`; known are {}", names.join(", ")));
            0
        }),
        None => {
            form.refuse(0, "`user` is missing; write `root` if it must be root".to_owned());
            0
        }
    };
    let requires = names(&mut form, "requires");
    let mut after = names(&mut form, "after");
    after.extend(requires.iter().filter(|name| !after.contains(name)).cloned().collect::<Vec<_>>());
    let socket = absolute(&mut form, "socket");
    let ready = form.word("ready", &[("none", Ready::Started), ("fd", Ready::Told)]);
    let ready_timeout = form.millis("ready-timeout");
    let restart = form.word(
        "restart",
        &[
            ("always", Restart::Always),
            ("on-failure", Restart::OnFailure),
            ("never", Restart::Never),
        ],
    );
    let stop_signal = signal(&mut form, "stop-signal");
    let stop_timeout = form.millis("stop-timeout");
    let mut capabilities = Capabilities::NONE;
    for (line, word) in form.texts("capabilities") {
        match capabilities.with(&word) {
            Some(more) => capabilities = more,
            None => {
                let meant = nearest(&word, Capabilities::names())
                    .map(|name| format!("; did you mean {name}?"))
                    .unwrap_or_default();
                form.refuse(line, format!("unknown capability {word}{meant}"));
            }
        }
    }
    let mut devices = Vec::new();
    for (line, path) in form.texts("devices") {
        if !path.starts_with("/dev/") || path.contains("..") {
            form.refuse(line, format!("{path} is not below /dev"));
        }
        devices.push(path);
    }
    let problems = form.close();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Service {
        name: name.to_owned(),
        exec,
        env,
        user,
        capabilities,
        devices,
        socket,
        rules: Rules {
            after,
            requires,
            ready: ready.unwrap_or(Ready::Started),
            ready_timeout: ready_timeout.unwrap_or(120_000),
            restart: restart.unwrap_or(Restart::Always),
            stop_signal,
            stop_timeout: stop_timeout.unwrap_or(10_000),
        },
    })
}

/// `exec`, which each unit has; the program is an absolute path.
pub(super) fn exec(form: &mut Form<'_>) -> Vec<String> {
    let words = form.texts("exec");
    match words.first() {
        None => {
            form.refuse(0, "`exec` is missing: a list of the program and its arguments".to_owned());
        }
        Some((line, program)) if !program.starts_with('/') => {
            let what = format!("`exec`: {program} is not an absolute path");
            form.refuse(*line, what);
        }
        Some(_) => {}
    }
    let (line, words): (Vec<usize>, Vec<String>) = words.into_iter().unzip();
    if words.iter().any(|word| word.contains('\0')) {
        form.refuse(line[0], "`exec`: NUL inside".to_owned());
    }
    words
}

/// The stop signal, SIGTERM if nothing is said.
pub(super) fn signal(form: &mut Form<'_>, key: &'static str) -> i32 {
    const SIGTERM: i32 = 15;
    match form.text(key) {
        None => SIGTERM,
        Some((line, word)) => signal_number(&word).unwrap_or_else(|| {
            form.refuse(line, format!("`{key}`: unknown signal {word}"));
            SIGTERM
        }),
    }
}

fn environment(form: &mut Form<'_>) -> std::collections::BTreeMap<String, String> {
    let mut env = std::collections::BTreeMap::new();
    for (line, key, value) in form.pairs("env") {
        let value = match value {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
        };
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            form.refuse(line, format!("`env.{key}` can't stand in an environment"));
        }
        env.insert(key, value);
    }
    env
}

fn names(form: &mut Form<'_>, key: &'static str) -> Vec<String> {
    form.texts(key).into_iter().map(|(_, name)| name).collect()
}

fn absolute(form: &mut Form<'_>, key: &'static str) -> Option<String> {
    let (line, path) = form.text(key)?;
    if !path.starts_with('/') || path.contains('\0') || path.len() > 107 {
        form.refuse(line, format!("`{key}`: {path} is not an absolute path of at most 107 bytes"));
    }
    Some(path)
}

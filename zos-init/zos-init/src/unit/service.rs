//! A service's file.

use zos_host::cmdline::nearest;
use zos_host::process::Capabilities;
use zos_host::user;

use super::form::{Form, Value};
use super::rules::exec;
use super::{Problem, Ready, Service, resources, rules, sandbox};
use crate::journal::Rules as Log;

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
            let what = "`user` is missing; write `root` if it must be root";
            form.refuse_as_a_whole(what.to_owned());
            0
        }
    };
    let dir = folder(&mut form).unwrap_or_else(|| "/".to_owned());
    let (_, bound) = socket(&mut form, "socket").unzip();
    let ready_socket = socket(&mut form, "ready-socket");
    let (rules, check) = rules::parse(&mut form);
    match (rules.ready, &ready_socket) {
        (Ready::Socket, None) => {
            let what = "`ready` = \"socket\" needs `ready-socket`, the path that it binds";
            form.refuse_as_a_whole(what.to_owned());
        }
        (ready, Some((line, _))) if ready != Ready::Socket => {
            let what = "`ready-socket` means nothing without `ready` = \"socket\"";
            form.refuse(*line, what.to_owned());
        }
        _ => {}
    }
    if rules.drains && bound.is_none() {
        form.refuse_as_a_whole("`drains` needs a `socket`, where it is asked".to_owned());
    }
    let log = log(&mut form);
    let cgroup = resources::parse(&mut form);
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
    let sandbox = sandbox::parse(&mut form);
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
        socket: bound,
        dir,
        ready_socket: ready_socket.map(|(_, path)| path),
        check,
        log,
        sandbox,
        cgroup,
        rules,
    })
}

/// `log`: what is kept of what it prints.
fn log(form: &mut Form<'_>) -> Log {
    let known = Log::SERVICE;
    let read = form.within("log", |form| Log {
        ring: form.bytes("ring").and_then(|n| usize::try_from(n).ok()).unwrap_or(known.ring),
        console: form.flag("console").unwrap_or(known.console),
        burst: form.number("burst").unwrap_or(known.burst),
        rate: form.number("rate").unwrap_or(known.rate),
    });
    read.unwrap_or(known)
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

/// `dir`: its working folder.
fn folder(form: &mut Form<'_>) -> Option<String> {
    let (line, path) = form.text("dir")?;
    if !path.starts_with('/') || path.contains('\0') {
        form.refuse(line, format!("`dir`: {path} is not an absolute path"));
    }
    Some(path)
}

fn socket(form: &mut Form<'_>, key: &'static str) -> Option<(usize, String)> {
    let (line, path) = form.text(key)?;
    if !path.starts_with('/') || path.contains('\0') || path.len() > 107 {
        form.refuse(line, format!("`{key}`: {path} is not an absolute path of at most 107 bytes"));
    }
    Some((line, path))
}

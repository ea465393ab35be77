//! A transient unit's template.

use zos_host::process::{Namespace, Resource};

use super::form::{Form, Value};
use super::{Problem, Template, rules};

pub(super) fn parse(file: &str, name: &str, text: &str) -> Result<Template, Vec<Problem>> {
    let mut form = Form::open(file, text)?;
    let exec = rules::exec(&mut form);
    let open_arguments = form.number("open-arguments").unwrap_or(0);
    let mut namespaces = Vec::new();
    for (line, word) in form.texts("namespaces") {
        match Namespace::parse(&word) {
            Some(namespace) => namespaces.push(namespace),
            None => form.refuse(
                line,
                format!("unknown namespace {word}; known are mount, pid, net, ipc, uts, cgroup"),
            ),
        }
    }
    let roots = [("empty", (true, false)), ("proc", (true, true)), ("inherited", (false, false))];
    let (empty_root, proc) = form.word("root", &roots).unwrap_or((true, false));
    if proc && !namespaces.contains(&Namespace::Pid) {
        form.refuse(0, "`root` = \"proc\" needs the namespace pid".to_owned());
    }
    if empty_root && !namespaces.contains(&Namespace::Mount) {
        form.refuse(0, "`root` = \"empty\" or \"proc\" needs the namespace mount".to_owned());
    }
    let first_user = form.number("first-user").and_then(|n| u32::try_from(n).ok());
    let slots = form.number("slots").and_then(|n| u32::try_from(n).ok()).unwrap_or(10_000);
    let first_user = match first_user {
        Some(id) if id >= 1000 && id.checked_add(slots).is_some() => id,
        _ => {
            form.refuse(0, "`first-user` must be 1000 or more".to_owned());
            0
        }
    };
    let mut limits = Vec::new();
    for (line, word, value) in form.pairs("limits") {
        match (Resource::parse(&word), value) {
            (Some(resource), Value::Number(limit)) => limits.push((resource, limit)),
            _ => {
                let known = "core, file-size, locked-memory, files, processes";
                form.refuse(line, format!("`limits.{word}`: a number for one of {known}"));
            }
        }
    }
    let owned = form.text("owned").map(|(_, name)| name);
    let oom_score = form.number_in("oom-score", 0..=1000).unwrap_or(0);
    let stop_signal = rules::signal(&mut form, "stop-signal");
    let stop_timeout = form.millis("stop-timeout").unwrap_or(20_000);
    let problems = form.close();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Template {
        name: name.to_owned(),
        exec,
        open_arguments: usize::try_from(open_arguments).unwrap_or(usize::MAX),
        namespaces,
        empty_root,
        proc,
        first_user,
        slots,
        owned,
        limits,
        oom_score: i32::try_from(oom_score).unwrap_or(1000),
        stop_signal,
        stop_timeout,
    })
}

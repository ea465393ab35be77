//! `zos service list|status NAME|restart NAME`

use zos_api::client::Client;
use zos_api::local::init::Usage;
use zos_api::node::farmer::{ServiceDetail, ServiceStatus};
use zos_types::{Bytes, Name};

use super::node::word;
use crate::output::{Output, plain, table};

pub(super) async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list = client.services().await?;
    output.show(&list, || {
        let rows = list.services.iter().map(|service| {
            let ServiceStatus { name, state, since, restarts, exit, detail } = service;
            let why = [exit.as_deref().unwrap_or_default(), detail.as_str()];
            let why: Vec<&str> = why.into_iter().filter(|part| !part.is_empty()).collect();
            [
                plain(name),
                word(state),
                format!("{since:.0}"),
                restarts.to_string(),
                plain(&why.join("; ")),
            ]
        });
        let heading = ["SERVICE", "STATE", "SINCE", "RESTARTS", "DETAIL"];
        let table = table(heading, &rows.collect::<Vec<_>>());
        let programs = if list.transient == 1 { "program runs" } else { "programs run" };
        format!("{table}\n{} {programs} for twins\n", list.transient)
    })
}

pub(super) async fn status(client: &Client, name: &Name, output: Output) -> anyhow::Result<()> {
    let detail = client.service(name).await?;
    output.show(&detail, || text(&detail))
}

fn text(detail: &ServiceDetail) -> String {
    let ServiceDetail { service, usage, log_bytes } = detail;
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), plain(&value)]);
    row("service", service.name.clone());
    row("state", format!("{} since {:.0}", word(&service.state), service.since));
    if !service.detail.is_empty() {
        row("", service.detail.clone());
    }
    row("restarts", service.restarts.to_string());
    if let Some(exit) = &service.exit {
        row("last end", exit.clone());
    }
    if let Some(Usage { memory, memory_peak, cpu_usec, pids, oom_kills }) = usage {
        row("memory", format!("{}, at most {}", Bytes(*memory), Bytes(*memory_peak)));
        row("CPU time", format!("{}.{:03} s", cpu_usec / 1_000_000, cpu_usec / 1000 % 1000));
        row("threads", pids.to_string());
        if *oom_kills > 0 {
            row("out of memory", format!("{oom_kills} processes were killed"));
        }
    }
    row("log", format!("{}; `zos service logs {}` shows it", Bytes(*log_bytes), service.name));
    table(["", ""], &rows)
}

pub(super) async fn restart(client: &Client, name: &Name, output: Output) -> anyhow::Result<()> {
    let restarting = client.restart(name).await?;
    output.show(&restarting, || {
        format!("{name} is being restarted; `zos service status {name}` shows how it is\n")
    })
}

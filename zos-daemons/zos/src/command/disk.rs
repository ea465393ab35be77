//! `zos disk list|show|adopt|release`
//!
//! ```text
//!  plan from the node ─▶ shown ─▶ the disk's serial is typed, or --plan HASH ─▶ confirmed by its hash
//! ```
//! The hash is the node's: if the disk has changed since the plan was made, the node refuses.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use tokio::time::sleep;
use zos_api::client::Client;
use zos_api::node::disks::DiskChange;
use zos_types::disk::{Disk, DiskPlan, Health, Partition, Role};

use super::node::word;
use crate::cli::DiskCommand;
use crate::exit::Usage;
use crate::output::{Output, plain, table};

/// Between two looks at a disk that is being emptied.
const LOOK: Duration = Duration::from_secs(2);

pub(super) async fn run(
    client: &Client,
    command: DiskCommand,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        DiskCommand::List => list(client, output).await,
        DiskCommand::Show { disk } => {
            let disk = client.disk(&disk).await?;
            output.show(&disk, || text(&disk))
        }
        DiskCommand::Adopt { disk, word } => {
            let plan = client.plan(&disk, DiskChange::Adopt).await?;
            if word.dry_run {
                return output.show(&plan, || plan_text(&plan));
            }
            let hash = agree(&plan, word.plan)?;
            eprintln!("{}: adopting it", plain(&plan.disk.name));
            let disk = client.confirm(&disk, DiskChange::Adopt, &hash).await?;
            output.show(&disk, || text(&disk))
        }
        DiskCommand::Release { disk, word, wait } => {
            let plan = client.plan(&disk, DiskChange::Release).await?;
            if word.dry_run {
                return output.show(&plan, || plan_text(&plan));
            }
            let hash = agree(&plan, word.plan)?;
            let mut now = client.confirm(&disk, DiskChange::Release, &hash).await?;
            if wait {
                now = emptied(client, &disk, now).await?;
            }
            output.show(&now, || text(&now))
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list = client.disks().await?;
    output.show(&list, || {
        let row = |disk: &Disk| {
            [
                plain(&disk.name),
                word(&disk.role),
                disk.size.to_string(),
                format!("{} {}", disk.class, word(&disk.transport)),
                plain(&disk.model),
                plain(&disk.serial),
                plain(&disk.reason),
            ]
        };
        let rows: Vec<[String; 7]> = list.disks.iter().map(row).collect();
        table(["DISK", "ROLE", "SIZE", "KIND", "MODEL", "SERIAL", "WHY"], &rows)
    })
}

fn text(disk: &Disk) -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), plain(&value)]);
    row("disk", disk.name.clone());
    row("role", format!("{}: {}", word(&disk.role), disk.reason));
    row("model", disk.model.clone());
    row("serial", disk.serial.clone());
    row("id", disk.id.clone());
    row("size", disk.size.to_string());
    row("kind", format!("{}, {}", disk.class, word(&disk.transport)));
    row("blocks", format!("{} logical, {} physical", disk.logical_block, disk.physical_block));
    if let Some(Health { verdict, reasons, temperature, hours, .. }) = &disk.health {
        let why =
            if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        row("health", format!("{}{why}", word(verdict)));
        if let Some(degrees) = temperature {
            row("temperature", format!("{degrees} °C"));
        }
        if let Some(hours) = hours {
            row("under power", format!("{hours} h"));
        }
    }
    if !disk.signatures.is_empty() {
        row("holds", disk.signatures.join(", "));
    }
    for Partition { number, size, label, holds, .. } in &disk.partitions {
        let label = label.as_ref().map_or(String::new(), |label| format!(" “{label}”"));
        let holds = if holds.is_empty() { "nothing known".to_owned() } else { holds.join(", ") };
        row(&format!("partition {number}"), format!("{size}{label}: {holds}"));
    }
    if let Some(pool) = &disk.pool {
        row("pool", pool.clone());
    }
    table(["", ""], &rows)
}

/// The plan, as the farmer reads it.
fn plan_text(plan: &DiskPlan) -> String {
    let DiskPlan { disk, does, loses, hash } = plan;
    let mut text = format!(
        "{}: {} {}, {}, serial {}\n",
        plain(&disk.name),
        disk.size,
        disk.class,
        plain(&disk.model),
        plain(&disk.serial),
    );
    let mut section = |heading: &str, lines: &[String]| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{heading}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  - {}\n", plain(line))));
        }
    };
    section("Lost for good:", loses);
    section("What is done:", does);
    text.push_str(&format!("\nplan {}\n", plain(hash)));
    text
}

/// The hash that the farmer agrees to: the one that he names, or the plan's when he types the disk's serial.
fn agree(plan: &DiskPlan, named: Option<String>) -> anyhow::Result<String> {
    if let Some(hash) = named {
        return Ok(hash);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let detail = "nobody is there to be asked; read the plan with --dry-run and name it with --plan HASH";
        return Err(Usage(detail.to_owned()).into());
    }
    eprint!("{}\n{}", plan_text(plan), question(&plan.disk));
    io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if answer.trim() != token(&plan.disk) {
        bail!("nothing was done");
    }
    Ok(plan.hash.clone())
}

/// What is typed: the serial number; for a disk that has none, its name.
fn token(disk: &Disk) -> &str {
    if disk.serial.trim().is_empty() { &disk.name } else { disk.serial.trim() }
}

fn question(disk: &Disk) -> String {
    let what = if disk.serial.trim().is_empty() { "name" } else { "serial number" };
    format!("Type the disk's {what} ({}) to go on: ", plain(token(disk)))
}

/// Tells how far it is until the disk can be taken out.
async fn emptied(client: &Client, name: &str, mut disk: Disk) -> anyhow::Result<Disk> {
    let mut told = String::new();
    while disk.role == Role::Leaving || disk.role == Role::Ours {
        if disk.reason != told {
            told.clone_from(&disk.reason);
            eprintln!("{}: {}", plain(&disk.name), plain(&told));
        }
        sleep(LOOK).await;
        disk = client.disk(name).await?;
    }
    Ok(disk)
}

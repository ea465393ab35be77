//! `zos pool list|scrub`

use zos_api::client::Client;
use zos_types::disk::{Pool, Scrub};

use super::node::word;
use crate::cli::PoolCommand;
use crate::output::{Output, plain, table};

pub(super) async fn run(
    client: &Client,
    command: PoolCommand,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        PoolCommand::List => list(client, output).await,
        PoolCommand::Scrub { pool } => {
            let pool = client.scrub(&pool).await?;
            output.show(&pool, || {
                format!(
                    "pool {} is being looked through; `zos pool list` tells how far it is\n",
                    plain(&pool.id)
                )
            })
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list = client.pools().await?;
    output.show(&list, || {
        let row = |pool: &Pool| {
            let mut notes = pool.reasons.clone();
            if pool.state {
                notes.insert(0, "the node's state".to_owned());
            }
            [
                plain(&pool.id),
                plain(&pool.disk),
                pool.class.to_string(),
                pool.size.to_string(),
                pool.free.to_string(),
                word(&pool.condition),
                pool.scrub.as_ref().map_or("never".to_owned(), scrubbed),
                plain(&notes.join("; ")),
            ]
        };
        let rows: Vec<[String; 8]> = list.pools.iter().map(row).collect();
        table(["POOL", "DISK", "CLASS", "SIZE", "FREE", "STATE", "SCRUB", "NOTES"], &rows)
    })
}

fn scrubbed(scrub: &Scrub) -> String {
    let Scrub { began, ended, read, repaired, unrepaired } = scrub;
    let when = match ended {
        Some(ended) => format!("{ended:.0}"),
        None => format!("since {began:.0}, {read} read"),
    };
    match (repaired, unrepaired) {
        (0, 0) => when,
        _ => format!("{when}, {repaired} repaired, {unrepaired} lost"),
    }
}

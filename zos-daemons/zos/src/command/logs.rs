//! `zos logs NAME/WORKLOAD [-f]`

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zos_api::client::Client;
use zos_types::WorkloadName;

use crate::output::Output;

/// Writes the console's bytes as they are; in JSON an object a piece, `{"data": "<base64>"}`.
pub(super) async fn run(
    client: &Client,
    workload: &WorkloadName,
    follow: bool,
    output: Output,
) -> anyhow::Result<()> {
    let mut log = client.log(workload, follow).await?;
    let mut stdout = io::stdout().lock();
    while let Some(bytes) = log.next().await {
        let bytes = bytes?;
        if output.json {
            writeln!(stdout, "{{\"data\":\"{}\"}}", STANDARD.encode(&bytes))?;
        } else {
            stdout.write_all(&bytes)?;
        }
        stdout.flush()?;
    }
    Ok(())
}

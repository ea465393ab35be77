//! zos: the command line for twins and farmers.
//!
//! ```text
//!  arguments ─▶ command ─▶ client ═══ HTTPS, pinned by the node's id ═══▶ node
//!                  │
//!                  ├─▶ stdout: a table for people, or JSON for programs
//!                  └─▶ stderr: progress, warnings, one error with what to do; exit code
//! ```
#![forbid(unsafe_code)]

mod cli;
mod command;
mod deployment_file;
mod exit;
mod key;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command::run(cli));
            runtime.shutdown_background(); // a name that is still being looked up must not hold us
            result
        }
        Err(error) => Err(error.into()),
    };
    exit::code(result)
}

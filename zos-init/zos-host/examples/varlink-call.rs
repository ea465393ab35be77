//! Calls a varlink method by hand, with descriptors: for looking into a running node.
//!
//! `varlink-call SOCKET METHOD [JSON] [--more] [--fd PATH]...`: each PATH is opened (a file for reading and writing
//! where that is allowed) and passed in order. Replies go to stdout, a line each.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};
use zos_host::varlink::Client;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (mut plain, mut fds, mut more) = (Vec::new(), Vec::new(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--more" => more = true,
            "--fd" => {
                let path = arguments.next().ok_or("--fd needs a path")?;
                let file = File::options().read(true).write(true).open(&path);
                fds.push(OwnedFd::from(file.or_else(|_| File::open(&path))?));
            }
            _ => plain.push(argument),
        }
    }
    let [socket, method, rest @ ..] = plain.as_slice() else {
        return Err("usage: varlink-call SOCKET METHOD [JSON] [--more] [--fd PATH]...".into());
    };
    let parameters: Map<String, Value> =
        rest.first().map_or(Ok(Map::new()), |json| serde_json::from_str(json))?;
    let mut client = Client::connect(socket, Duration::from_secs(60))?;
    if more {
        let mut replies = client.watch(method, &parameters)?;
        while let Some(reply) = replies.reply::<Value>()? {
            println!("{reply}");
        }
    } else {
        println!("{}", client.call::<_, Value>(method, &parameters, fds)?);
    }
    Ok(())
}

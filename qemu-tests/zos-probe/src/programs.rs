//! Programs that run on while others are asked things: each has a name, and its words go to a file.
//!
//! ```text
//!  start NAME [..] ─▶ runs ─▶ ended NAME MILLIS: its code
//!                      └ /run/started/NAME ─▶ until NAME MILLIS TEXT: the line; tail NAME BYTES
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

const DIR: &str = "/run/started";
/// How often is looked again.
const PACE: Duration = Duration::from_millis(100);

/// What was started.
#[derive(Default)]
pub(crate) struct Programs(BTreeMap<String, Child>);

impl Programs {
    /// `NAME ["PROGRAM", ..]`: its pid.
    pub(crate) fn start(&mut self, rest: &str) -> Result<Value> {
        let (name, words) = rest.split_once(' ').context("start NAME [\"PROGRAM\", ..]")?;
        let words: Vec<String> = serde_json::from_str(words).context("start NAME [..]")?;
        let (program, arguments) = words.split_first().context("start NAME [..]")?;
        std::fs::create_dir_all(DIR).context("make the folder of output")?;
        let output = File::create(place(name)).context("make a file for its output")?;
        let errors = output.try_clone().context("share the file")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        let pid = child.id();
        if let Some(mut before) = self.0.insert(name.to_owned(), child) {
            before.kill().ok();
            before.wait().ok();
        }
        Ok(pid.into())
    }

    /// `NAME MILLIS`: its code once it has ended (none after a signal), `false` while it runs.
    pub(crate) fn ended(&mut self, rest: &str) -> Result<Value> {
        let (name, millis) = rest.split_once(' ').context("ended NAME MILLIS")?;
        let end = Instant::now() + Duration::from_millis(millis.parse()?);
        let child = self.0.get_mut(name).with_context(|| format!("{name} was never started"))?;
        loop {
            if let Some(status) = child.try_wait().context("look after it")? {
                return Ok(json!({"code": status.code()}));
            }
            if Instant::now() > end {
                return Ok(false.into());
            }
            std::thread::sleep(PACE);
        }
    }
}

/// `NAME MILLIS TEXT`: the first line of its output with the text, `false` while there is none.
pub(crate) fn until(rest: &str) -> Result<Value> {
    let mut words = rest.splitn(3, ' ');
    let (name, millis) = (words.next().context("NAME")?, words.next().context("MILLIS")?);
    let text = words.next().context("TEXT")?;
    let end = Instant::now() + Duration::from_millis(millis.parse()?);
    loop {
        let bytes = std::fs::read(place(name)).context("read its output")?;
        let all = String::from_utf8_lossy(&bytes);
        // Only whole lines: the rest of one may still come.
        let whole = &all[..all.rfind('\n').map_or(0, |at| at + 1)];
        if let Some(line) = whole.lines().find(|line| line.contains(text)) {
            return Ok(line.trim_end().into());
        }
        if Instant::now() > end {
            return Ok(false.into());
        }
        std::thread::sleep(PACE);
    }
}

/// `NAME BYTES`: the end of its output.
pub(crate) fn tail(rest: &str) -> Result<Value> {
    let (name, bytes) = rest.split_once(' ').context("tail NAME BYTES")?;
    let bytes: u64 = bytes.parse()?;
    let mut file = File::open(place(name)).context("open its output")?;
    let size = file.metadata().context("look at its output")?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes))).context("go to its end")?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).context("read its output")?;
    Ok(String::from_utf8_lossy(&end).into())
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(DIR).join(name)
}

//! Calls of the node's own sockets, as root.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use zos_host::varlink::Client;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// `SOCKET METHOD JSON`: the reply's parameters; an error of the other side by its name.
pub(crate) fn call(rest: &str) -> Result<Value> {
    let mut words = rest.splitn(3, ' ');
    let (Some(socket), Some(method)) = (words.next(), words.next()) else {
        anyhow::bail!("varlink SOCKET METHOD JSON");
    };
    let parameters = parameters(words.next())?;
    let mut client = Client::connect(socket, PATIENCE)?;
    let reply: Map<String, Value> = client.call(method, &parameters, Vec::new())?;
    Ok(reply.into())
}

/// `SOCKET METHOD COUNT MILLIS JSON`: so many replies of a stream, or those that came in the time.
pub(crate) fn watch(rest: &str) -> Result<Value> {
    let words: Vec<&str> = rest.splitn(5, ' ').collect();
    let [socket, method, count, millis, ref json @ ..] = words[..] else {
        anyhow::bail!("watch SOCKET METHOD COUNT MILLIS JSON");
    };
    let parameters = parameters(json.first().copied())?;
    let count: usize = count.parse().context("COUNT")?;
    let time = Duration::from_millis(millis.parse().context("MILLIS")?);
    let end = Instant::now() + time;
    let mut client = Client::connect(socket, time.max(Duration::from_millis(1)))?;
    let mut replies = client.watch(method, &parameters)?;
    let mut heard: Vec<Value> = Vec::new();
    while heard.len() < count && Instant::now() < end {
        match replies.reply::<Map<String, Value>>() {
            Ok(Some(reply)) => heard.push(reply.into()),
            Ok(None) => break,
            // Silence is an answer, too, once there was one.
            Err(zos_host::varlink::CallError::Transport(_)) if !heard.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(heard.into())
}

/// `SOCKET METHOD JSON`: each reply of a stream goes to `port` as `{"told": ..}` when it comes, as long as we live.
pub(crate) fn follow(rest: &str, mut port: File) -> Result<Value> {
    let mut words = rest.splitn(3, ' ');
    let (Some(socket), Some(method)) = (words.next(), words.next()) else {
        anyhow::bail!("follow SOCKET METHOD JSON");
    };
    let parameters = parameters(words.next())?;
    let mut client = Client::connect(socket, FOR_EVER)?;
    let method = method.to_owned();
    std::thread::spawn(move || -> Result<()> {
        let mut replies = client.watch(&method, &parameters)?;
        while let Some(reply) = replies.reply::<Map<String, Value>>()? {
            writeln!(port, "{}", json!({"told": reply})).context("tell")?;
        }
        Ok(())
    });
    Ok(true.into())
}

/// `SOCKET METHOD COUNT JSON`: so many calls, one after another, `#` in the parameters being the call's number from 0;
/// microseconds of all. Stops at the first that is refused.
pub(crate) fn many(rest: &str) -> Result<Value> {
    let words: Vec<&str> = rest.splitn(4, ' ').collect();
    let [socket, method, count, json] = words[..] else {
        anyhow::bail!("many SOCKET METHOD COUNT JSON");
    };
    let count: u64 = count.parse().context("COUNT")?;
    let mut client = Client::connect(socket, FOR_EVER)?;
    let start = Instant::now();
    for number in 0..count {
        let parameters = parameters(Some(&json.replace('#', &number.to_string())))?;
        let _: Map<String, Value> = client
            .call(method, &parameters, Vec::new())
            .with_context(|| format!("call {number} of {method}"))?;
    }
    Ok(u64::try_from(start.elapsed().as_micros())?.into())
}

fn parameters(text: Option<&str>) -> Result<Value> {
    text.map_or(Ok(Map::new().into()), |text| serde_json::from_str(text).context("read JSON"))
}

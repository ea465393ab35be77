//! `key=value,key=value`, as Cloud Hypervisor's command line has it, into the objects of its
//! configuration.
//!
//! ```text
//!  path=a.img,readonly=on,bw_size=1M,bw_refill_time=100
//!   ─▶ {"path":"a.img","readonly":true,"rate_limiter_config":{"bandwidth":{...}}} ─▶ api::Disk
//! ```
//!
//! What a field means, and which aren't there, is told in one place: `api::translate`.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Keys whose values are text, whatever they look like.
const TEXTS: [&str; 15] = [
    "path",
    "serial",
    "id",
    "tap",
    "mac",
    "host_mac",
    "ip",
    "mask",
    "src",
    "tag",
    "socket",
    "file",
    "vhost_socket",
    "image_type",
    "rate_limit_group",
];
/// Keys that stand inside of another object.
const INSIDE: [(&str, &[&str]); 8] = [
    ("bw_size", &["rate_limiter_config", "bandwidth", "size"]),
    ("bw_one_time_burst", &["rate_limiter_config", "bandwidth", "one_time_burst"]),
    ("bw_refill_time", &["rate_limiter_config", "bandwidth", "refill_time"]),
    ("ops_size", &["rate_limiter_config", "ops", "size"]),
    ("ops_one_time_burst", &["rate_limiter_config", "ops", "one_time_burst"]),
    ("ops_refill_time", &["rate_limiter_config", "ops", "refill_time"]),
    ("boot", &["boot_vcpus"]),
    ("max", &["max_vcpus"]),
];
/// Units of sizes, longest first.
const UNITS: [(&str, u32); 9] = [
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("TiB", 40),
    ("K", 10),
    ("M", 20),
    ("G", 30),
    ("T", 40),
    ("", 0),
];

/// Reads an argument's keys as an object.
///
/// # Errors
/// No keys, a key twice, or no such object.
pub(super) fn object<T: DeserializeOwned>(text: &str) -> Result<T> {
    from(map(text)?)
}

/// Makes an object of what was read.
///
/// # Errors
/// A value of another kind, or one that is missing.
pub(super) fn from<T: DeserializeOwned>(map: Map<String, Value>) -> Result<T> {
    Ok(serde_json::from_value(Value::Object(map))?)
}

/// Reads an argument's keys.
///
/// # Errors
/// A part that is no `key=value`, or a key twice.
pub(super) fn map(text: &str) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    for part in split(text) {
        let (key, value) =
            part.split_once('=').with_context(|| format!("`{part}` is no KEY=VALUE"))?;
        // Nothing behind the `=` is nothing said.
        if value.is_empty() {
            continue;
        }
        let place = INSIDE.iter().find(|(name, _)| *name == key);
        let place = place.map_or(std::slice::from_ref(&key), |(_, place)| place);
        put(&mut map, place, typed(key, value)).with_context(|| format!("`{key}`"))?;
    }
    Ok(map)
}

fn put(map: &mut Map<String, Value>, place: &[&str], value: Value) -> Result<()> {
    let Some((first, rest)) = place.split_first() else { return Ok(()) };
    if rest.is_empty() {
        if map.insert((*first).to_owned(), value).is_some() {
            bail!("stands there twice");
        }
        return Ok(());
    }
    let inner = map.entry((*first).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    inner.as_object_mut().map_or(Ok(()), |inner| put(inner, rest, value))
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let outside = |letter: char| {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    };
    text.split(outside).collect()
}

fn typed(key: &str, value: &str) -> Value {
    match value {
        _ if TEXTS.contains(&key) => value.into(),
        _ if key == "addresses" => list(value),
        "on" | "true" => true.into(),
        "off" | "false" => false.into(),
        _ => size(value).map_or_else(|| value.into(), Value::from),
    }
}

/// `[a,b]`, or one without brackets.
fn list(value: &str) -> Value {
    let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(value).split(',').filter(|one| !one.is_empty()).map(Value::from).collect()
}

/// A number, or a size.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = UNITS.iter().find_map(|(unit, n)| Some((text.strip_suffix(unit)?, n)))?;
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

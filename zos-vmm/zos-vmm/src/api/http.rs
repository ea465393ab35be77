//! HTTP/1.1 (RFC 9112), as much of it as this interface needs. Pure functions over bytes.
//!
//! ```text
//!  bytes ─ parse ─▶ Whole(Head, body) │ Partial │ Refusal, after which the connection ends
//! ```

use super::message::{Answer, Refusal, Reply};
use std::ops::Range;

/// Longest request line and headers together.
pub const HEAD_BYTES: usize = 16 << 10;
/// Longest body.
pub const BODY_BYTES: usize = 4 << 20;
const HEADERS: usize = 64;

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Whether the connection goes on after the answer.
    pub keep_alive: bool,
}

/// What the bytes at hand are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Partial {
        /// The client waits for a word before it sends the body.
        asks: bool,
    },
    /// A whole one; it ends where its body ends.
    Whole {
        /// What it is.
        head: Head,
        /// Where its body is.
        body: Range<usize>,
    },
}

/// Reads the first request of these bytes.
///
/// # Errors
/// It is none, or one that isn't served. Where the next one begins is unknown then.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refusal> {
    // Empty lines before a request are ignored (2.2).
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let bad = |words: &str| Refusal::new(400, format!("bad request: {words}"));
    let too_long = || Refusal::new(431, "the headers are too long, or too many");
    let length = match request.parse(&bytes[blank..]) {
        Ok(httparse::Status::Complete(length)) => blank + length,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_BYTES => return Err(too_long()),
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial { asks: false }),
        Err(httparse::Error::TooManyHeaders) => return Err(too_long()),
        Err(error) => return Err(bad(&error.to_string())),
    };
    if length > HEAD_BYTES {
        return Err(too_long());
    }
    let Framing { keep_alive, body, asks } = framing(&request)?;
    let target = request.path.unwrap_or_default();
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path(target).ok_or_else(|| bad("the target is no path"))?.to_owned(),
        keep_alive,
    };
    let end = length + body;
    if bytes.len() < end {
        return Ok(Parsed::Partial { asks });
    }
    Ok(Parsed::Whole { head, body: length..end })
}

struct Framing {
    keep_alive: bool,
    body: usize,
    asks: bool,
}

fn framing(request: &httparse::Request<'_, '_>) -> Result<Framing, Refusal> {
    let mut framing = Framing { keep_alive: request.version == Some(1), body: 0, asks: false };
    let mut length = None;
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = Some(value).filter(|_| digits).and_then(|value| value.parse().ok());
            if !digits || length.is_some_and(|before| Some(before) != number) {
                return Err(Refusal::new(400, "bad request: Content-Length is no number"));
            }
            length = Some(number.filter(|bytes| *bytes <= BODY_BYTES).ok_or_else(|| {
                Refusal::new(413, format!("the body is longer than {BODY_BYTES} bytes"))
            })?);
        } else if is("transfer-encoding") {
            let words = "a body needs a Content-Length: Transfer-Encoding isn't served";
            return Err(Refusal::new(501, words));
        } else if is("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(Refusal::new(417, "no such expectation can be met"));
            }
            framing.asks = request.version == Some(1);
        } else if is("connection") {
            for word in value.split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    framing.keep_alive = false;
                } else if word.eq_ignore_ascii_case("keep-alive") && request.version == Some(0) {
                    framing.keep_alive = true;
                }
            }
        }
    }
    framing.body = length.unwrap_or(0);
    Ok(framing)
}

/// The path of a target: as it is, or behind a host (3.2.2).
fn path(target: &str) -> Option<&str> {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    path.starts_with('/').then_some(path)
}

/// What is said before the body, to one who asked.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer's bytes.
#[must_use]
pub fn answer(reply: &Reply, keep_alive: bool) -> Vec<u8> {
    let json = match reply {
        Ok(Answer::Done) => Ok(String::new()),
        Ok(Answer::Ping(ping)) => serde_json::to_string(ping),
        Ok(Answer::Info(info)) => serde_json::to_string(info),
        Ok(Answer::Counters(counters)) => serde_json::to_string(counters),
        Err(refusal) => serde_json::to_string(&refusal.words),
    };
    let (status, body) = match (reply, json) {
        (Ok(Answer::Done), _) => (204, String::new()),
        (Ok(_), Ok(body)) => (200, body),
        (Err(refusal), Ok(body)) => (refusal.status, body),
        (_, Err(_)) => (500, r#"["the answer can't be written as JSON"]"#.to_owned()),
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let reason = reason(status);
    let mut text =
        format!("HTTP/1.1 {status} {reason}\r\nServer: zos-vmm\r\nConnection: {connection}\r\n");
    // A 204 has no length (RFC 9110, 8.6).
    if status != 204 {
        text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += &body;
    text.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests;

//! Where a node is, and which node it must be: `ID@HOST[:PORT]`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use zos_types::NodeId;

use crate::node::PORT;

/// A node's address. Without an id any node that can prove its own is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Which node it must be.
    pub id: Option<NodeId>,
    /// A host's name, an IPv4 or an IPv6 address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A text that is no address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// What stands before the `@` is no id.
    #[error("`{0}` is no node id: {1}")]
    Id(String, zos_types::id::IdError),
    /// There is no host.
    #[error("a node is written ID@HOST or ID@HOST:PORT; the host is missing")]
    Host,
    /// What follows the host is no port.
    #[error("`{0}` is no port: write a number from 1 to 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (id, place) = match text.split_once('@') {
            Some((id, place)) => {
                let parsed = id.parse().map_err(|e| AddressError::Id(cut(id), e))?;
                (Some(parsed), place)
            }
            None => (None, text),
        };
        let (host, port) = split_port(place)?;
        if host.is_empty() || host.contains(['/', '@', ' ', '[', ']']) {
            return Err(AddressError::Host);
        }
        Ok(Self { id, host: host.to_owned(), port })
    }
}

fn split_port(place: &str) -> Result<(&str, u16), AddressError> {
    if place.parse::<Ipv6Addr>().is_ok() {
        return Ok((place, PORT));
    }
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let parse = |text: &str| {
        text.parse().ok().filter(|&p| p != 0).ok_or_else(|| AddressError::Port(cut(text)))
    };
    Ok((host, port.map_or(Ok(PORT), parse)?))
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.id {
            write!(f, "{id}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo";

    #[test]
    fn addresses_are_read_and_written() {
        let check = |text: &str, written: Option<&str>| {
            let parsed = text.parse::<Address>();
            assert_eq!(parsed.as_ref().ok().map(ToString::to_string).as_deref(), written, "{text}");
            if let Ok(address) = parsed {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        };
        check("192.0.2.7", Some("192.0.2.7:8443"));
        check("node.example:9000", Some("node.example:9000"));
        check("2001:db8::1", Some("[2001:db8::1]:8443"));
        check("[2001:db8::1]:9000", Some("[2001:db8::1]:9000"));
        check("[2001:db8::1]", Some("[2001:db8::1]:8443"));
        check(&format!("{ID}@192.0.2.7"), Some(&format!("{ID}@192.0.2.7:8443")));
        check("", None);
        check("me@192.0.2.7", None);
        check(&format!("{ID}@"), None);
        check("192.0.2.7:0", None);
        check("192.0.2.7:x", None);
        check("https://192.0.2.7", None);
    }
}

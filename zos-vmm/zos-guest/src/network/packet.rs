//! DHCPv4 messages (RFC 2131, section 2; options: RFC 2132), as far as a client needs them.
//!
//! ```text
//!  0 op htype hlen hops   4 xid   8 secs flags   12 ciaddr yiaddr siaddr giaddr   28 chaddr (16)
//!  44 sname, file (192)   236 magic   240 options: code, length, value ... 255
//! ```
//!
//! Of our own: the packets come from anybody on the link, and the published parser panics on some.

use std::net::Ipv4Addr;

const OPTIONS_AT: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;

/// Option codes.
pub(super) mod option {
    pub(crate) const PAD: u8 = 0;
    pub(crate) const MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const WANTED: u8 = 55;
    pub(crate) const END: u8 = 255;
}

/// Message types (option 53) that a client sends or hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// What a client says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) kind: Kind,
    pub(super) transaction: u32,
    pub(super) mac: [u8; 6],
    /// The address that we have, or 0.0.0.0.
    pub(super) own: Ipv4Addr,
    /// The address that was offered, and by whom.
    pub(super) offer: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Question {
    /// The message's bytes. It asks for a broadcast answer.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![REQUEST, ETHERNET, 6, 0];
        bytes.extend_from_slice(&self.transaction.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&BROADCAST.to_be_bytes());
        bytes.extend_from_slice(&self.own.octets());
        bytes.resize(28, 0);
        bytes.extend_from_slice(&self.mac);
        bytes.resize(236, 0);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[option::KIND, 1, self.kind as u8]);
        if let Some((address, server)) = self.offer {
            bytes.extend_from_slice(&[option::REQUESTED_ADDRESS, 4]);
            bytes.extend_from_slice(&address.octets());
            bytes.extend_from_slice(&[option::SERVER, 4]);
            bytes.extend_from_slice(&server.octets());
        }
        let wanted = [option::MASK, option::ROUTER, option::DNS, option::LEASE_TIME];
        bytes.extend_from_slice(&[option::WANTED, 4]);
        bytes.extend_from_slice(&wanted);
        bytes.push(option::END);
        // Some servers drop what is shorter than BOOTP's 300 bytes.
        bytes.resize(300, option::PAD);
        bytes
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) kind: Kind,
    pub(super) transaction: u32,
    pub(super) mac: [u8; 6],
    /// The address for us.
    pub(super) yours: Ipv4Addr,
    options: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Reads a message; `None` for anything that is no reply to a client.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, options) = bytes.split_at_checked(OPTIONS_AT)?;
        let word = |at: usize| -> Option<[u8; 4]> { head.get(at..at + 4)?.try_into().ok() };
        if head[..3] != [REPLY, ETHERNET, 6] || word(236)? != MAGIC {
            return None;
        }
        let kind = match find(options, option::KIND)? {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        Some(Self {
            kind,
            transaction: u32::from_be_bytes(word(4)?),
            mac: head.get(28..34)?.try_into().ok()?,
            yours: word(16)?.into(),
            options,
        })
    }

    /// The addresses in an option.
    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let (addresses, _) = find(self.options, code).unwrap_or_default().as_chunks::<4>();
        addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect()
    }

    /// The number in an option.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(find(self.options, code)?.try_into().ok()?))
    }
}

/// The value of the first option with this code.
fn find(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match *options {
            [option::PAD, ref rest @ ..] => options = rest,
            [option::END, ..] | [] | [_] => return None,
            [code, length, ref rest @ ..] => {
                let (value, behind) = rest.split_at_checked(length.into())?;
                if code == wanted {
                    return Some(value);
                }
                options = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_are_found_and_broken_ones_end_the_search() {
        for (options, expected) in [
            (&[3u8, 1, 9, 255][..], Some(&[9u8][..])),
            (&[0, 0, 1, 0, 3, 2, 7, 8], Some(&[7, 8])),
            (&[255, 3, 1, 9], None),
            (&[1, 200, 3, 1, 9], None),
            (&[3, 1], None),
            (&[3], None),
            (&[3, 0], Some(&[])),
        ] {
            assert_eq!(find(options, 3), expected, "{options:?}");
        }
    }

    #[test]
    fn a_question_is_no_answer() {
        let question = Question {
            kind: Kind::Discover,
            transaction: 1,
            mac: [2; 6],
            own: Ipv4Addr::UNSPECIFIED,
            offer: None,
        };
        let bytes = question.to_bytes();
        assert_eq!((bytes.len(), Answer::parse(&bytes)), (300, None));
    }

    proptest! {
        #[test]
        fn any_options(options in prop::collection::vec(any::<u8>(), 0..300), code in any::<u8>()) {
            find(&options, code);
        }
    }
}

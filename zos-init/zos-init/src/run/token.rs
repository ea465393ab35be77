//! What a descriptor in epoll is, as the one number that epoll gives back.

/// A descriptor's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Signals,
    Timer,
    Uevents,
    /// `/run/zos/init.sock`.
    Listener,
    /// The connection to the service that stops all VMs.
    Drain,
    /// A power button by its number.
    Button(u32),
    /// The pipe by which a unit says that it is ready.
    Ready(u32),
    /// A process's output by its number.
    Output(u32),
    /// A connection of `org.zos.Init` by its number.
    Connection(u32),
}

impl Token {
    pub(crate) fn number(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Timer => (1, 0),
            Self::Uevents => (2, 0),
            Self::Listener => (3, 0),
            Self::Drain => (8, 0),
            Self::Button(number) => (4, number),
            Self::Ready(number) => (5, number),
            Self::Output(number) => (6, number),
            Self::Connection(number) => (7, number),
        };
        kind << 32 | u64::from(number)
    }

    pub(crate) fn of(number: u64) -> Option<Self> {
        let which = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        Some(match number >> 32 {
            0 => Self::Signals,
            1 => Self::Timer,
            2 => Self::Uevents,
            3 => Self::Listener,
            4 => Self::Button(which),
            5 => Self::Ready(which),
            6 => Self::Output(which),
            7 => Self::Connection(which),
            8 => Self::Drain,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Signals,
            Token::Timer,
            Token::Uevents,
            Token::Listener,
            Token::Drain,
            Token::Button(u32::MAX),
            Token::Ready(1),
            Token::Output(0),
            Token::Connection(7),
        ] {
            assert_eq!(Token::of(token.number()), Some(token));
        }
        assert_eq!(Token::of(u64::MAX), None);
    }
}

//! How commands and answers of a TPM are written (TPM 2.0 Library, part 1, section 18; part 2, section 6).
//!
//! ```text
//!  command   tag ‖ size ‖ code ‖ handles ‖ [ size ‖ authorizations ] ‖ parameters
//!  answer    tag ‖ size ‖ code ‖ handle? ‖ [ size ] ‖ parameters ‖ [ authorizations ]
//! ```
//! Numbers are big-endian. An answer comes from a chip on a bus that others may reach: nothing in it is believed
//! before it was measured, and no length in it allocates.

use zeroize::Zeroizing;

use super::TpmError;

/// No answer is longer, in bytes.
pub(super) const LONGEST: usize = 4096;
/// Bytes before a command's or an answer's body.
pub(super) const HEADER: usize = 10;

/// TPM_ST_NO_SESSIONS.
pub(super) const PLAIN: u16 = 0x8001;
/// TPM_ST_SESSIONS.
pub(super) const AUTHORIZED: u16 = 0x8002;

/// Bytes that grow; wiped when they go, since secrets are among them.
#[derive(Debug, Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        // A vector that grows leaves its old bytes behind: room for all of them at once.
        if self.0.capacity() == 0 {
            self.0.reserve_exact(LONGEST);
        }
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length before them (a TPM2B). What is written here is short.
    pub(super) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(length).bytes(&bytes[..usize::from(length)])
    }

    pub(super) fn done(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes that are taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], TpmError> {
        let taken = self.rest.split_at_checked(count);
        let (taken, rest) = taken.ok_or(TpmError::Malformed(self.what, "it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("as many as were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, TpmError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes with their length before them (a TPM2B).
    pub(super) fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A number that must be this one.
    pub(super) fn is_u16(&mut self, wanted: u16, rule: &'static str) -> Result<(), TpmError> {
        if self.u16()? == wanted { Ok(()) } else { Err(TpmError::Malformed(self.what, rule)) }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), TpmError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(TpmError::Malformed(self.what, "something follows its end"))
        }
    }
}

/// An answer's body, when it says success and is as long as it says.
pub(super) fn body<'a>(
    what: &'static str,
    tag: u16,
    answer: &'a [u8],
) -> Result<Reader<'a>, TpmError> {
    let mut reader = Reader::new(what, answer);
    let (found, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if size as usize != answer.len() {
        return Err(TpmError::Malformed(what, "it isn't as long as it says"));
    }
    if code != 0 {
        return Err(TpmError::Refused(what, code));
    }
    if found != tag {
        return Err(TpmError::Malformed(what, "its tag is another"));
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_what_they_say_or_refused() {
        let check = |hex: &str, expected: &str| {
            let bytes = hex::decode(hex).unwrap();
            let found = match body("it", PLAIN, &bytes) {
                Ok(reader) => hex::encode(reader.rest),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{hex}");
        };
        check("80010000000c000000000102", "0102");
        check("80010000000a00000000", "");
        check("80010000000a00000101", "it: the TPM answers 0x00000101");
        check("80020000000a00000000", "it: the TPM's answer is malformed: its tag is another");
        let short = "it: the TPM's answer is malformed: it ends too early";
        check("", short);
        check("80010000000a000000", short);
        let length = "it: the TPM's answer is malformed: it isn't as long as it says";
        check("80010000000b00000000", length);
        check("8001ffffffff00000000", length);
        check("80010000000a0000000000", length);
    }

    #[test]
    fn a_length_is_not_believed() {
        let mut reader = Reader::new("it", &[0xff, 0xff, 1, 2]);
        assert!(reader.sized().is_err());
        let mut reader = Reader::new("it", &[0, 2, 1, 2, 3]);
        assert_eq!(reader.sized().unwrap(), [1, 2]);
        assert!(reader.end().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u16, b: u32, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut writer = Writer::default();
            writer.u16(a).sized(&bytes).u32(b).u8(7);
            let mut reader = Reader::new("it", writer.done());
            prop_assert_eq!(reader.u16().unwrap(), a);
            prop_assert_eq!(reader.sized().unwrap(), &bytes[..]);
            prop_assert_eq!(reader.u32().unwrap(), b);
            prop_assert_eq!(reader.u8().unwrap(), 7);
            reader.end().unwrap();
        }
    }
}

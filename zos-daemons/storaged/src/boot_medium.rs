//! The medium that the node was booted from, as the boot stub told the firmware
//! (`LoaderDevicePartUUID` of systemd's boot loader interface).

use std::fs;

use zos_host::SysRoot;

const VARIABLE: &str =
    "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The unique id of the partition booted from, lower case; none where the firmware knows none.
pub(crate) fn partition(root: &SysRoot) -> Option<String> {
    parse(&fs::read(root.path(VARIABLE)).ok()?)
}

/// Four bytes of attributes, then UTF-16 with a NUL at its end.
fn parse(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(4..)?.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let text: String =
        char::decode_utf16(units.take_while(|unit| *unit != 0)).collect::<Result<_, _>>().ok()?;
    let plain = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    plain.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "5C5B0B80-7B4A-4A3E-9C5F-0123456789AB";

    fn variable(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        [6, 0, 0, 0].into_iter().chain(units).collect()
    }

    #[test]
    fn variables() {
        assert_eq!(parse(&variable(UUID)), Some(UUID.to_lowercase()));
        assert_eq!(parse(&variable("")), None);
        assert_eq!(parse(&variable("nonsense")), None);
        assert_eq!(parse(&[6, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}

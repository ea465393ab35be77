//! The names that people gave to file systems, by the mark that was found.

/// A name by its mark: offset and length.
const PLACES: &[(&str, usize, usize)] = &[
    ("ext2/3/4", 1024 + 0x78, 16),
    ("xfs", 108, 12),
    ("btrfs", 0x1_012b, 256),
    ("LUKS", 0x18, 48),
    ("mdraid 1.1", 32, 32),
    ("mdraid 1.2", 4096 + 32, 32),
    ("swap", 1024 + 28, 16),
    ("ISO9660", 0x8028, 32),
    ("nilfs2", 1024 + 152, 80),
];

/// The name of what a mark stands for, if it has one that people can read.
pub(super) fn find(mark: &str, head: &[u8]) -> Option<String> {
    let (at, length) = match mark {
        "FAT" if head.get(82..87) == Some(b"FAT32") => (71, 11),
        "FAT" => (43, 11),
        // The first version has the cipher's name there.
        "LUKS" if head.get(6..8) != Some(&[0, 2]) => return None,
        _ => {
            PLACES.iter().find(|(name, ..)| *name == mark).map(|(_, at, length)| (*at, *length))?
        }
    };
    let bytes = head.get(at..at + length)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok()?.trim();
    let named = !text.is_empty() && text != "NO NAME" && !text.chars().any(char::is_control);
    named.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_where_they_lie() {
        let check = |mark: &str, pieces: &[(usize, &[u8])], name: Option<&str>| {
            let mut head = vec![0; 1 << 17];
            for (at, bytes) in pieces {
                head[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
            assert_eq!(find(mark, &head).as_deref(), name, "{mark}");
        };
        check("ext2/3/4", &[(1144, b"photos")], Some("photos"));
        check("ext2/3/4", &[], None);
        check("xfs", &[(108, b"twelve bytes")], Some("twelve bytes"));
        check("btrfs", &[(0x1_012b, b"home")], Some("home"));
        check("FAT", &[(43, b"CAMERA     FAT16   ")], Some("CAMERA"));
        check("FAT", &[(71, b"NO NAME    FAT32   ")], None);
        check("FAT", &[(71, b"STICK      FAT32   ")], Some("STICK"));
        check("LUKS", &[(6, &[0, 2]), (0x18, b"vault")], Some("vault"));
        check("LUKS", &[(6, &[0, 1]), (0x18, b"xts-plain64")], None);
        check("ext2/3/4", &[(1144, b"a\x1b[2J")], None);
        check("ext2/3/4", &[(1144, &[0xff, 0xfe])], None);
        check("NTFS", &[], None);
        assert_eq!(find("btrfs", b"short"), None);
    }
}

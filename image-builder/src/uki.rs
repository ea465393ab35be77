//! A unified kernel image: kernel and initramfs as sections of one UEFI program
//! (UAPI group specification 5; PE format: Microsoft "PE Format", sections 2-4).
//!
//! ```text
//!  ┌ systemd's stub: DOS header ─▶ COFF header, optional header, section table ┐
//!  │ .text .data .sbat ...                                                     │ as it came
//!  ├ .osrel   who we are (text)                                                │
//!  ├ .uname   kernel release                                                   │ appended
//!  ├ .initrd  initramfs.img                                                    │
//!  └ .linux   vmlinuz, last: it may grow where it is loaded ───────────────────┘
//! ```
//!
//! There is no `.cmdline` section, on purpose. The stub takes it when the loader passes nothing, and drops it when
//! the loader passes anything; iPXE always passes something, if only the file's name. Settings in it would vanish on
//! network boots and, signed, would forbid the farmer's own. So the kernel has its defaults compiled in
//! (`CONFIG_CMDLINE`), and what is passed is added to them on every way of booting.

use crate::error::{Error, Result};

/// A section to append.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// At most 8 bytes, with the dot.
    pub name: &'static str,
    /// Content.
    pub data: &'a [u8],
}

/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`
const READ_ONLY_DATA: u32 = 0x4000_0040;
const SECTION_HEADER: usize = 40;

/// Offsets of the header fields that change, all checked to lie inside.
struct Headers {
    coff: usize,
    optional: usize,
    table: usize,
    count: usize,
    section_align: u32,
    file_align: u32,
    headers_size: usize,
}

/// Appends sections to an EFI stub.
///
/// # Errors
/// The stub isn't a 64-bit PE file, or has no room for more section headers.
pub fn append(stub: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::form("EFI stub", why);
    let h = parse(stub).ok_or_else(|| bad("isn't a 64-bit PE file"))?;
    let end_of_table = h.table + SECTION_HEADER * (h.count + sections.len());
    let first_data = (0..h.count)
        .filter_map(|i| word(stub, h.table + i * SECTION_HEADER + 20))
        .filter(|at| *at > 0);
    let limit = first_data.min().map_or(h.headers_size, |at| h.headers_size.min(at as usize));
    if end_of_table > limit {
        return Err(bad("has no room for more sections"));
    }

    let mut image = stub.to_vec();
    let mut address = 0;
    for i in 0..h.count {
        let at = h.table + i * SECTION_HEADER;
        let (size, start) = (word(stub, at + 8), word(stub, at + 12));
        let end = size.zip(start).and_then(|(size, start)| start.checked_add(size));
        address = address.max(end.ok_or_else(|| bad("has a section that ends nowhere"))?);
    }
    let mut added = 0u32;
    for (i, section) in sections.iter().enumerate() {
        let too_large =
            || Error::form(format!("section {}", section.name), "is too large for a PE file");
        address = address.checked_next_multiple_of(h.section_align).ok_or_else(too_large)?;
        image.resize(image.len().next_multiple_of(h.file_align as usize), 0);
        let size = u32::try_from(section.data.len()).map_err(|_| too_large())?;
        let raw_size = size.checked_next_multiple_of(h.file_align).ok_or_else(too_large)?;
        let raw_at = u32::try_from(image.len()).map_err(|_| too_large())?;

        let at = h.table + (h.count + i) * SECTION_HEADER;
        let mut header = [0; SECTION_HEADER];
        header[..section.name.len()].copy_from_slice(section.name.as_bytes());
        for (offset, value) in
            [(8, size), (12, address), (16, raw_size), (20, raw_at), (36, READ_ONLY_DATA)]
        {
            header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        image[at..at + SECTION_HEADER].copy_from_slice(&header);
        image.extend_from_slice(section.data);
        image.resize(raw_at as usize + raw_size as usize, 0);
        address = address.checked_add(size).ok_or_else(too_large)?;
        added = added.checked_add(raw_size).ok_or_else(too_large)?;
    }

    let count =
        u16::try_from(h.count + sections.len()).map_err(|_| bad("has too many sections"))?;
    image[h.coff + 2..h.coff + 4].copy_from_slice(&count.to_le_bytes());
    let initialized = word(stub, h.optional + 8).and_then(|n| n.checked_add(added));
    let size_of_image = address.checked_next_multiple_of(h.section_align);
    let grown = initialized.zip(size_of_image).ok_or_else(|| bad("would grow beyond a PE file"))?;
    put(&mut image, h.optional + 8, grown.0);
    put(&mut image, h.optional + 56, grown.1);
    // CheckSum: firmware doesn't look at it; 0 says that there is none.
    put(&mut image, h.optional + 64, 0);
    Ok(image)
}

fn parse(stub: &[u8]) -> Option<Headers> {
    let pe = word(stub, 0x3c)? as usize;
    if stub.get(..2)? != b"MZ" || stub.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let coff = pe + 4;
    let count = usize::from(half(stub, coff + 2)?);
    let optional = coff + 20;
    // PE32+
    if half(stub, optional)? != 0x20b {
        return None;
    }
    let table = optional + usize::from(half(stub, coff + 16)?);
    let (section_align, file_align) = (word(stub, optional + 32)?, word(stub, optional + 36)?);
    let headers_size = word(stub, optional + 60)? as usize;
    let sane = section_align.is_power_of_two() && file_align.is_power_of_two();
    let inside = headers_size <= stub.len()
        && optional + 68 <= stub.len()
        && table + count * SECTION_HEADER <= headers_size;
    (sane && inside).then_some(Headers {
        coff,
        optional,
        table,
        count,
        section_align,
        file_align,
        headers_size,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object as _, ObjectSection as _};
    use proptest::prelude::*;

    /// The smallest stub: headers and one section of code.
    fn stub() -> Vec<u8> {
        let mut s = vec![0; 0x600];
        s[..2].copy_from_slice(b"MZ");
        put(&mut s, 0x3c, 0x80);
        s[0x80..0x84].copy_from_slice(b"PE\0\0");
        s[0x84..0x86].copy_from_slice(&0x8664u16.to_le_bytes());
        s[0x86] = 1;
        s[0x94..0x96].copy_from_slice(&240u16.to_le_bytes());
        let optional = 0x98;
        s[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        for (at, value) in [(32, 0x1000), (36, 0x200), (56, 0x2000), (60, 0x400), (108, 16)] {
            put(&mut s, optional + at, value);
        }
        let table = optional + 240;
        s[table..table + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 0x123), (12, 0x1000), (16, 0x200), (20, 0x400), (36, 0x6000_0020)] {
            put(&mut s, table + at, value);
        }
        s
    }

    #[test]
    fn an_independent_reader_finds_the_sections() {
        let kernel = vec![0x90; 70_000];
        let sections = [
            Section { name: ".osrel", data: b"ID=zos\n" },
            Section { name: ".linux", data: &kernel },
        ];
        let image = append(&stub(), &sections).unwrap();
        let file = object::File::parse(image.as_slice()).unwrap();
        let section = |name| file.section_by_name(name).unwrap();
        assert_eq!(&section(".osrel").data().unwrap()[..7], b"ID=zos\n");
        assert_eq!(section(".osrel").address(), 0x2000);
        assert_eq!(section(".linux").address(), 0x3000);
        assert_eq!(&section(".linux").data().unwrap()[..70_000], kernel.as_slice());
        assert_eq!(word(&image, 0x98 + 56), Some(0x15000), "SizeOfImage");
        assert_eq!(image.len() % 0x200, 0);
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let many: Vec<_> = (0..40).map(|_| Section { name: ".x", data: b"x" }).collect();
        let error = append(&stub(), &many).unwrap_err().to_string();
        assert!(error.contains("no room"), "{error}");
        assert!(append(b"MZ", &[]).is_err());
        assert!(append(&[], &[]).is_err());
    }

    proptest! {
        #[test]
        fn a_damaged_stub_is_extended_or_refused(
            spoil in proptest::collection::vec((0usize..0x600, any::<u8>()), 0..20), cut in 0usize..0x600
        ) {
            let mut bytes = stub();
            for (at, byte) in spoil {
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            // A file alignment of 2 GiB is legal in the field and absurd in memory.
            prop_assume!(word(&bytes, 0x98 + 36).unwrap_or(0) <= 1 << 16);
            prop_assume!(word(&bytes, 0x3c).unwrap_or(0) == 0x80);
            let _ = append(&bytes, &[Section { name: ".linux", data: b"kernel" }]);
        }
    }
}

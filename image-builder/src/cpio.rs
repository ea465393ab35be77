//! The archive that the kernel unpacks into its first root: cpio "newc"
//! (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! ```text
//!  "070701" 13 × 8 hex digits │ name NUL │ pad to 4 │ data │ pad to 4 │ ... │ TRAILER!!!
//! ```
//!
//! Owner, time and device are 0 and inode numbers count up, so equal contents give equal bytes.

/// Kind and permissions of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A folder, 0755.
    Dir,
    /// A folder that all may write to, 1777.
    Shared,
    /// A file, 0644.
    File,
    /// A program, 0755.
    Program,
}

impl Mode {
    /// `st_mode`.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Dir => 0o040_755,
            Self::Shared => 0o041_777,
            Self::File => 0o100_644,
            Self::Program => 0o100_755,
        }
    }
}

/// Writes one archive.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an entry. `path` has no leading slash.
    ///
    /// # Panics
    /// On a file of 4 GiB or more, which the format can't hold and the image never has.
    pub fn add(&mut self, path: &str, mode: Mode, data: &[u8]) {
        self.inode += 1;
        // A folder links to itself and is linked from its parent.
        let links = if matches!(mode, Mode::Dir | Mode::Shared) { 2 } else { 1 };
        self.entry(path, self.inode, mode.bits(), links, data);
    }

    /// The archive, closed and padded to 512 bytes as cpio's own do.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, 1, &[]);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, path: &str, inode: u32, mode: u32, links: u32, data: &[u8]) {
        let size = u32::try_from(data.len()).expect("an entry is below 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path is short");
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(data);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

/// Entries of an archive, for checks: path, mode, data. `None` when it isn't well formed.
#[must_use]
pub fn entries(mut bytes: &[u8]) -> Option<Vec<(String, u32, &[u8])>> {
    let mut found = Vec::new();
    loop {
        let header = bytes.get(..110)?;
        if &header[..6] != b"070701" {
            return None;
        }
        let field = |n: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (mode, size, name) = (field(1)?, field(6)?, field(11)?);
        let data_at = 110usize.checked_add(name)?.checked_next_multiple_of(4)?;
        let path = bytes.get(110..110usize.checked_add(name)?)?.strip_suffix(b"\0")?;
        if path == b"TRAILER!!!" {
            return Some(found);
        }
        let end = data_at.checked_add(size)?;
        let data = bytes.get(data_at..end)?;
        found.push((String::from_utf8(path.to_vec()).ok()?, u32::try_from(mode).ok()?, data));
        bytes = bytes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_as_documented() {
        let mut archive = Archive::new();
        archive.add("init", Mode::Program, b"x");
        let bytes = archive.finish();
        let wanted = "070701000000010000_81ed".replace('_', "");
        assert_eq!(&bytes[..22], wanted.as_bytes());
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(bytes[116], b'x');
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn cpio_itself_reads_it() {
        if !crate::tool::present("cpio") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::new();
        archive.add("bin", Mode::Dir, &[]);
        archive.add("bin/a", Mode::Program, b"abc");
        std::fs::write(dir.path().join("x.cpio"), archive.finish()).unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "cpio -t --quiet < x.cpio"]).current_dir(dir.path());
        assert_eq!(crate::tool::output(&mut command).unwrap(), "bin\nbin/a\n");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(files in proptest::collection::btree_map(
            "[a-z/]{1,20}", proptest::collection::vec(any::<u8>(), 0..100), 0..10
        )) {
            let mut archive = Archive::new();
            for (path, data) in &files {
                archive.add(path, Mode::File, data);
            }
            let bytes = archive.finish();
            let read: Vec<_> = entries(&bytes).unwrap();
            prop_assert_eq!(read.len(), files.len());
            for ((path, mode, data), (wanted, content)) in read.iter().zip(&files) {
                prop_assert_eq!((path, *mode, *data), (wanted, 0o100_644, content.as_slice()));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = entries(&bytes);
        }
    }
}

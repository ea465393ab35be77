//! Which libraries a foreign program needs: its ELF `NEEDED` entries, followed to the end (System V gABI, ch. 5).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use crate::arch::Arch;
use crate::error::{Error, Result, read};

/// What the dynamic loader reads from a program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Path of the loader itself; a static program or a library has none.
    pub interpreter: Option<String>,
    /// Names of libraries.
    pub libraries: Vec<String>,
    /// Folders where it looks for them first.
    pub folders: Vec<String>,
}

/// A library found in one of the package folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Absolute path that it must have on the node.
    pub target: String,
    /// The file.
    pub source: PathBuf,
}

/// Reads an ELF file's needs.
///
/// # Errors
/// Anything that isn't a well-formed 64-bit ELF file.
pub fn needs(name: &str, data: &[u8]) -> Result<Needs> {
    parse(data).map_err(|e| Error::form(name, e.to_string()))
}

fn parse(data: &[u8]) -> object::Result<Needs> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let mut found = Needs::default();
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            found.interpreter = Some(text(path));
        }
    }
    let sections = header.sections(endian, data)?;
    if let Some((entries, link)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        for entry in entries {
            match entry.tag(endian) {
                elf::DT_NEEDED => found.libraries.push(text(entry.string(endian, strings)?)),
                elf::DT_RUNPATH | elf::DT_RPATH => {
                    let folders = text(entry.string(endian, strings)?);
                    found.folders.extend(folders.split(':').map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Everything that these programs load, each file once, sorted by path on the node.
///
/// # Errors
/// A library that none of the folders has, by name, with who wants it.
pub fn closure(programs: &[PathBuf], trees: &[PathBuf], arch: Arch) -> Result<Vec<Library>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut queue: VecDeque<PathBuf> = programs.iter().cloned().collect();
    while let Some(file) = queue.pop_front() {
        let name = file.display().to_string();
        let needs = needs(&name, &read(&file)?)?;
        let loader =
            needs.interpreter.into_iter().map(|path| (path.clone(), base(&path).to_owned()));
        let libraries = needs.libraries.into_iter().map(|lib| (format!("/lib/{lib}"), lib));
        for (target, lib) in loader.chain(libraries) {
            // The loader is also NEEDED by libc: it keeps the path that programs name.
            if found.keys().any(|known| base(known) == lib) {
                continue;
            }
            let own = needs.folders.iter().flat_map(|folder| {
                trees.iter().map(|tree| tree.join(folder.trim_start_matches('/')).join(&lib))
            });
            let source = own.into_iter().find(|path| path.is_file());
            let Some(source) = source.or_else(|| locate(&lib, trees, arch)) else {
                return Err(Error::form(
                    base(&name),
                    format!("needs {lib}, which none of its packages has"),
                ));
            };
            queue.push_back(source.clone());
            found.insert(target, source);
        }
    }
    Ok(found.into_iter().map(|(target, source)| Library { target, source }).collect())
}

/// A library by its name, in Debian's folders.
#[must_use]
pub fn locate(name: &str, trees: &[PathBuf], arch: Arch) -> Option<PathBuf> {
    let multi = arch.multiarch();
    let dirs = [
        format!("usr/lib/{multi}"),
        format!("lib/{multi}"),
        "usr/lib".into(),
        "lib".into(),
        "usr/lib64".into(),
    ];
    let places = trees.iter().flat_map(|t| dirs.iter().map(move |d| t.join(d).join(name)));
    places.into_iter().find(|p| p.is_file())
}

fn base(path: &str) -> &str {
    Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_needs_libc() {
        let me = std::env::current_exe().unwrap();
        let needs = needs("me", &read(&me).unwrap()).unwrap();
        assert!(needs.interpreter.unwrap().starts_with("/lib"));
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{:?}", needs.libraries);
    }

    #[test]
    fn the_closure_of_this_test_comes_from_the_machine() {
        let me = std::env::current_exe().unwrap();
        let Some(arch) = Arch::host() else { return };
        let libraries = closure(std::slice::from_ref(&me), &[PathBuf::from("/")], arch).unwrap();
        assert!(libraries.iter().any(|l| l.target == "/lib/libc.so.6"));
        let error = closure(&[me], &[], arch).unwrap_err().to_string();
        assert!(error.contains("which none of its packages has"), "{error}");
    }

    #[test]
    fn what_is_no_elf_is_refused() {
        for data in [&b""[..], b"#!/bin/sh\n", &[0x7f; 64]] {
            assert!(needs("x", data).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_damaged_elf_is_read_or_refused(seed in proptest::collection::vec((0usize..4096, any::<u8>()), 1..40)) {
            let mut data = read(&std::env::current_exe().unwrap()).unwrap();
            data.truncate(1 << 16);
            for (at, byte) in seed {
                let at = at % data.len();
                data[at] = byte;
            }
            let _ = needs("x", &data);
        }
    }
}

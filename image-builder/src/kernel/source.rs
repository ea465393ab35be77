//! The kernel's source: a pinned package, with our patches over it.
//!
//! ```text
//!  linux-source.tar.xz ─unpack─▶ source.part ─patch -p1, in the order of their names─▶ source
//!  kernel-config/patches/*.patch ─────────────┘        └─ `.patched`: SHA-256 of the patches
//! ```
//! A tree with other patches is unpacked anew in the same place: what make has compiled of the same bytes it keeps.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::cache::hash_fields;
use crate::error::{Error, Result, make_dir, read_text, write};
use crate::fetch::Fetcher;
use crate::progress::say;
use crate::project::Project;
use crate::tool;

/// Says which patches a tree has.
const MARK: &str = ".patched";

/// Our patches, by name.
#[derive(Clone, Debug)]
pub struct Patches {
    files: Vec<PathBuf>,
    /// Names them all, and what they say.
    pub hash: String,
}

impl Patches {
    /// Those of a checkout.
    ///
    /// # Errors
    /// Reading them.
    pub fn of(project: &Project) -> Result<Self> {
        let dir = project.kernel_patches();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            if path.extension().is_some_and(|ending| ending == "patch") {
                files.push(path);
            }
        }
        files.sort();
        let mut fields = Vec::new();
        for path in &files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fields.extend([name, read_text(path)?]);
        }
        let fields: Vec<&[u8]> = fields.iter().map(String::as_bytes).collect();
        Ok(Self { files, hash: hash_fields(&fields) })
    }

    /// Puts them over a tree.
    fn apply(&self, tree: &Path) -> Result<()> {
        for path in &self.files {
            // One that fits somewhere else than where it says was made for another kernel.
            let mut patch = Command::new("patch");
            patch.args(["-p1", "--batch", "--forward", "--fuzz=0", "-d"]).arg(tree).arg("-i");
            tool::output(patch.arg(path))?;
        }
        write(&tree.join(MARK), self.hash.as_bytes())
    }
}

/// The one package whose purpose is the kernel.
pub(super) fn package(fetcher: &Fetcher) -> Result<String> {
    let found = fetcher.inputs.package.iter().find(|p| p.purpose == crate::inputs::Purpose::Kernel);
    let name = found.map(|p| p.name.clone());
    name.ok_or_else(|| Error::form("inputs.toml", "no package with purpose kernel"))
}

/// The source tree of a version with these patches, unpacked once for both kernels.
pub(super) fn unpack(
    fetcher: &Fetcher,
    name: &str,
    arch: Arch,
    patches: &Patches,
    dir: &Path,
) -> Result<PathBuf> {
    let source = dir.join("source");
    // The folder gets this name only when it is complete.
    if read_text(&source.join(MARK)).is_ok_and(|mark| mark == patches.hash) {
        return Ok(source);
    }
    say("unpacking the kernel's source (a minute)");
    let package = fetcher.package(name, arch)?;
    let tar = package.join("usr/src").join(format!("{name}.tar.xz"));
    let part = dir.join("source.part");
    let _ = std::fs::remove_dir_all(&part);
    make_dir(&part)?;
    tool::output(
        Command::new("tar").arg("-xJf").arg(tar).args(["--strip-components=1", "-C"]).arg(&part),
    )?;
    patches.apply(&part)?;
    if source.exists() {
        std::fs::remove_dir_all(&source).map_err(Error::io("remove", &source))?;
    }
    std::fs::rename(&part, &source).map_err(Error::io("write", &source))?;
    Ok(source)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PATCH: &str =
        "why\n\n--- a/x/a.c\n+++ b/x/a.c\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n";

    fn project(patch: &str) -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("kernel-config/patches")).unwrap();
        fs::create_dir(dir.path().join("image-builder")).unwrap();
        fs::write(dir.path().join("image-builder/inputs.toml"), "").unwrap();
        fs::write(dir.path().join("kernel-config/patches/0001-x.patch"), patch).unwrap();
        fs::write(dir.path().join("kernel-config/patches/notes"), "no patch").unwrap();
        let project = Project::around(dir.path()).unwrap();
        (dir, project)
    }

    #[test]
    fn a_patch_is_put_over_a_tree_or_refused() {
        let (_dir, project) = project(PATCH);
        let patches = Patches::of(&project).unwrap();
        assert_eq!(patches.files.len(), 1);
        let check = |text: &str, becomes: Option<&str>| {
            let tree = tempfile::tempdir().unwrap();
            fs::create_dir(tree.path().join("x")).unwrap();
            let file = tree.path().join("x/a.c");
            fs::write(&file, text).unwrap();
            let done = patches.apply(tree.path());
            assert_eq!(done.is_ok(), becomes.is_some(), "{text:?}: {done:?}");
            let Some(expected) = becomes else { return };
            assert_eq!(fs::read_to_string(&file).unwrap(), expected);
            assert_eq!(fs::read_to_string(tree.path().join(MARK)).unwrap(), patches.hash);
        };
        check("one\ntwo\nthree\n", Some("one\n2\nthree\n"));
        check("one\n2\nthree\n", None);
        check("one\ntwo\nfour\n", None);
    }

    #[test]
    fn other_patches_have_another_name() {
        let hash = |patch: &str| Patches::of(&project(patch).1).unwrap().hash;
        assert_eq!(hash(PATCH), hash(PATCH));
        assert_ne!(hash(PATCH), hash(&PATCH.replace("+2", "+3")));
    }
}

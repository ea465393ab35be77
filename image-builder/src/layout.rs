//! The node's root, file by file: the one place that says what is in the image.
//!
//! ```text
//!  /init /bin/{zosd,zos-vmm,zos-virtiofsd}      ours
//!  /etc/zos/{units,templates}/*.toml, image.toml   what PID 1 starts; what this image is
//!  /etc/passwd /etc/group                       the users of the contract
//!  /etc/protocols                               names for nft
//!  /bin/nft /bin/mkfs.btrfs /bin/btrfs /lib     foreign tools and their libraries
//!  /lib/firmware                                blobs
//!  /usr/share/zos/guest/{vmlinuz,hello.img}     what `builtin:hello` boots
//!  /dev /proc /sys /run /tmp /state /mirror     empty, for mounts
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zos_host::user;

use crate::arch::Arch;
use crate::cache::hash_fields;
use crate::cpio::Mode;
use crate::elf;
use crate::error::{Error, Result, read};
use crate::fetch::Fetcher;
use crate::inputs::{Pin, Purpose};
use crate::kernel::Kernel;
use crate::manifest::Foreign;
use crate::programs;
use crate::project::Project;
use crate::root::{Part, Root};

/// Names that `nft` looks up (IANA protocol numbers); without the file it refuses rules that name one.
const PROTOCOLS: [(&str, u8, &str); 11] = [
    ("ip", 0, "IP"),
    ("icmp", 1, "ICMP"),
    ("igmp", 2, "IGMP"),
    ("tcp", 6, "TCP"),
    ("udp", 17, "UDP"),
    ("gre", 47, "GRE"),
    ("esp", 50, "IPSEC-ESP"),
    ("ah", 51, "IPSEC-AH"),
    ("ipv6-icmp", 58, "IPv6-ICMP icmpv6"),
    ("sctp", 132, "SCTP"),
    ("udplite", 136, "UDPLite"),
];

/// Our programs, service units, users and mount points.
///
/// # Errors
/// A folder that can't be read, or a file that is there twice.
pub fn add_ours(
    root: &mut Root,
    project: &Project,
    programs: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    for (name, target) in programs::PROGRAMS {
        let data = programs.get(name).ok_or_else(|| Error::form(name, "wasn't built"))?;
        root.add(target, Mode::Program, Part::Ours, data.clone())?;
    }
    for (dir, target) in
        [(project.units(), "etc/zos/units"), (project.templates(), "etc/zos/templates")]
    {
        root.mount_point(target, Mode::Dir);
        for path in toml_files(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            root.add(&format!("{target}/{name}"), Mode::File, Part::Ours, read(&path)?)?;
        }
    }
    root.add("etc/passwd", Mode::File, Part::Ours, passwd().into_bytes())?;
    root.add("etc/group", Mode::File, Part::Ours, group().into_bytes())?;
    root.add("etc/protocols", Mode::File, Part::Ours, protocols().into_bytes())?;
    for dir in ["dev", "proc", "sys", "run", "state", "mirror"] {
        root.mount_point(dir, Mode::Dir);
    }
    root.mount_point("tmp", Mode::Shared);
    Ok(())
}

/// Says what this image is; the last file to be added, since it hashes the others.
///
/// # Errors
/// When it was added before.
pub fn add_identity(root: &mut Root, arch: Arch, version: &str, kernel: &Kernel) -> Result<()> {
    let inputs = hash_fields(&[root.manifest().as_bytes(), kernel.facts.key.as_bytes()]);
    let text = format!(
        "# What this image is.\nversion = \"{version}\"\narch = \"{arch}\"\nkernel = \"{}\"\n\
         # Hash of every file and of the kernel's inputs.\ninputs = \"{inputs}\"\n",
        kernel.facts.release
    );
    root.add("etc/zos/image.toml", Mode::File, Part::Ours, text.into_bytes())
}

/// What `builtin:hello` boots.
///
/// # Errors
/// Files that are there twice, or the kernel can't be read.
pub fn add_guest(root: &mut Root, guest: &Kernel, hello: Vec<u8>) -> Result<()> {
    root.add("usr/share/zos/guest/vmlinuz", Mode::File, Part::Base, read(&guest.vmlinuz())?)?;
    root.add("usr/share/zos/guest/hello.img", Mode::File, Part::Ours, hello)
}

/// Foreign programs with the libraries that they load; gives what the manifest says of them.
///
/// # Errors
/// A package that can't be had, or lacks a file.
pub fn add_tools(root: &mut Root, fetcher: &Fetcher, arch: Arch) -> Result<Vec<Foreign>> {
    let libraries: Vec<&Pin> = fetcher.lock.of(Purpose::Library, arch).collect();
    let mut trees: Vec<(PathBuf, &Pin)> = Vec::new();
    for pin in libraries {
        trees.push((fetcher.tree(pin)?, pin));
    }
    let mut foreign = Vec::new();
    let mut sources = Vec::new();
    for tool in &fetcher.inputs.tool {
        let pin = fetcher.pin(&tool.package, arch)?;
        let source = fetcher.tree(pin)?.join(&tool.path);
        let data = read(&source)?;
        foreign.push(Foreign::new(&tool.to, pin, &tool.reason, data.len()));
        root.add(&tool.to, Mode::Program, Part::Base, data)?;
        sources.push(source);
    }
    let folders: Vec<PathBuf> = trees.iter().map(|(tree, _)| tree.clone()).collect();
    for library in elf::closure(&sources, &folders, arch)? {
        let target = library.target.trim_start_matches('/');
        let owner = trees.iter().find(|(tree, _)| library.source.starts_with(tree));
        let (_, pin) = owner.ok_or_else(|| Error::form(target, "comes from no package"))?;
        let data = read(&library.source)?;
        let reason = format!("library of {}", pin.needed_by.join(", "));
        foreign.push(Foreign::new(target, pin, &reason, data.len()));
        root.add(target, Mode::Program, Part::Base, data)?;
    }
    Ok(foreign)
}

fn toml_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(dir).map_err(Error::io("read", dir))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    files.sort();
    Ok(files)
}

/// No password, no shell: nobody logs in.
fn passwd() -> String {
    user::NAMES.iter().map(|(name, id)| format!("{name}:x:{id}:{id}::/:/bin/false\n")).collect()
}

fn protocols() -> String {
    let line = |(name, number, aliases): &(&str, u8, &str)| format!("{name} {number} {aliases}\n");
    PROTOCOLS.iter().map(line).collect()
}

fn group() -> String {
    user::NAMES.iter().map(|(name, id)| format!("{name}:x:{id}:\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_one_number_for_user_and_group() {
        assert!(passwd().starts_with("root:x:0:0::/:/bin/false\nstorage:x:110:110:"));
        assert!(group().ends_with("console:x:120:\n"));
        let mut ids: Vec<u32> = user::NAMES.iter().map(|u| u.1).collect();
        ids.dedup();
        assert_eq!(ids.len(), user::NAMES.len());
    }

    #[test]
    fn ours_are_where_pid_1_looks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("image-builder")).unwrap();
        std::fs::write(dir.path().join("image-builder/inputs.toml"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("zos-init/units")).unwrap();
        std::fs::write(dir.path().join("zos-init/units/storaged.toml"), "x = 1").unwrap();
        std::fs::write(dir.path().join("zos-init/units/notes.txt"), "").unwrap();
        let project = Project::around(dir.path()).unwrap();
        let built = ["zos-init", "zosd", "zos-vmm", "zos-virtiofsd"]
            .map(|n| (n.to_owned(), b"elf".to_vec()));
        let mut root = Root::new();
        add_ours(&mut root, &project, &built.into()).unwrap();
        let paths: Vec<&str> = root.files().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "bin/zos-virtiofsd",
                "bin/zos-vmm",
                "bin/zosd",
                "etc/group",
                "etc/passwd",
                "etc/protocols",
                "etc/zos/units/storaged.toml",
                "init"
            ]
        );
    }
}

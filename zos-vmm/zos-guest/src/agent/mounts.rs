//! Mounting what the host asks for.

use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use zos_agent::Mount;

const FLAGS: [(&str, MountFlags); 7] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("noatime", MountFlags::NOATIME),
    ("bind", MountFlags::BIND),
    ("rec", MountFlags::REC),
];

pub(super) fn mount(mount: &Mount) -> Result<(), String> {
    let flags = flags(&mount.flags)?;
    let target = absolute(&mount.target)?;
    let failed = |error: &dyn std::fmt::Display| {
        format!("mount {} as {} on {target}: {error}", mount.source, mount.kind)
    };
    let options = CString::new(mount.options.as_str()).map_err(|error| failed(&error))?;
    fs::create_dir_all(target).map_err(|error| failed(&error))?;
    rustix::mount::mount(mount.source.as_str(), target, mount.kind.as_str(), flags, &*options)
        .map_err(|error| failed(&error))
}

pub(super) fn unmount(target: &str) -> Result<(), String> {
    let target = absolute(target)?;
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
        .map_err(|error| format!("unmount {target}: {error}"))
}

fn flags(words: &[String]) -> Result<MountFlags, String> {
    words.iter().try_fold(MountFlags::empty(), |all, word| {
        let known = FLAGS.iter().find(|(name, _)| name == word);
        let names = FLAGS.map(|(name, _)| name).join(", ");
        known.map(|(_, flag)| all | *flag).ok_or(format!("no flag `{word}`: there are {names}"))
    })
}

fn absolute(target: &str) -> Result<&str, String> {
    if target.starts_with('/') {
        Ok(target)
    } else {
        Err(format!("`{target}` is no absolute path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_refused() {
        let mount = |target: &str, flag: &str| Mount {
            target: target.into(),
            flags: vec![flag.into()],
            ..Mount::default()
        };
        for (target, flag, word) in [("x", "ro", "absolute"), ("/x", "rw", "`rw`: there are ro,")] {
            let error = super::mount(&mount(target, flag)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(unmount("").is_err());
        let both = flags(&["ro".to_owned(), "bind".to_owned()]).unwrap();
        assert_eq!(both, MountFlags::RDONLY | MountFlags::BIND);
    }
}

//! A stock Debian on a disk, for tests: what runs on our VMM is what runs anywhere.
//!
//! ```text
//!  pins of purpose `debian` ─▶ a repository in a folder ─mmdebstrap─▶ root.tar ─┐
//!  peers (fio, stress-ng ..) ─▶ /peers, with their libraries ────────────────────┴─mke2fs -d─▶ root.ext4
//!                                                      /boot of it ─▶ vmlinuz, initrd (initramfs-tools' own)
//! ```
//!
//! The key of the result hashes each package and this recipe. The machine's own rights don't matter: ownership is kept by
//! fakeroot, and mmdebstrap takes what it is given (root, or user namespaces). Programs whose packages depend on half a
//! desktop come without it, with the libraries that they load.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::arch::Arch;
use crate::cache::{hash, hash_fields};
use crate::elf;
use crate::error::{Error, Result, make_dir, write};
use crate::fetch::Fetcher;
use crate::inputs::{Pin, Purpose};
use crate::progress::{say, span};
use crate::tool;

/// Raised when the way of building changes what comes out.
const RECIPE: &str = "1";
/// Runs when all packages are installed.
const CONFIGURE: &str = include_str!("configure.sh");
/// Sets initramfs-tools before the kernel's package runs it: what a virtual machine needs, and little more.
const PREPARE: &str = "\
set -eu
mkdir -p \"$1/etc/initramfs-tools/conf.d\" \"$1/usr/share/initramfs-tools/modules.d\"
printf 'MODULES=list\\nCOMPRESS=gzip\\nRESUME=none\\n' > \"$1/etc/initramfs-tools/conf.d/guest\"
printf 'virtio_pci\\nvirtio_blk\\next4\\ncrc32c\\n' > \"$1/usr/share/initramfs-tools/modules.d/guest\"
";
/// Programs of `peers` that the guest has, and where.
const PEERS: [&str; 3] = ["fio", "stress-ng", "iperf3"];
/// Room for what it holds and what tests write.
const SIZE: &str = "1G";
/// The same for each build.
const ID: &str = "d3b1a9e0-0000-4000-8000-7a6f73677565";
/// The time that files get, in seconds: any fixed one.
const EPOCH: &str = "1735689600";

const NEEDS: &[tool::Need] = &[
    tool::Need { name: "mmdebstrap", package: "mmdebstrap" },
    tool::Need { name: "fakeroot", package: "fakeroot" },
    tool::Need { name: "tar", package: "tar" },
    tool::Need { name: "cp", package: "coreutils" },
];

/// A Debian to be started.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Debian's own kernel for clouds.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its root, ext4 without partitions. To be copied before it is written to.
    pub root: PathBuf,
}

/// Gives the Debian of the lock, built unless it is in the cache.
///
/// # Errors
/// A package that isn't pinned or can't be had, a program that is missing, or what a step says.
pub fn build(fetcher: &Fetcher, arch: Arch) -> Result<Debian> {
    let pins: Vec<&Pin> = fetcher.lock.of(Purpose::Debian, arch).collect();
    let inputs = &fetcher.inputs;
    let debian = inputs.debian.as_ref().filter(|_| !pins.is_empty()).ok_or_else(|| {
        Error::form("inputs.lock", format!("no Debian for {arch} is pinned: image-builder update"))
    })?;
    let peers: Vec<&Pin> = fetcher.lock.of(Purpose::Peers, arch).collect();
    let mut fields: Vec<&[u8]> = vec![RECIPE.as_bytes(), CONFIGURE.as_bytes(), PREPARE.as_bytes()];
    fields.extend(pins.iter().chain(&peers).map(|pin| pin.sha256.as_bytes()));
    fields.extend([SIZE.as_bytes(), ID.as_bytes(), EPOCH.as_bytes()]);
    fields.extend(debian.packages.iter().map(String::as_bytes));
    let dir = fetcher.cache.debian(&hash_fields(&fields));
    if dir.exists() {
        fetcher.cache.touch(&dir);
        return Ok(Debian::at(&dir));
    }
    tool::require(NEEDS)?;
    let start = Instant::now();
    say(format!("building Debian {} with {} packages", debian.suite, pins.len()));
    let staging = fetcher.staging()?;
    // Whoever mmdebstrap becomes must get there.
    mode(staging.path(), 0o755)?;
    let archive = staging.path().join("repository");
    repository(fetcher, &pins, (&debian.suite, arch), &archive)?;
    let tar = staging.path().join("root.tar");
    bootstrap(&archive, &debian.suite, &debian.packages, &tar)?;
    let result = staging.path().join("result");
    let (tree, more) = (staging.path().join("tree"), staging.path().join("peers"));
    bring_peers(fetcher, arch, &more)?;
    disk(&tar, &tree, &more, &result)?;
    make_dir(dir.parent().unwrap_or(fetcher.cache.root()))?;
    match std::fs::rename(&result, &dir) {
        // Another run was quicker.
        Err(_) if dir.exists() => {}
        done => done.map_err(Error::io("write", &dir))?,
    }
    say(format!("Debian is built, after {}", span(start.elapsed())));
    Ok(Debian::at(&dir))
}

impl Debian {
    fn at(dir: &Path) -> Self {
        let file = |name| dir.join(name);
        Self { kernel: file("vmlinuz"), initrd: file("initrd.img"), root: file("root.ext4") }
    }
}

/// The pinned packages as a repository that apt understands.
fn repository(
    fetcher: &Fetcher,
    pins: &[&Pin],
    (suite, arch): (&str, Arch),
    dir: &Path,
) -> Result<()> {
    make_dir(dir)?;
    let mut index = String::new();
    for pin in pins {
        let blob = fetcher.blob(pin)?;
        let name = format!("{}_{}.deb", pin.name, pin.arch);
        let place = dir.join(&name);
        std::fs::copy(&blob, &place).map_err(Error::io("copy", &blob))?;
        mode(&place, 0o644)?;
        let fields = tool::output(Command::new("dpkg-deb").arg("--field").arg(&blob))?;
        index += &format!(
            "{}\nFilename: ./{name}\nSize: {}\nSHA256: {}\n\n",
            fields.trim_end(),
            pin.size,
            pin.sha256
        );
    }
    write(&dir.join("Packages"), index.as_bytes())?;
    // mmdebstrap looks for essential packages in an archive of the suite's name.
    let release = format!(
        "Suite: {suite}\nCodename: {suite}\nDate: Wed, 01 Jan 2025 00:00:00 UTC\nArchitectures: {}\nSHA256:\n {} {} Packages\n",
        arch.debian(),
        hash(index.as_bytes()),
        index.len()
    );
    write(&dir.join("Release"), release.as_bytes())
}

fn bootstrap(repository: &Path, suite: &str, packages: &[String], tar: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", EPOCH).env("LC_ALL", "C");
    command.args(["--quiet", "--mode=auto", "--variant=essential", "--format=tar"]);
    command.arg(format!("--include={}", packages.join(",")));
    command.args([
        "--aptopt=APT::Sandbox::User \"root\"",
        "--aptopt=APT::Install-Recommends \"false\"",
    ]);
    // Nobody reads them here, and they are many files.
    for path in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*"]
    {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    let hooks = repository.with_file_name("hooks");
    make_dir(&hooks)?;
    for (hook, text) in [("essential", PREPARE), ("customize", CONFIGURE)] {
        let script = hooks.join(hook);
        write(&script, format!("#!/bin/sh\n{text}").as_bytes())?;
        mode(&script, 0o755)?;
        command.arg(format!("--{hook}-hook={}", script.display()));
    }
    command.arg(suite).arg(tar);
    command.arg(format!("deb [trusted=yes] copy:{} ./", repository.display()));
    tool::output(&mut command).map(drop)
}

/// Programs that are run with libraries of their own, and a word in `PATH` for each.
fn bring_peers(fetcher: &Fetcher, arch: Arch, dir: &Path) -> Result<()> {
    let tree = fetcher.merged(Purpose::Peers, arch)?;
    let programs = PEERS.map(|name| tree.join("usr/bin").join(name));
    let libraries = elf::closure(&programs, std::slice::from_ref(&tree), arch)?;
    let (folder, words) = (dir.join("peers"), dir.join("usr/local/bin"));
    make_dir(&folder)?;
    make_dir(&words)?;
    let files = libraries.into_iter().map(|library| library.source).chain(programs);
    for file in files {
        let name = file.file_name().unwrap_or_default();
        std::fs::copy(&file, folder.join(name)).map_err(Error::io("copy", &file))?;
    }
    for name in PEERS {
        let text = format!(
            "#!/bin/sh\nexec /peers/ld-linux-x86-64.so.2 --library-path /peers /peers/{name} \"$@\"\n"
        );
        write(&words.join(name), text.as_bytes())?;
        mode(&words.join(name), 0o755)?;
    }
    Ok(())
}

/// Kernel, initrd and root file system out of the archive.
fn disk(tar: &Path, tree: &Path, peers: &Path, result: &Path) -> Result<()> {
    for dir in [tree, result] {
        make_dir(dir)?;
    }
    // Debian keeps it where only root's PATH leads.
    let mke2fs = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "mke2fs"];
    let mke2fs =
        mke2fs.into_iter().find(|path| tool::present(path)).ok_or(Error::Missing(vec![
            tool::Need { name: "/usr/sbin/mke2fs", package: "e2fsprogs" },
        ]))?;
    let script = format!(
        "tar -C \"$1\" --numeric-owner -xpf \"$2\"\n\
         cp -a --no-preserve=ownership \"$3/.\" \"$1/\"\n\
         cp \"$1\"/boot/vmlinuz-* \"$4/vmlinuz\"\n\
         cp \"$1\"/boot/initrd.img-* \"$4/initrd.img\"\n\
         rm -f \"$1\"/boot/vmlinuz-* \"$1\"/boot/initrd.img-*\n\
         {mke2fs} -q -F -t ext4 -L debian -U {ID} -E hash_seed={ID},root_owner=0:0 -m 0 -d \"$1\" \"$4/root.ext4\" {SIZE}\n"
    );
    let mut command = Command::new("fakeroot");
    command.env("SOURCE_DATE_EPOCH", EPOCH).env("E2FSPROGS_FAKE_TIME", EPOCH);
    command.args(["sh", "-euc", &script, "sh"]).args([tree, tar, peers, result]);
    tool::output(&mut command).map(drop)
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits))
        .map_err(Error::io("change", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::project::Project;

    #[test]
    fn what_it_is_made_of_is_pinned() {
        let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::open(&project, Cache::at(dir.path().to_owned()), true).unwrap();
        let pins: Vec<&Pin> = fetcher.lock.of(Purpose::Debian, Arch::X86_64).collect();
        let wanted = &fetcher.inputs.debian.as_ref().unwrap().packages;
        for name in wanted.iter().map(String::as_str).chain(["bash", "libc6", "systemd"]) {
            assert_eq!(pins.iter().filter(|pin| pin.name == name).count(), 1, "{name}");
        }
        // Offline and with an empty cache nothing can be built, and the reason names a package.
        let error = build(&fetcher, Arch::X86_64).unwrap_err().to_string();
        assert!(
            pins.iter().any(|pin| error.contains(&pin.name)) || error.contains("mmdebstrap"),
            "{error}"
        );
    }
}

//! Debian's mirror, asked through the machine's own apt, without touching the machine's state.
//!
//! ```text
//!  the machine's sources ──site's address──▶ cache/apt/sources.list (our suites)
//!                                            cache/apt/lists        (apt-get update, once a run, only if needed)
//!                                            apt-cache madison, show │ apt-get download
//! ```
//!
//! apt checks the archive's signatures; we pin versions and hashes on top.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::error::{Error, Result, make_dir, write};
use crate::inputs::{Site, Suite};
use crate::progress::say;
use crate::tool;

/// A package file that the mirror serves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Debian's version.
    pub version: String,
    /// "amd64", "arm64", "all".
    pub arch: String,
    /// Of the package file.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Names of the packages that it depends on, first choices only.
    pub depends: Vec<String>,
}

/// apt with lists and sources of our own.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    suites: BTreeMap<String, Suite>,
    fresh: Cell<bool>,
}

impl Apt {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(cache: &Path, suites: &BTreeMap<String, Suite>) -> Self {
        Self { dir: cache.join("apt"), suites: suites.clone(), fresh: Cell::new(false) }
    }

    /// Versions of a package in a suite, newest first.
    ///
    /// # Errors
    /// The mirror can't be asked.
    pub fn versions(&self, name: &str, arch: Arch, suite: &str) -> Result<Vec<String>> {
        self.refresh()?;
        let qualified = format!("{name}:{}", arch.debian());
        let text = tool::output(self.command("apt-cache").args(["madison", &qualified]))?;
        let mut versions = parse_madison(&text, suite);
        versions.dedup();
        Ok(versions)
    }

    /// What the mirror says of one version.
    ///
    /// # Errors
    /// It isn't served, or the answer has no hash.
    pub fn show(&self, name: &str, arch: Arch, version: &str) -> Result<Served> {
        self.refresh()?;
        let qualified = format!("{name}:{}={version}", arch.debian());
        let text = tool::output(self.command("apt-cache").args(["show", &qualified]))?;
        parse_show(&text).ok_or_else(|| {
            Error::form(format!("apt-cache show {name}"), "no hash or size in the answer")
        })
    }

    /// Names and versions of all that an empty machine would get with these packages: the essential ones, these, and what
    /// they depend on, as apt itself resolves it.
    ///
    /// # Errors
    /// A package that isn't served, dependencies that contradict each other, or the network.
    pub fn closure(
        &self,
        names: &[String],
        arch: Arch,
        suite: &str,
    ) -> Result<Vec<(String, String)>> {
        self.refresh()?;
        let mut command = self.command("apt-get");
        command.args(["install", "--print-uris", "--yes", "-qq", "--no-install-recommends"]);
        command.args(["-o", &format!("APT::Default-Release={suite}")]);
        command.arg(format!("?and(?essential,?architecture({}))", arch.debian()));
        let text = tool::output(command.args(names))?;
        Ok(text.lines().filter_map(parse_uri).collect())
    }

    /// Downloads one version into a folder; gives the file.
    ///
    /// # Errors
    /// It isn't served, or the network fails.
    pub fn download(&self, name: &str, arch: &str, version: &str, into: &Path) -> Result<PathBuf> {
        self.refresh()?;
        let qualified = if arch == "all" {
            format!("{name}={version}")
        } else {
            format!("{name}:{arch}={version}")
        };
        tool::output(
            self.command("apt-get").args(["download", "-q", &qualified]).current_dir(into),
        )?;
        let mut entries = std::fs::read_dir(into).map_err(Error::io("read", into))?.flatten();
        let deb = entries.find(|e| e.path().extension().is_some_and(|x| x == "deb"));
        deb.map(|e| e.path())
            .ok_or_else(|| Error::form(format!("apt-get download {name}"), "no file came"))
    }

    /// `apt-get update` for our suites, once in a run.
    fn refresh(&self) -> Result<()> {
        if self.fresh.get() {
            return Ok(());
        }
        tool::require(tool::FETCH)?;
        make_dir(&self.dir.join("lists/partial"))?;
        make_dir(&self.dir.join("archives/partial"))?;
        write(&self.dir.join("sources.list"), self.sources()?.as_bytes())?;
        say("asking the Debian mirror what it serves");
        tool::output(self.command("apt-get").args(["update", "-q"]))?;
        self.fresh.set(true);
        Ok(())
    }

    fn sources(&self) -> Result<String> {
        let targets = tool::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(SITE)|$(RELEASE)|$(ORIGIN)",
            "Created-By: Packages",
        ]))?;
        let sites = match Sites::parse(&targets) {
            Some(sites) => Some(sites),
            // Nothing is a target before the machine's own first `apt-get update`; its sources tell less, but enough.
            None => {
                let uris = tool::output(Command::new("apt-get").args(["update", "--print-uris"]))?;
                Sites::parse(&rows_of_uris(&uris))
            }
        };
        let sites = sites.ok_or_else(|| {
            Error::form("this machine's apt sources", "no Debian archive among them")
        })?;
        let keyring = ["gpg", "pgp"]
            .map(|end| format!("/usr/share/keyrings/debian-archive-keyring.{end}"))
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or(Error::Missing(vec![tool::Need {
                name: "/usr/share/keyrings/debian-archive-keyring.gpg",
                package: "debian-archive-keyring",
            }]))?;
        let lines = self.suites.iter().map(|(name, suite)| {
            let site = match suite.site {
                Site::Main => &sites.main,
                Site::Security => &sites.security,
            };
            format!("deb [signed-by={keyring}] {site} {name} {}\n", suite.components.join(" "))
        });
        Ok(lines.collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            format!("Dir::State::Lists={}", at("lists")),
            "Dir::State::Status=/dev/null".into(),
            format!("Dir::Cache={}", at("")),
            format!("Dir::Cache::Archives={}", at("archives")),
            // Some images of Debian switch these off; without them each call reads all lists again.
            "Dir::Cache::pkgcache=pkgcache.bin".into(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".into(),
            "Acquire::GzipIndexes=false".into(),
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            "APT::Architectures::=amd64".into(),
            "APT::Architectures::=arm64".into(),
            "APT::Update::Error-Mode=any".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "Acquire::http::Timeout=30".into(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        // Only package lists: no file contents, no translations, no descriptions for software centres.
        for target in
            ["Contents-deb", "DEP-11", "DEP-11-icons-small", "DEP-11-icons", "DEP-11-icons-hidpi"]
        {
            command
                .arg("-o")
                .arg(format!("Acquire::IndexTargets::deb::{target}::DefaultEnabled=false"));
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Addresses of the two archives.
#[derive(Debug, PartialEq, Eq)]
struct Sites {
    main: String,
    security: String,
}

impl Sites {
    /// From lines `site|release|origin`; the origin is empty before the machine's first update.
    fn parse(targets: &str) -> Option<Self> {
        const RELEASES: [&str; 8] =
            ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable"];
        let rows = targets.lines().filter_map(|line| {
            let mut fields = line.split('|');
            Some((fields.next()?, fields.next()?, fields.next()?))
        });
        let (mut main, mut security) = (None, None);
        for (site, release, origin) in rows {
            let base = release.split('-').next().unwrap_or_default();
            if !RELEASES.contains(&base) || !(origin.is_empty() || origin == "Debian") {
                continue;
            }
            let place = if release.contains("-security") { &mut security } else { &mut main };
            place.get_or_insert_with(|| site.trim_end_matches('/').to_owned());
        }
        let main = main?;
        // Mirrors serve both archives side by side.
        let security = security.unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }
}

/// Rows for [`Sites::parse`] from `'SITE/dists/RELEASE/InRelease' name size`, short addresses first: other archives that
/// borrow Debian's names for releases lie deeper.
fn rows_of_uris(text: &str) -> String {
    let row = |line: &str| {
        let uri = line.strip_prefix('\'')?.split('\'').next()?;
        let (site, rest) = uri.split_once("/dists/")?;
        Some(format!("{site}|{}|\n", rest.split('/').next()?))
    };
    let mut rows: Vec<String> = text.lines().filter_map(row).collect();
    rows.sort_by_key(|row| {
        row.split('|').next().map(|site| (site.matches('/').count(), site.len()))
    });
    rows.concat()
}

/// Name and version from `'URI' NAME_VERSION_ARCH.deb SIZE HASH`; an epoch's colon is written `%3a`.
fn parse_uri(line: &str) -> Option<(String, String)> {
    let file = line.split(' ').nth(1)?.strip_suffix(".deb")?;
    let mut fields = file.split('_');
    let (name, version, _arch) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name.to_owned(), version.replace("%3a", ":")))
}

/// Versions of one suite from `name | version | site suite/component arch Packages`, in order.
fn parse_madison(text: &str, suite: &str) -> Vec<String> {
    let row = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (_, version, place) = (fields.next()?, fields.next()?, fields.next()?);
        let from = place.split_whitespace().nth(1)?.split('/').next()?;
        (from == suite).then(|| version.to_owned())
    };
    text.lines().filter_map(row).collect()
}

/// The first paragraph of `apt-cache show`.
fn parse_show(text: &str) -> Option<Served> {
    let field = |name: &str| {
        let mut lines = text.lines().take_while(|l| !l.is_empty());
        lines.find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    };
    let names = |list: &str| -> Vec<String> {
        let name = |d: &str| {
            Some(d.split('|').next()?.split_whitespace().next()?.split(':').next()?.to_owned())
        };
        list.split(',').filter_map(name).collect()
    };
    let mut depends = names(field("Pre-Depends").unwrap_or_default());
    depends.extend(names(field("Depends").unwrap_or_default()));
    Some(Served {
        version: field("Version")?.into(),
        arch: field("Architecture")?.into(),
        sha256: field("SHA256")?.to_ascii_lowercase(),
        size: field("Size")?.parse().ok()?,
        depends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sites_are_the_machines_own() {
        let both = "http://m.example/debian|bookworm|Debian\nhttp://m.example/debian-security/|bookworm-security|Debian";
        let one = "https://pkg.example/x|stable|Docker\nhttp://d.example/debian|trixie|\n";
        let rows = [
            (both, Some(("http://m.example/debian", "http://m.example/debian-security"))),
            (one, Some(("http://d.example/debian", "http://d.example/debian-security"))),
            ("https://pkg.example/x|jammy|Ubuntu", None),
            ("", None),
        ];
        for (text, wanted) in rows {
            let found = Sites::parse(text);
            assert_eq!(found, wanted.map(|(m, s)| Sites { main: m.into(), security: s.into() }));
        }
    }

    #[test]
    fn sites_are_found_before_the_first_update() {
        let text = "'https://d.example/linux/debian/dists/bookworm/InRelease' x 0 \n\
                    'http://m.example/debian/dists/bookworm/InRelease' y 0 \n\
                    'http://m.example/debian-security/dists/bookworm-security/InRelease' z 0 \n";
        let sites = Sites::parse(&rows_of_uris(text)).unwrap();
        assert_eq!(sites.main, "http://m.example/debian");
        assert_eq!(sites.security, "http://m.example/debian-security");
    }

    #[test]
    fn madison_rows_of_one_suite() {
        let text = "  ovmf | 2025.02-8 | http://m/debian trixie/main amd64 Packages\n  \
                    ovmf | 2022.11-6 | http://m/s bookworm-security/main amd64 Packages\n";
        assert_eq!(parse_madison(text, "bookworm-security"), ["2022.11-6"]);
        assert_eq!(parse_madison(text, "sid"), Vec::<String>::new());
    }

    #[test]
    fn show_gives_hash_and_first_choices() {
        let text = "Package: nftables\nArchitecture: amd64\nVersion: 1.1.3-1\nPre-Depends: libc6\n\
                    Depends: libx1 (= 1) | libx0, libedit2:any (>= 3)\nSize: 10\nSHA256: AB\n\nVersion: 0\n";
        let shown = parse_show(text).unwrap();
        assert_eq!(shown.depends, ["libc6", "libx1", "libedit2"]);
        assert_eq!(
            (shown.version.as_str(), shown.sha256.as_str(), shown.size),
            ("1.1.3-1", "ab", 10)
        );
    }

    #[test]
    fn a_uri_names_a_version() {
        let check = |line: &str, wanted: Option<(&str, &str)>| {
            let found = parse_uri(line);
            let found = found.as_ref().map(|(name, version)| (name.as_str(), version.as_str()));
            assert_eq!(found, wanted, "{line}");
        };
        let line = "'http://d.example/p/libcap2_2.75-10%2bdeb13u1%2bb3_amd64.deb' libcap2_1%3a2.75-10+deb13u1+b3_amd64.deb 1 MD5Sum:0";
        check(line, Some(("libcap2", "1:2.75-10+deb13u1+b3")));
        check("Reading package lists...", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(text in "(?s).{0,300}") {
            let _ = (Sites::parse(&text), rows_of_uris(&text), parse_madison(&text, "trixie"), parse_show(&text), parse_uri(&text));
        }
    }
}

//! The two kernels: the node's, with drivers and KVM, and the small one inside VMs.
//!
//! ```text
//!  fragments ─merge─▶ key = hash(source, patches, options, compiler, recipe) ─▶ cache/kernels/<key>? ─yes─▶ done
//!                                                                        │ no
//!  source ─unpack─▶ alldefconfig ─▶ every option survived? ─▶ make ─▶ vmlinuz, config, modinfo
//! ```
//!
//! Nothing of the machine gets into the bytes: no path, no user, no host, no time.

pub mod config;
pub mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::cache::hash_fields;
use crate::error::{Error, Result, make_dir, read_text, write};
use crate::fetch::Fetcher;
use crate::progress::{Meter, say, span};
use crate::project::Project;
use crate::tool;
use config::Options;
use source::Patches;

/// Raised when the way of building changes what comes out.
const RECIPE: &str = "1";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Runs the machine.
    Node,
    /// Runs inside a VM.
    Guest,
}

impl Flavour {
    /// Both, the quick one first: a mistake shows early.
    pub const ALL: [Self; 2] = [Self::Guest, Self::Node];

    /// "node", "guest".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Guest => "guest",
        }
    }

    /// Files in `kernel-config/`, a later one over an earlier.
    #[must_use]
    pub fn fragments(self, arch: Arch) -> Vec<String> {
        match self {
            Self::Node => vec!["common.config".into(), format!("{arch}.config")],
            Self::Guest => vec!["guest.config".into(), format!("guest-{arch}.config")],
        }
    }

    /// About how many objects make compiles (6.12.117, x86_64); only the estimate rests on it.
    fn objects(self) -> u64 {
        match self {
            Self::Node => 2950,
            Self::Guest => 1795,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel, built.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Where its files lie.
    dir: PathBuf,
    /// What it is.
    pub facts: Facts,
}

/// What is remembered of a build.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Facts {
    /// "node", "guest".
    pub flavour: String,
    /// As `uname -r` says.
    pub release: String,
    /// Version of the source package.
    pub source: String,
    /// First line of the compiler's version.
    pub compiler: String,
    /// Names everything that went in.
    pub key: String,
}

impl Kernel {
    /// What a boot loader loads.
    #[must_use]
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The final configuration.
    ///
    /// # Errors
    /// Reading it.
    pub fn config(&self) -> Result<Options> {
        config::parse("config", &read_text(&self.dir.join("config"))?)
    }

    /// What the built-in modules say of themselves: `module.field=value`, NUL after each.
    ///
    /// # Errors
    /// Reading it.
    pub fn modinfo(&self) -> Result<Vec<u8>> {
        crate::error::read(&self.dir.join("modinfo"))
    }

    fn open(dir: PathBuf) -> Result<Self> {
        let path = dir.join("facts.json");
        let facts = serde_json::from_str(&read_text(&path)?)
            .map_err(|e| Error::form(path.display().to_string(), e.to_string()))?;
        Ok(Self { dir, facts })
    }
}

/// Everything that decides what a build gives.
struct Recipe {
    package: String,
    version: String,
    patches: Patches,
    compiler: String,
    asked: Options,
    key: String,
}

impl Recipe {
    fn of(project: &Project, fetcher: &Fetcher, arch: Arch, flavour: Flavour) -> Result<Self> {
        let package = source::package(fetcher)?;
        let patches = Patches::of(project)?;
        let pin = fetcher.pin(&package, arch)?;
        let asked = config::merge(&project.kernel_config(), &flavour.fragments(arch))?;
        tool::require(tool::KERNEL)?;
        let version = |name: &str| tool::version(&format!("{}{name}", arch.cross()));
        let compiler = format!("{}; {}", version("gcc")?, version("ld")?);
        let options = config::text(&asked);
        let what = [RECIPE, arch.name(), flavour.name()];
        let fields = [&what[..], &[&pin.sha256, &patches.hash, &compiler, &options]].concat();
        let fields: Vec<&[u8]> = fields.into_iter().map(str::as_bytes).collect();
        let key = hash_fields(&fields);
        Ok(Self { package, version: pin.version.clone(), patches, compiler, asked, key })
    }
}

/// A kernel, if it was built before.
///
/// # Errors
/// Missing tools, or fragments that can't be read.
pub fn cached(
    project: &Project,
    fetcher: &Fetcher,
    arch: Arch,
    flavour: Flavour,
) -> Result<Option<Kernel>> {
    open(fetcher, &Recipe::of(project, fetcher, arch, flavour)?)
}

fn open(fetcher: &Fetcher, recipe: &Recipe) -> Result<Option<Kernel>> {
    let done = fetcher.cache.kernel(&recipe.key);
    if !done.join("facts.json").exists() {
        return Ok(None);
    }
    fetcher.cache.touch(&done);
    Kernel::open(done).map(Some)
}

/// Builds a kernel, or takes it from the cache.
///
/// # Errors
/// Missing tools, options that didn't survive, or make's own error.
pub fn build(project: &Project, fetcher: &Fetcher, arch: Arch, flavour: Flavour) -> Result<Kernel> {
    let recipe = Recipe::of(project, fetcher, arch, flavour)?;
    if let Some(kernel) = open(fetcher, &recipe)? {
        return Ok(kernel);
    }
    let dir = fetcher.cache.build(&recipe.version);
    let source = source::unpack(fetcher, &recipe.package, arch, &recipe.patches, &dir)?;
    let objects = dir.join(format!("{flavour}-{arch}"));
    let job = Job { arch, flavour, source, objects, fetcher };
    let lost = config::lost(&recipe.asked, &job.configure(&config::text(&recipe.asked))?);
    if !lost.is_empty() {
        return Err(Error::Options { kernel: format!("{flavour} {arch}"), lost });
    }
    job.compile()?;
    let release = read_text(&job.objects.join("include/config/kernel.release"))?.trim().to_owned();
    let Recipe { version: source, compiler, key, .. } = recipe;
    let done = fetcher.cache.kernel(&key);
    job.keep(&done, &Facts { flavour: flavour.name().into(), release, source, compiler, key })?;
    Kernel::open(done)
}

struct Job<'a> {
    arch: Arch,
    flavour: Flavour,
    source: PathBuf,
    objects: PathBuf,
    fetcher: &'a Fetcher,
}

impl Job<'_> {
    /// Lets Kconfig complete the options; gives the result.
    fn configure(&self, options: &str) -> Result<Options> {
        make_dir(&self.objects)?;
        let asked = self.objects.join("asked.config");
        write(&asked, options.as_bytes())?;
        tool::output(self.make().arg("-s").env("KCONFIG_ALLCONFIG", asked).arg("alldefconfig"))?;
        config::parse(".config", &read_text(&self.objects.join(".config"))?)
    }

    /// Runs make with a line now and then.
    fn compile(&self) -> Result<()> {
        let (flavour, arch) = (self.flavour, self.arch);
        let counted = self.objects.join("objects.count");
        let total = read_text(&counted)
            .ok()
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(flavour.objects());
        let ccache = if tool::present("ccache") {
            ""
        } else {
            " (with ccache installed, the next one is quicker)"
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        say(format!("{flavour} kernel: compiling about {total} objects on {cores} cores{ccache}"));
        if flavour == Flavour::Node {
            say(
                "this happens once: on 2 cores about 25 minutes, less with more; later runs take it from the cache",
            );
        }
        let mut meter = Meter::new(format!("{flavour} kernel"), "objects", total, Instant::now());
        let mut log = String::new();
        let (target, _) = arch.kernel_image();
        let ran = tool::stream(self.make().arg(format!("-j{cores}")).arg(target), |line| {
            log.push_str(line);
            log.push('\n');
            let object = ["  CC  ", "  AS  "].iter().any(|word| line.starts_with(word));
            if object && let Some(told) = meter.tick(Instant::now()) {
                say(told);
            }
        });
        write(&self.objects.join("build.log"), log.as_bytes())?;
        ran?;
        // A build that went on from an earlier one says nothing about the whole.
        if meter.done() > total / 2 {
            write(&counted, meter.done().to_string().as_bytes())?;
        }
        say(format!(
            "{flavour} kernel: {} objects in {}",
            meter.done(),
            span(meter.elapsed(Instant::now()))
        ));
        Ok(())
    }

    /// make with everything that would make two builds differ set to one value.
    fn make(&self) -> Command {
        let cache = self.fetcher.cache.root();
        let mut make = Command::new("make");
        make.current_dir(&self.source);
        make.arg(format!("O={}", self.objects.display()))
            .arg(format!("ARCH={}", self.arch.kernel()));
        let cross = self.arch.cross();
        if !cross.is_empty() {
            make.arg(format!("CROSS_COMPILE={cross}"));
        }
        if tool::present("ccache") {
            make.arg(format!("CC=ccache {cross}gcc"));
            make.env("CCACHE_DIR", cache.join("ccache")).env("CCACHE_BASEDIR", cache);
            make.env("CCACHE_NOHASHDIR", "1").env("CCACHE_MAXSIZE", "5G");
        }
        make.env("KBUILD_BUILD_TIMESTAMP", "@0").env("KBUILD_BUILD_VERSION", "1");
        make.env("KBUILD_BUILD_USER", "zos").env("KBUILD_BUILD_HOST", "zos").env("LC_ALL", "C");
        // Settings of the person who builds must not leak in.
        for name in ["MAKEFLAGS", "CFLAGS", "KCFLAGS", "LDFLAGS", "KBUILD_OUTPUT", "CROSS_COMPILE"]
        {
            make.env_remove(name);
        }
        make
    }

    /// Puts the results into the cache; the facts come last and say that all is there.
    fn keep(&self, done: &Path, facts: &Facts) -> Result<()> {
        make_dir(done)?;
        let (_, image) = self.arch.kernel_image();
        for (from, to) in
            [(image, "vmlinuz"), (".config", "config"), ("modules.builtin.modinfo", "modinfo")]
        {
            let from = self.objects.join(from);
            std::fs::copy(&from, done.join(to)).map_err(Error::io("copy", &from))?;
        }
        let text = serde_json::to_string_pretty(facts)
            .map_err(|e| Error::form("facts.json", e.to_string()))?;
        write(&done.join("facts.json"), text.as_bytes())
    }
}

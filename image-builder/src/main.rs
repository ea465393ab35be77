//! `image-builder`: from a checkout to bootable files.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::fetch::Fetcher;
use image_builder::inputs::Purpose;
use image_builder::kernel::{self, Flavour};
use image_builder::progress::{say, size, span};
use image_builder::project::Project;
use image_builder::{debian, image, update};

/// Builds the kernels, the initramfs and every bootable form of ZOS.
#[derive(Parser)]
#[command(
    name = "image-builder",
    version,
    after_help = "Examples:\n  \
    image-builder image                     everything, into out/x86_64/\n  \
    image-builder image --offline           the same, from the cache alone\n  \
    image-builder kernel --flavour guest    one kernel only\n  \
    image-builder update                    newest versions of all inputs, into inputs.lock\n  \
    image-builder cache prune --days 14     removes what wasn't used for two weeks"
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds everything: vmlinuz, initramfs.img, zos.efi, zos-usb.img, pxe/, manifest.json
    #[command(
        after_help = "The first time builds two kernels: about 30 minutes on 2 cores. Then seconds.\n\n\
        Examples:\n  image-builder image\n  image-builder image --out /srv/zos --offline\n  \
        dd if=out/x86_64/zos-usb.img of=/dev/sdX bs=4M conv=fsync    write a stick"
    )]
    Image {
        #[command(flatten)]
        common: Common,
        /// Folder for results; a folder per architecture is made in it [default: out/ of the checkout]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Takes our programs (zos-init, zosd, zos-vmm, zos-virtiofsd, zos-guest) from a folder instead of compiling them
        #[arg(long, value_name = "DIR")]
        programs: Option<PathBuf>,
    },
    /// Builds the kernels only, and shows where they lie
    #[command(
        after_help = "Examples:\n  image-builder kernel\n  image-builder kernel --flavour guest"
    )]
    Kernel {
        #[command(flatten)]
        common: Common,
        /// node or guest [default: both]
        #[arg(long)]
        flavour: Option<String>,
    },
    /// Fetches inputs into the cache, so that the rest works offline
    #[command(after_help = "Examples:\n  image-builder fetch\n  \
        image-builder fetch --purpose tests    unpacks QEMU and its firmware, and prints the folder")]
    Fetch {
        #[command(flatten)]
        common: Common,
        /// kernel, tool, library, firmware, microcode, boot, tests, peers or debian [default: all but tests]
        #[arg(long)]
        purpose: Option<String>,
    },
    /// Builds the stock Debian that tests run as a guest, and shows where it lies
    #[command(after_help = "Example:\n  image-builder debian")]
    Debian {
        #[command(flatten)]
        common: Common,
    },
    /// Moves the pins in inputs.lock to the newest versions
    #[command(
        after_help = "Examples:\n  image-builder update\n  image-builder update linux-source-6.12"
    )]
    Update {
        #[command(flatten)]
        common: Common,
        /// Packages of inputs.toml [default: all]
        names: Vec<String>,
    },
    /// Shows or empties the cache
    #[command(subcommand)]
    Cache(CacheVerb),
}

#[derive(Args)]
struct Common {
    /// Architecture of the machines that will boot it: x86_64, aarch64
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Uses the cache only, never the network
    #[arg(long)]
    offline: bool,
}

#[derive(Subcommand)]
enum CacheVerb {
    /// Lists what is there, with sizes
    #[command(after_help = "Example:\n  image-builder cache list")]
    List,
    /// Removes what wasn't used for some time, but nothing that inputs.lock names
    #[command(after_help = "Examples:\n  image-builder cache prune --days 14\n  \
        image-builder cache prune --days 0 --all    everything")]
    Prune {
        /// Days without use
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// Also what inputs.lock names
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    let cache = Cache::of_user()?;
    match verb {
        Verb::Image { common, out, programs } => {
            let (project, fetcher) = open(cache, &common)?;
            let order = image::Order {
                arch: common.arch,
                out: out.unwrap_or_else(|| project.out()),
                programs,
            };
            let (out, manifest) = image::build(&project, &fetcher, &order).context("image")?;
            print!("{}\n{}", out.display(), manifest.table());
            Ok(())
        }
        Verb::Kernel { common, flavour } => {
            let (project, fetcher) = open(cache, &common)?;
            let wanted = |f: &Flavour| flavour.as_deref().is_none_or(|name| name == f.name());
            let flavours: Vec<Flavour> = Flavour::ALL.into_iter().filter(wanted).collect();
            anyhow::ensure!(!flavours.is_empty(), "--flavour is node or guest");
            for flavour in flavours {
                let built =
                    kernel::build(&project, &fetcher, common.arch, flavour).context("kernel")?;
                println!("{flavour}\t{}\t{}", built.facts.release, built.vmlinuz().display());
            }
            Ok(())
        }
        Verb::Fetch { common, purpose } => {
            fetch(&open(cache, &common)?.1, common.arch, purpose.as_deref())
        }
        Verb::Debian { common } => {
            let built = debian::build(&open(cache, &common)?.1, common.arch).context("Debian")?;
            for file in [built.kernel, built.initrd, built.root] {
                println!("{}", file.display());
            }
            Ok(())
        }
        Verb::Update { common, names } => {
            let (project, fetcher) = open(cache, &common)?;
            let (lock, moved) = update::update(&fetcher, common.arch, &names).context("update")?;
            lock.save(&project.lock())?;
            for m in &moved {
                let word = |v: &Option<String>| v.clone().unwrap_or_else(|| "none".into());
                println!("{}: {} -> {}", m.name, word(&m.from), word(&m.to));
            }
            say(format!("{} of {} pins moved", moved.len(), lock.package.len()));
            Ok(())
        }
        Verb::Cache(verb) => manage(&cache, &verb),
    }
}

fn open(cache: Cache, common: &Common) -> anyhow::Result<(Project, Fetcher)> {
    let project = Project::here()?;
    let fetcher = Fetcher::open(&project, cache, common.offline)?;
    Ok((project, fetcher))
}

fn fetch(fetcher: &Fetcher, arch: Arch, purpose: Option<&str>) -> anyhow::Result<()> {
    let named = |p: Purpose| serde_json::to_value(p).is_ok_and(|v| v.as_str() == purpose);
    let wanted = |p: Purpose| if purpose.is_some() { named(p) } else { p.is_in_image() };
    let pins: Vec<_> =
        fetcher.lock.package.iter().filter(|p| p.fits(arch) && wanted(p.purpose)).collect();
    anyhow::ensure!(!pins.is_empty(), "inputs.lock has nothing for that purpose");
    for pin in &pins {
        fetcher.tree(pin).with_context(|| format!("fetch {}", pin.name))?;
    }
    if purpose == Some("tests") {
        println!("{}", fetcher.merged(Purpose::Tests, arch)?.display());
    }
    say(format!("{} packages are in the cache", pins.len()));
    Ok(())
}

fn manage(cache: &Cache, verb: &CacheVerb) -> anyhow::Result<()> {
    let now = SystemTime::now();
    match *verb {
        CacheVerb::List => {
            let entries = cache.list()?;
            for e in &entries {
                let age = now.duration_since(e.used).unwrap_or_default();
                println!("{:<9} {:>10}  {:>10} ago  {}", e.shelf, size(e.size), span(age), e.name);
            }
            let total = entries.iter().map(|e| e.size).sum();
            println!("{} in {}", size(total), cache.root().display());
        }
        CacheVerb::Prune { days, all } => {
            let project = Project::here();
            anyhow::ensure!(all || project.is_ok(), "run it inside a checkout, or say --all");
            let lock = match project {
                Ok(project) if !all => image_builder::inputs::Lock::load(&project.lock())?,
                _ => image_builder::inputs::Lock::default(),
            };
            let pinned = |name: &str| lock.package.iter().any(|p| p.sha256 == name);
            let gone = cache.prune(Duration::from_secs(days * 86_400), now, |e| pinned(&e.name))?;
            let freed = gone.iter().map(|e| e.size).sum();
            println!("removed {} entries, {}", gone.len(), size(freed));
        }
    }
    Ok(())
}

//! The figures, with what they are held against.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use image_builder::cpio::entries;
use image_builder::initramfs;
use qemu_tests::image;
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what: `ms`, `MiB`, `exits`.
    pub unit: &'static str,
    /// A peer's value of the same in the same run, with the peer's name.
    pub peer: Option<(&'static str, f64)>,
    /// What it is to stay below. For times it holds on real hardware only.
    pub goal: Option<f64>,
}

/// All figures in the order in which they are shown.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// Adds one; a goal or a peer may follow.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str) -> &mut Figure {
        self.0.push(Figure { name: name.to_owned(), value, unit, peer: None, goal: None });
        self.0.last_mut().expect("one was just added")
    }

    /// Adds zos-vmm's beside QEMU's two machines: a row for each; a goal may follow.
    pub(crate) fn beside(&mut self, name: &str, unit: &'static str, all: [f64; 3]) -> &mut Figure {
        let [own, microvm, q35] = all;
        self.add(name, own, unit).peer = Some(("QEMU q35", q35));
        let figure = self.add(name, own, unit);
        figure.peer = Some(("QEMU microvm", microvm));
        figure
    }

    /// A figure of before.
    pub(crate) fn find(&mut self, name: &str) -> Option<&mut Figure> {
        self.0.iter_mut().find(|figure| figure.name == name)
    }

    /// As a table for people.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "{:<44}{:>12} {:<6}{:>10}  {:<28}{:>7}\n",
            "FIGURE", "VALUE", "", "GOAL", "PEER", "RATIO"
        );
        for Figure { name, value, unit, peer, goal } in &self.0 {
            let goal = goal.map_or_else(String::new, |goal| format!("<= {}", number(goal)));
            let (peer, ratio) = match peer {
                Some((name, other)) => {
                    let ratio =
                        if *other > 0.0 { format!("{:.2}", value / other) } else { "-".into() };
                    (format!("{name} {}", number(*other)), ratio)
                }
                None => Default::default(),
            };
            let value = number(*value);
            let _ =
                writeln!(out, "{name:<44}{value:>12} {unit:<6}{goal:>10}  {peer:<28}{ratio:>7}");
        }
        out
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The middle one of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes as MiB.
#[allow(clippy::cast_precision_loss)] // sizes of files and memories, shown with two digits
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A whole number to reckon with.
#[allow(clippy::cast_precision_loss)] // counts far below 2^52
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Sizes of what is shipped.
pub(crate) fn image(figures: &mut Figures) -> Result<()> {
    for name in ["vmlinuz", "initramfs.img", "zos.efi"] {
        let size = std::fs::metadata(image::file(name)?).context("look at the image")?.len();
        figures.add(&format!("image: {name}"), mib(size), "MiB");
    }
    let manifest = std::fs::read(image::file("manifest.json")?).context("read manifest.json")?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&manifest).context("read manifest.json")?;
    for (key, name, unit) in [
        ("root", "image: root file system", "MiB"),
        ("zos.efi without blobs", "image: zos.efi without blobs", "MiB"),
        ("programs", "image: programs", ""),
    ] {
        let size = &manifest["sizes"][key];
        let read = |field: &str| size[field].as_u64().with_context(|| format!("{key} {field}"));
        let shown = |value: u64| if unit == "MiB" { mib(value) } else { float(value) };
        figures.add(name, shown(read("value")?), unit).goal = Some(shown(read("limit")?));
    }
    largest(figures)
}

/// What dominates the root, by the folder or program that it stands in.
fn largest(figures: &mut Figures) -> Result<()> {
    let image = std::fs::read(image::initramfs()?).context("read the initramfs")?;
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for archive in initramfs::archives(&image)? {
        for (path, _, data) in entries(&archive).context("read an archive of the initramfs")? {
            let part = match path.rsplit_once('/') {
                Some((folder, _)) if !folder.ends_with("bin") => {
                    folder.split('/').take(2).collect::<Vec<_>>().join("/")
                }
                _ => path,
            };
            *parts.entry(part).or_default() += data.len() as u64;
        }
    }
    let mut parts: Vec<(String, u64)> = parts.into_iter().collect();
    parts.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    for (part, size) in parts.into_iter().take(8) {
        figures.add(&format!("image: in the root, {part}"), mib(size), "MiB");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_goals_peers_and_ratios() {
        let mut figures = Figures::default();
        figures.add("boot", 50.0, "ms").peer = Some(("other", 200.0));
        figures.add("memory", 1.5, "MiB").goal = Some(2.0);
        figures.add("idle", 0.0, "").peer = Some(("other", 0.0));
        let table = figures.table();
        assert!(!table.contains("NaN"), "{table}");
        assert!(table.contains("other 200") && table.contains("0.25") && table.contains("<= 2"));
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}

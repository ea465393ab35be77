//! Settings: what is said about the node, in layers. A later one wins.
//!
//! ```text
//!  defaults in code ─▶ baked: /etc/zos/<daemon>.toml ─▶ farmer: zos.conf, kernel command line
//!                                                               (merged by PID 1: settings.json)
//!        Settings ── Daemon::config ──▶ Reader ──▶ Config      typed, once, at the start
//!                                         └──────▶ a fault for each word that makes no sense
//! ```
//! A word that makes no sense is shown and then not followed: a node that did not come up could not
//! even say what is wrong with it. The farmer's settings on disk will be one more layer.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use zos_types::Fault;

/// Where PID 1 writes the farmer's.
pub const PATH: &str = "/run/zos/settings.json";
/// Where the image has what it sets for a daemon.
const BAKED: &str = "/etc/zos";

/// Settings by key, without the `zos.` prefix: `farm`, `disk.adopt`.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, Setting>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Setting {
    value: String,
    /// How a person finds it: `zos.farm`, or `farm in /etc/zos/apid.toml`.
    name: String,
}

impl Settings {
    /// Reads all layers of a daemon; no file means nothing said.
    pub(crate) fn load(daemon: &str) -> io::Result<Self> {
        Self::read(&Path::new(BAKED).join(format!("{daemon}.toml")), Path::new(PATH))
    }

    fn read(baked: &Path, farmer: &Path) -> io::Result<Self> {
        let mut settings = Self::default();
        if let Some(text) = content(baked)? {
            let table: toml::Table = text.parse().map_err(|e| invalid(baked, &e))?;
            settings.add_table("", &table, baked);
        }
        if let Some(text) = content(farmer)? {
            let pairs: BTreeMap<String, String> =
                serde_json::from_str(&text).map_err(|e| invalid(farmer, &e))?;
            settings.0.extend(pairs.into_iter().map(from_farmer));
        }
        Ok(settings)
    }

    /// `[disk] adopt = "none"` is `disk.adopt`, and a list its items with commas between.
    fn add_table(&mut self, above: &str, table: &toml::Table, file: &Path) {
        for (key, value) in table {
            let key = format!("{above}{key}");
            if let toml::Value::Table(below) = value {
                self.add_table(&format!("{key}."), below, file);
            } else {
                let name = format!("{key} in {}", file.display());
                self.0.insert(key, Setting { value: plain(value), name });
            }
        }
    }

    /// A setting's value as it was written; a bare key has the empty text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|setting| setting.value.as_str())
    }
}

impl FromIterator<(String, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(from_farmer).collect())
    }
}

fn from_farmer((key, value): (String, String)) -> (String, Setting) {
    let name = format!("zos.{key}");
    (key, Setting { value, name })
}

fn content(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

fn invalid(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// What a daemon makes of the settings. Parsed once; nobody looks keys up after that.
pub trait Config: Sized {
    /// Reads the keys that this daemon follows.
    fn read(reader: &mut Reader<'_>) -> Self;
}

/// Reads settings, and collects what is wrong with them.
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Reads a whole configuration, with a fault for each word that is not followed.
    pub fn config<C: Config>(settings: &'a Settings) -> (C, Vec<Fault>) {
        let mut reader = Self { settings, faults: Vec::new() };
        let config = C::read(&mut reader);
        (config, reader.faults)
    }

    /// A text, if one was set that isn't empty.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.settings.get(key).filter(|text| !text.is_empty())
    }

    /// One of some words.
    pub fn choice<T: Clone>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let named: Vec<String> = words
            .iter()
            .filter(|(word, _)| !word.is_empty())
            .map(|(word, _)| format!("`{word}`"))
            .collect();
        let rule = format!("write {}", named.join(" or "));
        self.with(key, &rule, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
        })
    }

    /// A value in a form of the daemon's own: none is a fault that tells `rule`.
    pub fn with<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let Setting { value, name } = self.settings.0.get(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let detail = format!("{name}: `{value}` is not followed: {rule}");
            self.faults.push(Fault::new(format!("settings.refused:{key}"), detail));
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        adopt: Option<bool>,
        vlan: Option<u16>,
        farm: Option<String>,
    }

    impl Config for Sample {
        fn read(reader: &mut Reader<'_>) -> Self {
            Self {
                adopt: reader.choice("disk.adopt", &[("empty", true), ("none", false)]),
                vlan: reader.with("vlan", "write a number", |text| text.trim().parse().ok()),
                farm: reader.text("farm").map(str::to_owned),
            }
        }
    }

    fn of(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words_are_followed_or_shown_with_what_is_allowed() {
        let (sample, faults) =
            Reader::config::<Sample>(&of(&[("disk.adopt", "none"), ("vlan", " 7"), ("farm", "")]));
        assert_eq!(faults, []);
        assert_eq!(sample, Sample { adopt: Some(false), vlan: Some(7), farm: None });
        let (sample, faults) =
            Reader::config::<Sample>(&of(&[("disk.adopt", "all"), ("vlan", "x")]));
        assert_eq!(sample, Sample { adopt: None, vlan: None, farm: None });
        let told: Vec<_> = faults.iter().map(|f| format!("{} {}", f.id, f.detail)).collect();
        assert_eq!(
            told,
            [
                "settings.refused:disk.adopt zos.disk.adopt: `all` is not followed: write `empty` or `none`",
                "settings.refused:vlan zos.vlan: `x` is not followed: write a number",
            ]
        );
    }

    #[test]
    fn the_farmer_wins_over_the_image_and_no_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (baked, farmer) =
            (folder.path().join("testd.toml"), folder.path().join("settings.json"));
        let read = || Settings::read(&baked, &farmer);
        assert_eq!(read().unwrap().get("farm"), None);
        std::fs::write(&baked, "farm = 7\nnic = 'eth0'\ndns = ['a', 'b']\n[disk]\nadopt = 'x'")
            .unwrap();
        std::fs::write(&farmer, r#"{"farm": "8", "debug": ""}"#).unwrap();
        let settings = read().unwrap();
        let said =
            ["farm", "nic", "dns", "disk.adopt", "debug"].map(|key| settings.get(key).unwrap());
        assert_eq!(said, ["8", "eth0", "a,b", "x", ""]);
        let (_, faults) = Reader::config::<Sample>(&settings);
        let place = format!("disk.adopt in {}: `x`", baked.display());
        assert!(faults[0].detail.starts_with(&place), "{faults:?}");
        for (path, text) in [(&baked, "farm ="), (&farmer, "{")] {
            std::fs::write(path, text).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
            std::fs::write(path, "").unwrap();
        }
    }
}

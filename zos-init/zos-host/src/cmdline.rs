//! The node's settings: kernel command line and `zos.conf` in, a flat map out.
//!
//! ```text
//!  /proc/cmdline   quiet zos.farm=zk3x zos.nic="pci-0000:00:02.0"  ─┐ wins
//!                                                                  ├─▶ Settings { farm, nic, ... } + notes
//!  zos.conf        farm = zk3x        # one `key = value` a line    ─┘
//! ```
//!
//! Keys lose their `zos.` prefix; `farmer_id`, `runmode` and `vlan:` of older nodes are aliases.
//! Nothing here is fatal: an unknown `zos.` key, a value that breaks its rule or a line without `=`
//! becomes a [`Note`] that the node shows, with the nearest known key.

use std::collections::BTreeMap;
use std::fmt;

/// Keys of the node, without the `zos.` prefix.
pub const KNOWN: &[(&str, Rule)] = &[
    ("farm", Rule::Text),
    ("farmer", Rule::Text),
    ("mode", Rule::OneOf(&["prod", "test", "dev"])),
    ("nic", Rule::Text),
    ("vlan", Rule::Text),
    ("ip", Rule::Text),
    ("dns", Rule::Text),
    ("ntp", Rule::Text),
    ("update", Rule::Text),
    ("console", Rule::Text),
    ("log", Rule::Text),
    ("disk.adopt", Rule::OneOf(&["empty", "none"])),
    ("disk.standby", Rule::Text),
    ("twin.disk", Rule::Text),
    ("twin.receive", Rule::Text),
    ("twin.transmit", Rule::Text),
    ("identity", Rule::Text),
    ("tpm", Rule::OneOf(&["new"])),
    ("state", Rule::Text),
    ("hostname", Rule::Text),
    ("watchdog", Rule::Text),
    ("rescue", Rule::Text),
    // Not a farmer's: what a kernel started by another one finds.
    ("boot", Rule::OneOf(&["kexec"])),
    ("debug", Rule::Flag),
];

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Any text; its reader checks it.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Present without a value, or `0`, `1`, `no`, `yes`, `false`, `true`; stored as `0` or `1`.
    Flag,
}

/// Where a setting was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The kernel command line.
    CommandLine,
    /// `zos.conf` on the boot stick, with its line (from 1).
    ConfFile(usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("kernel command line"),
            Self::ConfFile(line) => write!(f, "zos.conf line {line}"),
        }
    }
}

/// Something the farmer should know about the settings; the boot goes on without that setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A key that nobody reads.
    Unknown {
        /// The key as written.
        key: String,
        /// The known key it looks like.
        nearest: Option<&'static str>,
        /// Where.
        origin: Origin,
    },
    /// A value outside its rule; it is not used.
    BadValue {
        /// The known key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What is allowed.
        allowed: &'static [&'static str],
        /// Where.
        origin: Origin,
    },
    /// A line of `zos.conf` that is not `key = value`.
    BadLine {
        /// Where.
        origin: Origin,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key, nearest: Some(nearest), origin } => {
                write!(f, "{origin}: unknown key zos.{key}; did you mean zos.{nearest}?")
            }
            Self::Unknown { key, nearest: None, origin } => {
                write!(f, "{origin}: unknown key zos.{key}")
            }
            Self::BadValue { key, value, allowed, origin } => {
                write!(f, "{origin}: zos.{key}={value} is not one of {}", allowed.join(", "))
            }
            Self::BadLine { origin } => write!(f, "{origin}: expected `key = value`"),
        }
    }
}

/// An argument of the kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Left of the first `=`.
    pub key: String,
    /// Right of it; `None` without `=`.
    pub value: Option<String>,
}

/// Splits a kernel command line as the kernel does: white space separates, except within double
/// quotes, which are dropped; they may stand around the value or the whole argument. There is no
/// escape for a quote. Arguments after `--` are for PID 1 and are not returned.
#[must_use]
pub fn arguments(line: &str) -> Vec<Argument> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if (c.is_whitespace() || c == '\0') && !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words.truncate(words.iter().position(|word| word == "--").unwrap_or(words.len()));
    let split = |word: String| match word.split_once('=') {
        Some((key, value)) => Argument { key: key.to_owned(), value: Some(value.to_owned()) },
        None => Argument { key: word, value: None },
    };
    words.into_iter().map(split).collect()
}

/// Settings of this boot by key (without `zos.`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
    notes: Vec<Note>,
}

impl Settings {
    /// Reads both sources; the command line wins over `conf` (the text of `zos.conf`), and within a
    /// source the last mention wins.
    #[must_use]
    pub fn parse(command_line: &str, conf: Option<&str>) -> Self {
        let mut settings = Self::default();
        for (index, line) in conf.unwrap_or_default().lines().enumerate() {
            settings.conf_line(line, Origin::ConfFile(index + 1));
        }
        for argument in arguments(command_line) {
            let value = argument.value.as_deref();
            match argument.key.strip_prefix("zos.") {
                // iPXE passes the file's name in front of the arguments, and ours is zos.efi.
                Some("efi") if value.is_none() => true,
                Some(key) => settings.set(key, value, Origin::CommandLine),
                None => settings.alias(&argument.key, value, Origin::CommandLine),
            };
        }
        settings
    }

    /// A setting, if the farmer gave it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// A flag such as `debug`.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }

    /// All settings, by key: what `/run/zos/settings.json` holds.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<&'static str, String> {
        &self.values
    }

    /// What could not be used, for the farmer.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn conf_line(&mut self, line: &str, origin: Origin) {
        // A farmer's editor may add a byte order mark, and Windows ends lines with CR LF.
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        let Some((key, value)) = line.split_once('=') else {
            self.notes.push(Note::BadLine { origin });
            return;
        };
        let (key, value) = (key.trim(), conf_value(value));
        let key = key.strip_prefix("zos.").unwrap_or(key);
        if !self.alias(key, Some(value), origin) {
            self.set(key, Some(value), origin);
        }
    }

    /// Names that older nodes used. `vlan:priv` and `vlan:pub` become `priv:N` and `pub:N` of `vlan`.
    fn alias(&mut self, key: &str, value: Option<&str>, origin: Origin) -> bool {
        match (key, value) {
            ("farmer_id", _) => self.set("farm", value, origin),
            ("runmode", Some("qa")) => self.set("mode", Some("test"), origin),
            ("runmode", _) => self.set("mode", value, origin),
            (key, Some(id)) => match key.strip_prefix("vlan:") {
                Some(which) => {
                    let entry = format!("{which}:{id}");
                    let vlan = self.values.entry("vlan").or_default();
                    if !vlan.split(',').any(|known| known == entry) {
                        let comma = if vlan.is_empty() { "" } else { "," };
                        *vlan = format!("{vlan}{comma}{entry}");
                    }
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    fn set(&mut self, key: &str, value: Option<&str>, origin: Origin) -> bool {
        let Some(&(key, rule)) = KNOWN.iter().find(|(known, _)| *known == key) else {
            let nearest = nearest(key, KNOWN.iter().map(|(known, _)| *known));
            self.notes.push(Note::Unknown { key: key.to_owned(), nearest, origin });
            return true;
        };
        let (accepted, allowed): (Option<&str>, &[&str]) = match rule {
            Rule::Text => (Some(value.unwrap_or_default()), &[]),
            Rule::OneOf(words) => (words.iter().copied().find(|word| Some(*word) == value), words),
            Rule::Flag => match value {
                None | Some("" | "1" | "yes" | "true" | "on") => (Some("1"), &[]),
                Some("0" | "no" | "false" | "off") => (Some("0"), &[]),
                Some(_) => (None, &["0", "1"]),
            },
        };
        match accepted {
            Some(accepted) => {
                self.values.insert(key, accepted.to_owned());
            }
            None => self.notes.push(Note::BadValue {
                key,
                value: value.unwrap_or_default().to_owned(),
                allowed,
                origin,
            }),
        }
        true
    }
}

/// The value of a `zos.conf` line: quotes around it go, and an unquoted ` #` starts a comment.
fn conf_value(text: &str) -> &str {
    let text = text.trim();
    if let Some((inside, _)) = text.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        return inside;
    }
    let cut = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    text[..cut].trim_end()
}

/// The candidate with the smallest edit distance to `word`, if it is near enough to be a slip:
/// at most a third of the longer word's letters, and at least one.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A hostile word of a megabyte would cost a second; nobody slips that far.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Slips between two words: letters added, left out, replaced, or swapped with their neighbour
/// (Damerau-Levenshtein, optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;

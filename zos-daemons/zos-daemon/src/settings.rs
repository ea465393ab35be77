//! The farmer's settings: the `zos.` keys of kernel command line and `zos.conf`, merged by PID 1.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Where PID 1 writes them.
pub const PATH: &str = "/run/zos/settings.json";

/// Settings by key, without the `zos.` prefix: `farm`, `disk.adopt`.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads them; no file means no settings.
    pub fn load() -> io::Result<Self> {
        Self::read(Path::new(PATH))
    }

    fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map(Self).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// A setting's value; a bare key has the empty text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_missing_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        assert_eq!(Settings::read(&path).unwrap().get("farm"), None);
        std::fs::write(&path, r#"{"farm": "7", "debug": ""}"#).unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!((settings.get("farm"), settings.get("debug")), (Some("7"), Some("")));
        std::fs::write(&path, "{").unwrap();
        assert!(Settings::read(&path).is_err());
    }
}

//! Kernel configuration: fragments in, proof out that Kconfig kept every option asked for.
//!
//! Kconfig drops silently what it can't satisfy (a renamed option, a missing dependency). A node without its NIC
//! driver is found in the field; a line in [`Error::Options`] is found here.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result, read_text};

/// Options by name (with `CONFIG_`); the value as written: `y`, `n`, `64`, `"text"`.
pub type Options = BTreeMap<String, String>;

/// Parses a fragment or a `.config`.
///
/// # Errors
/// A line that is neither an option nor a comment, or an option that one text sets to two values.
pub fn parse(name: &str, text: &str) -> Result<Options> {
    let mut options = Options::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = || format!("{name}: line {}", number + 1);
        let Some((key, value)) = option(line) else {
            // Only this comment means something, so a slip in it must not pass as prose.
            if line.is_empty() || (line.starts_with('#') && !line.starts_with("# CONFIG_")) {
                continue;
            }
            return Err(Error::form(
                at(),
                "is no option (CONFIG_X=y, # CONFIG_X is not set) and no comment",
            ));
        };
        let old = options.insert(key.to_owned(), value.to_owned());
        if old.as_deref().is_some_and(|old| old != value) {
            return Err(Error::form(at(), format!("{key} was set to another value above")));
        }
    }
    Ok(options)
}

fn option(line: &str) -> Option<(&str, &str)> {
    let named = |key: &str| {
        let tail = key.strip_prefix("CONFIG_").unwrap_or_default();
        !tail.is_empty() && tail.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (key, value) = match line.strip_prefix("# ") {
        Some(rest) => (rest.strip_suffix(" is not set")?, "n"),
        None => line.split_once('=')?,
    };
    (named(key) && !value.is_empty()).then_some((key, value))
}

/// Fragments of a folder, laid over each other in order: a later one may override an earlier.
///
/// # Errors
/// As [`parse`].
pub fn merge(dir: &Path, names: &[String]) -> Result<Options> {
    let mut merged = Options::new();
    for name in names {
        let path = dir.join(name);
        merged.extend(parse(name, &read_text(&path)?)?);
    }
    Ok(merged)
}

/// As `KCONFIG_ALLCONFIG` reads it.
#[must_use]
pub fn text(options: &Options) -> String {
    let line = |(key, value): (&String, &String)| match value.as_str() {
        "n" => format!("# {key} is not set\n"),
        _ => format!("{key}={value}\n"),
    };
    options.iter().map(line).collect()
}

/// What was asked for and isn't so, a line each; empty when all survived.
#[must_use]
pub fn lost(asked: &Options, got: &Options) -> Vec<String> {
    let found = |key: &String| got.get(key).map_or("n", String::as_str);
    let differs = asked.iter().filter(|(key, value)| found(key) != value.as_str());
    differs.map(|(key, value)| format!("{key}: asked for {value}, found {}", found(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_did_not_survive_is_named() {
        let asked = parse(
            "f",
            "CONFIG_A=y\nCONFIG_B=n\n# CONFIG_C is not set\nCONFIG_D=64\nCONFIG_E=\"x y\"",
        )
        .unwrap();
        let rows: [(&str, &[&str]); 4] = [
            ("CONFIG_A=y\nCONFIG_D=64\nCONFIG_E=\"x y\"", &[]),
            ("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=64\nCONFIG_E=\"x y\"", &[]),
            ("CONFIG_D=64\nCONFIG_E=\"x y\"", &["CONFIG_A: asked for y, found n"]),
            (
                "CONFIG_A=m\nCONFIG_C=y\nCONFIG_D=8\nCONFIG_E=\"x\"",
                &[
                    "CONFIG_A: asked for y, found m",
                    "CONFIG_C: asked for n, found y",
                    "CONFIG_D: asked for 64, found 8",
                    "CONFIG_E: asked for \"x y\", found \"x\"",
                ],
            ),
        ];
        for (config, wanted) in rows {
            assert_eq!(lost(&asked, &parse("c", config).unwrap()), wanted);
        }
    }

    #[test]
    fn slips_are_refused() {
        for text in [
            "CONFIG_A",
            "CONFIG_A=",
            "config_a=y",
            "# CONFIG_A is not sett",
            "CONFIG_A=y\nCONFIG_A=n",
            "CONFIG_=y",
        ] {
            assert!(parse("f", text).is_err(), "{text:?}");
        }
        assert!(parse("f", "# a comment\n\nCONFIG_A=y\nCONFIG_A=y").is_ok());
    }

    #[test]
    fn the_committed_fragments_parse() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config");
        for arch in crate::arch::Arch::ALL {
            for flavour in crate::kernel::Flavour::ALL {
                let merged = merge(&dir, &flavour.fragments(arch)).unwrap();
                assert!(merged.len() > 150, "{flavour} {arch}: {}", merged.len());
                assert_eq!(parse("merged", &text(&merged)).unwrap(), merged);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            let _ = parse("f", &text);
        }
    }
}

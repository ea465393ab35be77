//! The file of `zos apply`: TOML or JSON, into the JSON that the node takes.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use zos_types::Name;

use crate::exit::Usage;

/// A deployment as written, with or without its version.
#[derive(Debug)]
pub(crate) struct DeploymentFile {
    /// What the deployment is called.
    pub(crate) name: Name,
    fields: Map<String, Value>,
}

impl DeploymentFile {
    /// Reads a file, or standard input when it is `-`.
    pub(crate) fn read(path: &Path, name: Option<Name>) -> anyhow::Result<Self> {
        let shown = path.display();
        let stdin = path.as_os_str() == "-";
        let text = if stdin {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read standard input")?;
            text
        } else {
            std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?
        };
        let json = path.extension().is_some_and(|e| e == "json");
        let fields = parse(&text, json).with_context(|| format!("{shown} can't be read"))?;
        let name = match name {
            Some(name) => name,
            None if stdin => bail!(Usage("say with --name what the deployment is called".into())),
            None => {
                path.file_stem().unwrap_or_default().to_string_lossy().parse().map_err(|e| {
                    Usage(format!(
                        "the file's name is to be the deployment's, but {e}; or give --name"
                    ))
                })?
            }
        };
        Ok(Self { name, fields })
    }

    /// Whether the file says its version.
    pub(crate) fn has_version(&self) -> bool {
        self.fields.contains_key("version")
    }

    /// The body that the node gets, with this version where the file says none. The same file
    /// always gives the same bytes.
    pub(crate) fn body(&self, version: Option<u64>) -> anyhow::Result<Vec<u8>> {
        let mut fields = self.fields.clone();
        if let Some(version) = version {
            fields.entry("version").or_insert(version.into());
        }
        Ok(serde_json::to_vec(&fields)?)
    }
}

fn parse(text: &str, json: bool) -> anyhow::Result<Map<String, Value>> {
    if json { Ok(serde_json::from_str(text)?) } else { Ok(toml::from_str(text)?) }
}

#[cfg(test)]
mod tests {
    use zos_types::Deployment;

    use super::*;

    const HELLO: &str = include_str!("../../../docs/examples/hello.toml");
    const SHARES: &str = include_str!("../../../docs/examples/shares.toml");

    #[test]
    fn the_sample_of_shares_is_a_good_deployment() {
        let file =
            DeploymentFile { name: "web".parse().unwrap(), fields: parse(SHARES, false).unwrap() };
        let deployment = Deployment::from_json(&file.body(None).unwrap()).unwrap();
        let kinds: Vec<&str> =
            deployment.workloads.values().map(zos_types::Workload::kind).collect();
        assert_eq!(kinds, ["share", "vm", "vm"]);
    }

    #[test]
    fn the_sample_is_a_good_deployment() {
        let file =
            DeploymentFile { name: "hello".parse().unwrap(), fields: parse(HELLO, false).unwrap() };
        assert!(file.has_version());
        let deployment = Deployment::from_json(&file.body(None).unwrap()).unwrap();
        assert_eq!((deployment.version, deployment.workloads.len()), (1, 2));
        assert_eq!(file.body(Some(7)).unwrap(), file.body(None).unwrap());
    }

    #[test]
    fn every_sample_is_a_good_deployment() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");
        for file in std::fs::read_dir(folder).unwrap() {
            let file = DeploymentFile::read(&file.unwrap().path(), None).unwrap();
            let deployment = Deployment::from_json(&file.body(None).unwrap());
            assert!(deployment.is_ok(), "{}: {deployment:?}", file.name);
        }
    }

    #[test]
    fn a_missing_version_is_filled_in() {
        let fields = parse("[workloads]\n", false).unwrap();
        let file = DeploymentFile { name: "a".parse().unwrap(), fields };
        let body = String::from_utf8(file.body(Some(7)).unwrap()).unwrap();
        assert_eq!(body, r#"{"version":7,"workloads":{}}"#);
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let error = parse("version = 1\nversion = 2\n", false).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(parse("[1]", true).is_err());
    }
}

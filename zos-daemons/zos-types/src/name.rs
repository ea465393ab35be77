//! Names that twins give: of deployments, and of the workloads in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The rule in words, for errors.
pub const RULE: &str =
    "1 to 36 characters of a-z, 0-9 and `-`, and neither begins nor ends with `-`";

/// A deployment's or workload's name: `^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$`.
///
/// Holding one proves that it is safe as a path component, a cgroup and a DNS label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name: a name has {RULE}")]
pub struct NameError(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|&b| b != b'-');
        let bytes = text.as_bytes();
        let fits = bytes.len() <= 36
            && bytes.iter().all(|&b| inner(b))
            && edge(bytes.first())
            && edge(bytes.last());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One workload of one deployment: `deployment/workload` for people, `deployment.workload` in
/// cgroups and unit names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkloadName {
    /// The deployment's name, unique per twin.
    pub deployment: Name,
    /// The workload's name, unique in its deployment.
    pub workload: Name,
}

impl WorkloadName {
    /// `deployment.workload`, as cgroups, files and units are called.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.deployment, self.workload)
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.workload)
    }
}

impl FromStr for WorkloadName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (deployment, workload) =
            text.split_once('/').ok_or_else(|| NameError(text.chars().take(80).collect()))?;
        Ok(Self { deployment: deployment.parse()?, workload: workload.parse()? })
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use as_text;

as_text!(Name);
as_text!(WorkloadName);

impl utoipa::PartialSchema for Name {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        crate::unit::string_schema("A name.", "^[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?$")
    }
}

impl utoipa::ToSchema for Name {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check =
            |text: &str, fits: bool| assert_eq!(text.parse::<Name>().is_ok(), fits, "{text}");
        check("a", true);
        check("web-1", true);
        check(&"a".repeat(36), true);
        check(&"a".repeat(37), false);
        check("", false);
        check("-a", false);
        check("a-", false);
        check("A", false);
        check("a.b", false);
        check("../x", false);
        check("ä", false);
    }

    #[test]
    fn workload_names_have_both_forms() {
        let name: WorkloadName = "web/db-1".parse().unwrap();
        assert_eq!((name.to_string(), name.dotted()), ("web/db-1".into(), "web.db-1".into()));
        assert!("web".parse::<WorkloadName>().is_err());
        assert!("a/b/c".parse::<WorkloadName>().is_err());
    }
}

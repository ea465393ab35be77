//! What a volume is made from: another volume as it is, or a snapshot of one.
//!
//! ```text
//!  a deployment's text   [deployment/]volume[@snapshot]      OriginName
//!                               │ within(deployment)
//!                               ▼
//!  what storaged is told  deployment/volume[@snapshot]       Origin
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameError, WorkloadName, as_text};

/// A volume of a twin, or a snapshot of it: `deployment/volume[@snapshot]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// The volume.
    pub volume: WorkloadName,
    /// Its snapshot; none: the volume as it is at that moment.
    pub snapshot: Option<Name>,
}

/// The same as a deployment's text has it: `[deployment/]volume[@snapshot]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginName {
    /// The deployment of the volume; none: the one that the text stands in.
    pub deployment: Option<Name>,
    /// The volume.
    pub volume: Name,
    /// Its snapshot; none: the volume as it is at that moment.
    pub snapshot: Option<Name>,
}

impl OriginName {
    /// What it means in a deployment.
    pub fn within(&self, deployment: &Name) -> Origin {
        let deployment = self.deployment.as_ref().unwrap_or(deployment).clone();
        let volume = WorkloadName { deployment, workload: self.volume.clone() };
        Origin { volume, snapshot: self.snapshot.clone() }
    }
}

impl FromStr for OriginName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot.parse()?)),
            None => (text, None),
        };
        let (deployment, volume) = match volume.split_once('/') {
            Some((deployment, volume)) => (Some(deployment.parse()?), volume),
            None => (None, volume),
        };
        Ok(Self { deployment, volume: volume.parse()?, snapshot })
    }
}

impl FromStr for Origin {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot.parse()?)),
            None => (text, None),
        };
        Ok(Self { volume: volume.parse()?, snapshot })
    }
}

impl fmt::Display for OriginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(deployment) = &self.deployment {
            write!(f, "{deployment}/")?;
        }
        write!(f, "{}", self.volume)?;
        self.snapshot.iter().try_for_each(|snapshot| write!(f, "@{snapshot}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.volume)?;
        self.snapshot.iter().try_for_each(|snapshot| write!(f, "@{snapshot}"))
    }
}

as_text!(Origin);
as_text!(OriginName);

impl utoipa::PartialSchema for OriginName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let name = "[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?";
        crate::unit::string_schema(
            "A volume, or a snapshot of one: `[deployment/]volume[@snapshot]`.",
            &format!("^({name}/)?{name}(@{name})?$"),
        )
    }
}

impl utoipa::ToSchema for OriginName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, means: Option<&str>| {
            let read = text.parse::<OriginName>();
            let origin = read.as_ref().ok().map(|o| o.within(&"web".parse().unwrap()));
            assert_eq!(origin.as_ref().map(ToString::to_string).as_deref(), means, "{text}");
            let Some(origin) = origin else { return };
            assert_eq!(read.unwrap().to_string(), text);
            assert_eq!(origin.to_string().parse(), Ok(origin));
        };
        check("data", Some("web/data"));
        check("data@monday", Some("web/data@monday"));
        check("blog/data", Some("blog/data"));
        check("blog/data@monday", Some("blog/data@monday"));
        check("", None);
        check("@monday", None);
        check("data@", None);
        check("/data", None);
        check("blog/", None);
        check("blog/data/x", None);
        check("data@monday@x", None);
        check("data@blog/monday", None);
        check("Data", None);
        check("../x", None);
        assert!("data@monday".parse::<Origin>().is_err());
    }
}

//! Who the farmer is: the twin whose key stands in `zos.farmer=`.
//!
//! ```text
//!  zos.farmer ─┬─ none ──────▶ Unset ─────▶ 403 farmer-unset: how to set it
//!              ├─ no key ────▶ Malformed ─▶ a fault, and the same 403
//!              └─ a twin id ─▶ Known ─┬───▶ the one who signed: go on
//!                                     └───▶ another: 403 farmer-only
//! ```

use axum::http::StatusCode;
use zos_types::id::IdError;
use zos_types::{Fault, TwinId};

use crate::problem::Refused;

/// How to name the farmer, for both refusals.
const HOW: &str = "put `zos.farmer=<id>` on the kernel's command line, or `farmer = <id>` into zos.conf on the boot \
    stick, and boot the node again; `zos key show` prints your id";

/// The farmer, as far as the settings tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Farmer {
    /// The node was told of none.
    #[default]
    Unset,
    /// What it was told is no key.
    Malformed(IdError),
    /// The key that signs as the farmer.
    Known(TwinId),
}

impl Farmer {
    /// The farmer by the setting `farmer`.
    pub fn from_setting(setting: Option<&str>) -> Self {
        match setting.map(str::parse) {
            None => Self::Unset,
            Some(Ok(id)) => Self::Known(id),
            Some(Err(error)) => Self::Malformed(error),
        }
    }

    /// A setting that names nobody is shown until it is corrected.
    pub fn fault(&self) -> Option<Fault> {
        let Self::Malformed(error) = self else { return None };
        let detail = format!(
            "zos.farmer is no twin's id: {error}; nobody is the farmer. To name one, {HOW}"
        );
        Some(Fault::new("api.bad-farmer", detail))
    }

    /// Whether a twin is the farmer; else why not.
    pub(crate) fn check(&self, twin: TwinId) -> Result<(), Refused> {
        let (slug, detail) = match self {
            Self::Known(farmer) if *farmer == twin => return Ok(()),
            Self::Known(_) => {
                ("farmer-only", format!("only the farmer may do this, and {twin} is another key"))
            }
            Self::Unset => ("farmer-unset", format!("this node was told of no farmer: {HOW}")),
            Self::Malformed(error) => {
                ("farmer-unset", format!("this node's zos.farmer is no twin's id: {error}; {HOW}"))
            }
        };
        Err(Refused::new(StatusCode::FORBIDDEN, slug, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWIN: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";
    const OTHER: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo";

    #[test]
    fn who_may_what_and_what_the_others_are_told() {
        let check = |setting: Option<&str>, refused: Option<(&str, &str)>, fault: Option<&str>| {
            let farmer = Farmer::from_setting(setting);
            let problem = farmer.check(TWIN.parse().unwrap()).err().map(|refused| refused.0);
            let seen = problem.as_ref().map(|p| (p.slug(), p.detail.contains(refused.unwrap().1)));
            assert_eq!(seen, refused.map(|(slug, _)| (slug, true)), "{setting:?} {problem:?}");
            let detail = farmer.fault().map(|fault| fault.detail);
            let fits = |part| detail.as_ref().is_some_and(|d| d.contains(part));
            assert!(fault.map_or(detail.is_none(), fits), "{setting:?} {detail:?}");
        };
        check(Some(TWIN), None, None);
        check(Some(OTHER), Some(("farmer-only", "another key")), None);
        check(None, Some(("farmer-unset", "zos.conf")), None);
        check(Some(""), Some(("farmer-unset", "has 0")), Some("this has 0"));
        check(Some("me"), Some(("farmer-unset", "has 2")), Some("52 characters, this has 2"));
        let last = format!("{}b", &TWIN[..51]);
        check(Some(&last), Some(("farmer-unset", "spare")), Some("spare bits"));
    }
}

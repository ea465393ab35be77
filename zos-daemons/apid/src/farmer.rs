//! Who the farmer is: the twin whose key stands in `zos.farmer=`.
//!
//! ```text
//!  zos.farmer ─┬─ none ──────▶ Unset ─────▶ 403 farmer-unset: how to set it
//!              ├─ no key ────▶ Malformed ─▶ a fault of the node, and the same 403
//!              └─ a twin id ─▶ Known ─┬───▶ the one who signed: go on
//!                                     └───▶ another: 403 farmer-only
//! ```

use axum::http::StatusCode;
use zos_daemon::{Config, Reader};
use zos_types::TwinId;
use zos_types::id::IdError;

use crate::problem::Refused;

/// What `zos.farmer` is to be.
const RULE: &str =
    "write the farmer's id, the 52 characters that `zos key show` prints; nobody is the farmer now";
/// How to name the farmer.
const HOW: &str = "put `zos.farmer=<id>` on the kernel's command line, or `zos.farmer = <id>` into zos.conf on the boot \
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

/// Whose machine it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Farm {
    /// The farm's name.
    pub name: Option<String>,
    /// The farmer.
    pub farmer: Farmer,
}

impl Config for Farm {
    fn read(reader: &mut Reader<'_>) -> Self {
        let name = reader.text("farm").map(str::to_owned);
        let mut farmer = Farmer::Unset;
        reader.with("farmer", RULE, |text| {
            farmer = text.parse().map_or_else(Farmer::Malformed, Farmer::Known);
            matches!(farmer, Farmer::Known(_)).then_some(())
        });
        Self { name, farmer }
    }
}

impl Farmer {
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
        let check = |setting: Option<&str>, refused: Option<(&str, &str)>, fault: bool| {
            let settings = setting.map(|text| ("farmer".to_owned(), text.to_owned()));
            let (farm, faults) = Reader::config::<Farm>(&settings.into_iter().collect());
            let problem = farm.farmer.check(TWIN.parse().unwrap()).err().map(|refused| refused.0);
            let seen = problem.as_ref().map(|p| (p.slug(), p.detail.contains(refused.unwrap().1)));
            assert_eq!(seen, refused.map(|(slug, _)| (slug, true)), "{setting:?} {problem:?}");
            let ids: Vec<&str> = faults.iter().map(|fault| fault.id.as_str()).collect();
            assert_eq!(ids == ["settings.refused:farmer"], fault, "{setting:?} {faults:?}");
            assert!(!fault || faults[0].detail.contains("`zos key show`"), "{faults:?}");
        };
        check(Some(TWIN), None, false);
        check(Some(OTHER), Some(("farmer-only", "another key")), false);
        check(None, Some(("farmer-unset", "zos.conf")), false);
        check(Some(""), Some(("farmer-unset", "this has 0")), true);
        check(Some("me"), Some(("farmer-unset", "52 characters, this has 2")), true);
        let last = format!("{}b", &TWIN[..51]);
        check(Some(&last), Some(("farmer-unset", "spare")), true);
    }
}

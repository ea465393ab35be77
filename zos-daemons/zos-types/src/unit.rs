//! Sizes. JSON carries integers of bytes; people may write `KiB MiB GiB TiB`.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};

/// One kibibyte in bytes.
pub const KIB: u64 = 1 << 10;
/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte in bytes.
pub const GIB: u64 = 1 << 30;
/// One tebibyte in bytes.
pub const TIB: u64 = 1 << 40;

const SUFFIXES: [(&str, u64); 4] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];

/// A number of bytes. Sums saturate: a size is never negative and never wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Bytes(pub u64);

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: write a number of bytes, or a whole number with KiB, MiB, GiB or TiB")]
pub struct BytesError(String);

impl FromStr for Bytes {
    type Err = BytesError;

    fn from_str(text: &str) -> Result<Self, BytesError> {
        let error = || BytesError(text.chars().take(32).collect());
        let (digits, unit) = SUFFIXES
            .iter()
            .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), unit)))
            .unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let count: u64 = digits.parse().map_err(|_| error())?;
        count.checked_mul(unit).map(Self).ok_or_else(error)
    }
}

/// Written exactly where a unit divides it, else with one decimal: `1GiB`, `1.5 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(&(suffix, unit)) = SUFFIXES.iter().find(|&&(_, unit)| self.0 >= unit) else {
            return f.pad(&format!("{} B", self.0));
        };
        let text = if self.0.is_multiple_of(unit) {
            format!("{} {suffix}", self.0 / unit)
        } else {
            let tenths = u128::from(self.0) * 10 / u128::from(unit);
            format!("{}.{} {suffix}", tenths / 10, tenths % 10)
        };
        f.pad(&text)
    }
}

impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Bytes {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Add::add)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of bytes, or a text such as \"256MiB\"")]
        enum Form {
            Count(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Count(count) => Ok(Self(count)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl utoipa::PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Integer, Type::String]))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .description(Some(
                "Bytes; a text may carry KiB, MiB, GiB or TiB. Answers are integers.",
            ))
            .into()
    }
}

impl utoipa::ToSchema for Bytes {}

/// The schema of a text with a pattern.
pub(crate) fn string_schema(description: &str, pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, size: Option<u64>| {
            assert_eq!(text.parse::<Bytes>().ok().map(|b| b.0), size, "{text}");
        };
        check("0", Some(0));
        check("512", Some(512));
        check("1KiB", Some(1024));
        check("256MiB", Some(256 * MIB));
        check("1 GiB", Some(GIB));
        check("2TiB", Some(2 * TIB));
        check("", None);
        check("-1", None);
        check("+1", None);
        check("1.5GiB", None);
        check("1GB", None);
        check("GiB", None);
        check("99999999999TiB", None);
    }

    #[test]
    fn sizes_are_written_for_people() {
        let check = |size: u64, text: &str| assert_eq!(Bytes(size).to_string(), text);
        check(0, "0 B");
        check(GIB, "1 GiB");
        check(GIB + GIB / 2, "1.5 GiB");
        check(1500 * MIB, "1.4 GiB");
        check(u64::MAX, "16777215.9 TiB");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn json_keeps_every_size(size: u64) {
            let json = serde_json::to_string(&Bytes(size)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), Bytes(size));
        }
    }
}

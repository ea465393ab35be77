//! A call's arguments, taken one by one, so that an error names the one that is wrong.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::run::RequestError;

/// What a call brought and nobody has taken yet.
#[derive(Debug)]
pub(super) struct Parameters(Map<String, Value>);

impl Parameters {
    pub(super) fn of(parameters: &Map<String, Value>) -> Self {
        Self(parameters.clone())
    }

    /// Takes one. One that is missing is like `null`.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RequestError> {
        let value = self.0.remove(name).unwrap_or_default();
        serde_json::from_value(value).map_err(|_| RequestError::Parameter(name.to_owned()))
    }

    /// Takes one; what it is when it is missing or `null`, is said by its type.
    pub(super) fn take_or_default<T>(&mut self, name: &str) -> Result<T, RequestError>
    where
        T: DeserializeOwned + Default,
    {
        Ok(self.take::<Option<T>>(name)?.unwrap_or_default())
    }

    /// Nothing else was to come.
    pub(super) fn end(self) -> Result<(), RequestError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(RequestError::Parameter(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wrong_one_is_named() {
        let check = |value: Value, wrong: Option<&str>| {
            let Value::Object(map) = value else { unreachable!() };
            let mut parameters = Parameters::of(&map);
            let taken = parameters
                .take::<String>("unit")
                .and_then(|unit| Ok((unit, parameters.take_or_default::<u64>("after")?)))
                .and_then(|taken| parameters.end().map(|()| taken));
            match (taken, wrong) {
                (Ok((unit, _)), None) => assert_eq!(unit, "x"),
                (Err(RequestError::Parameter(name)), Some(wrong)) => assert_eq!(name, wrong),
                (other, _) => panic!("{other:?}"),
            }
        };
        check(json!({"unit": "x", "after": 7}), None);
        check(json!({"unit": "x"}), None);
        check(json!({"unit": "x", "after": null}), None);
        check(json!({}), Some("unit"));
        check(json!({"unit": 7}), Some("unit"));
        check(json!({"unit": "x", "after": -1}), Some("after"));
        check(json!({"unit": "x", "afterwards": 1}), Some("afterwards"));
    }
}

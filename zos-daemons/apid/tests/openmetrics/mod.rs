//! A strict reader of OpenMetrics 1.0 text (the specification's section "Text format"), which shares no code with
//! what writes it. It panics at the first rule that is broken.

use std::collections::{BTreeMap, BTreeSet};

/// A family as it was read.
#[derive(Debug, Default)]
pub(crate) struct Family {
    kind: String,
    unit: Option<String>,
    help: Option<String>,
    /// Labels and value.
    samples: Vec<(Labels, f64)>,
}

type Labels = Vec<(String, String)>;

impl Family {
    /// The value with these labels, which may stand in any order; a counter's total.
    pub(crate) fn value(&self, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeSet<_> = labels.iter().copied().collect();
        let same = |held: &Labels| {
            held.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<BTreeSet<_>>() == wanted
        };
        self.samples.iter().find(|(held, _)| same(held)).map(|(_, value)| *value)
    }
}

/// Reads a whole exposition.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for line in body.lines() {
        assert!(!line.is_empty(), "an empty line");
        if let Some(described) = line.strip_prefix("# ") {
            let mut parts = described.splitn(3, ' ');
            let (word, name) = (parts.next().unwrap(), parts.next().expect("a name"));
            let value = parts.next().unwrap_or_default();
            check_name(name);
            if name != current {
                assert!(!families.contains_key(name), "{name} is announced twice");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "{name} is described after its samples");
            match word {
                "TYPE" => {
                    assert!(family.kind.is_empty(), "two types of {name}");
                    assert!(["gauge", "counter", "info", "histogram"].contains(&value), "{line}");
                    family.kind = value.to_owned();
                }
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{value}")), "{name} is not in {value}");
                    assert!(family.unit.replace(value.to_owned()).is_none(), "two units: {line}");
                }
                "HELP" => {
                    unescape(value);
                    assert!(family.help.replace(value.to_owned()).is_none(), "two helps: {line}");
                }
                other => panic!("`# {other}` is no word of the format: {line}"),
            }
            continue;
        }
        assert!(!line.starts_with('#'), "a comment: {line}");
        let (name, labels, value) = sample(line);
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family: {line}"));
        let suffix = name.strip_prefix(current.as_str());
        let suffix = suffix.unwrap_or_else(|| panic!("{name} stands in {current}"));
        let allowed: &[&str] = match family.kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total", "_created"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum", "_created"],
            other => panic!("{current} has no type, {other}"),
        };
        assert!(allowed.contains(&suffix), "{name} in a {}", family.kind);
        assert!(family.kind != "info" || value == 1.0, "an info is 1: {line}");
        assert!(family.kind != "counter" || value >= 0.0, "a counter below 0: {line}");
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
        family.samples.push((labels, value));
    }
    families
}

fn check_name(name: &str) {
    let fits = |(place, c): (usize, char)| {
        c == '_' || c == ':' || c.is_ascii_alphabetic() || (place > 0 && c.is_ascii_digit())
    };
    assert!(!name.is_empty() && name.chars().enumerate().all(fits), "no name: {name:?}");
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, mut rest) = line.split_at(end);
    check_name(name);
    let mut labels: Labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            check_name(label);
            assert!(!label.contains(':') && labels.iter().all(|(l, _)| l != label), "{line}");
            let mut escaped = false;
            let end = value.find(|c| {
                let closing = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closing
            });
            let end = end.unwrap_or_else(|| panic!("a value without end: {line}"));
            labels.push((label.to_owned(), unescape(&value[..end])));
            rest = &value[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = number.parse().unwrap_or_else(|_| panic!("{number:?} is no number: {line}"));
    (name.to_owned(), labels, value)
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(c @ ('"' | '\\')) => c,
                other => panic!("a wrong escape {other:?} in {text:?}"),
            },
            c => c,
        });
    }
    plain
}

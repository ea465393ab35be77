//! What a client of the API sends.

use crate::api::http::{self, Parsed};
use crate::api::{routes, translate};

/// Requests one behind the other, as a connection reads them: whole, unfinished, or refused; and one that is
/// whole stays the same with more bytes behind it.
pub(super) fn http(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Parsed::Whole { head, body }) = http::parse(rest) {
        assert!(body.end <= rest.len() && body.start <= body.end && body.end > 0);
        let mut longer = rest.to_vec();
        longer.push(b'x');
        let again = Parsed::Whole { head: head.clone(), body: body.clone() };
        assert_eq!(http::parse(&longer).ok(), Some(again));
        if let Err(refusal) = routes::route(&head, &rest[body.clone()]) {
            assert!((400..=599).contains(&refusal.status));
        }
        rest = &rest[body.end..];
    }
}

/// A VM's configuration as Cloud Hypervisor writes it: a valid spec, or words on what is wrong.
pub(super) fn config(bytes: &[u8]) {
    match translate::parse(bytes) {
        Ok(spec) => {
            spec.validate().expect("what was translated is valid");
            // What vm.info shows is understood again, as the same.
            let shown = serde_json::to_vec(&translate::config(&spec)).unwrap();
            assert_eq!(translate::parse(&shown).as_ref(), Ok(&spec));
        }
        Err(words) => assert!(!words.is_empty()),
    }
}

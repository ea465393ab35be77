//! The committed description of the API is the one that the code gives.

use std::path::Path;

#[test]
fn the_committed_description_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let fresh = apid::openapi();
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "docs/openapi.json is stale. Write it anew, look at the difference and commit it:\n    \
         REGENERATE=1 cargo test -p apid --test openapi"
    );
}

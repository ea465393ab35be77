//! The table of callers in the documentation says what the code does.

use std::fmt::Write;

use zos_api::local::INTERFACES;

const BEGIN: &str = "<!-- callers -->\n";
const END: &str = "<!-- /callers -->";

fn table() -> String {
    let mut text = String::from("\n| Method | Callers |\n|---|---|\n");
    for interface in INTERFACES {
        for (method, callers) in interface.methods {
            let callers: Vec<_> =
                callers.iter().map(|user| format!("{user:?}").to_lowercase()).collect();
            let callers = if callers.is_empty() { "root only".into() } else { callers.join(" ") };
            let method = method.strip_prefix("org.zos.").unwrap_or(method);
            writeln!(text, "| `{method}` | {callers} |").unwrap();
        }
    }
    text + "\n"
}

#[test]
fn the_documented_callers_are_the_coded_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the table's begin");
    let (found, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("ZOS_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(
        found,
        table(),
        "write it anew: ZOS_WRITE_DOCS=1 cargo test -p zos-api --test callers"
    );
}

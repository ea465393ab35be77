//! `zos key new|show`

use serde::Serialize;
use zos_types::{Id, TwinId};

use crate::cli::{Global, KeyCommand};
use crate::exit::Usage;
use crate::key;
use crate::output::Output;

/// A twin's key, without the key.
#[derive(Serialize)]
struct Shown {
    id: TwinId,
    file: String,
}

pub(super) fn run(command: KeyCommand, global: &Global, output: Output) -> anyhow::Result<()> {
    let path = key::path(global.key.as_deref())?;
    let file = path.display().to_string();
    let (key, made) = match command {
        KeyCommand::New => (key::create(&path)?, true),
        KeyCommand::Show => {
            let absent = || Usage(format!("there is no key {file}; make one with `zos key new`"));
            (key::load(&path)?.ok_or_else(absent)?, false)
        }
    };
    let shown = Shown { id: Id::from(&key.verifying_key()), file };
    if made && !output.json {
        eprintln!("made {}; keep a copy: who holds it is your twin", shown.file);
    }
    output.show(&shown, || format!("{}\n", shown.id))
}

//! What a durable write of the state costs: a store on one folder and on two, redb alone, and a file with fsync.
//!
//! All on this computer's own disk, turn by turn, so that what else it does meets each alike.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use qemu_tests::Scene;
use redb::{Database, TableDefinition};
use zos_api::local::CallError;
use zos_daemon::store::{Copies, Place, Store, Witness};

use crate::figures::{Figures, float};

/// Turns, and writes of each in a turn.
const TURNS: usize = 8;
const WRITES: u32 = 25;
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
/// A deployment's entry is about so long.
const ROW: [u8; 700] = [b'x'; 700];

/// Nothing fails here.
#[derive(Debug)]
struct Nobody;

impl Witness for Nobody {
    fn lose(&self, _: &Place, reason: &str) -> Result<(), CallError> {
        Err(CallError::Failed { detail: reason.to_owned() })
    }

    fn joined(&self, _: &Place) -> Result<(), CallError> {
        Ok(())
    }
}

fn store(dir: &Path, folders: &[&str]) -> Result<Store> {
    let place = |name: &&str| Place {
        pool: (*name).to_owned(),
        coming: String::new(),
        folder: dir.join(name),
        current: true,
    };
    for folder in folders {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let places = folders.iter().map(place).collect();
    Ok(Store::open(Copies { places, witness: Arc::new(Nobody) }, "bench", &[])?)
}

pub(crate) fn measure(scene: &Scene, figures: &mut Figures) -> Result<()> {
    let dir = scene.dir().join("state");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).context("empty the folder of the state")?;
    }
    let (one, two) = (store(&dir, &["one"])?, store(&dir, &["first", "second"])?);
    let plain = Database::create(dir.join("plain.redb")).context("make a database")?;
    let mut file = File::create(dir.join("file")).context("make a file")?;
    let row = String::from_utf8_lossy(&ROW).into_owned();
    let into = |store: &Store| store.write(|write| write.put("rows", "key", &row));

    let mut seconds = [0.0; 4];
    for _ in 0..TURNS {
        let mut turn = |which: usize, write: &mut dyn FnMut() -> Result<()>| -> Result<()> {
            let begun = Instant::now();
            (0..WRITES).try_for_each(|_| write())?;
            seconds[which] += begun.elapsed().as_secs_f64();
            Ok(())
        };
        turn(0, &mut || Ok(into(&two)?))?;
        turn(1, &mut || Ok(into(&one)?))?;
        turn(2, &mut || {
            let transaction = plain.begin_write()?;
            transaction.open_table(ROWS)?.insert("key", &ROW[..])?;
            Ok(transaction.commit()?)
        })?;
        turn(3, &mut || {
            file.rewind()?;
            file.write_all(&ROW)?;
            Ok(file.sync_all()?)
        })?;
    }
    let writes = float(TURNS as u64 * u64::from(WRITES));
    let [two, one, plain, fsync] = seconds.map(|seconds| writes / seconds);
    figures.add("state: durable writes, two copies", two, "/s").peer = Some(("one copy", one));
    figures.add("state: durable writes, one copy", one, "/s").peer = Some(("redb alone", plain));
    figures.add("state: durable writes, one copy", one, "/s").peer = Some(("file, fsync", fsync));
    Ok(())
}

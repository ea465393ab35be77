//! Stores over one folder and two: what is written is there again, whatever failed in between.

use std::fs;
use std::path::Path;

use super::*;

const ONE: Migrations = &[];
const TWO: Migrations = &[|step| {
    for (key, old) in step.rows("t")? {
        step.write.put("named", &key, &serde_json::json!({ "n": old }))?;
        step.write.delete("t", &key)?;
    }
    Ok(())
}];
const THREE: Migrations = &[TWO[0], |step| {
    for (key, old) in step.rows("named")? {
        step.write.put("named", &key, &serde_json::json!({ "n": old["n"], "twice": 2 }))?;
    }
    Ok(())
}];

/// storaged, as far as a store sees it.
#[derive(Debug, Default)]
struct Notes {
    lost: Mutex<Vec<String>>,
    joined: Mutex<Vec<String>>,
    refuses: Mutex<bool>,
}

impl Witness for Notes {
    fn lose(&self, place: &Place, _: &str) -> Result<(), CallError> {
        if *self.refuses.lock().unwrap() {
            return Err(CallError::busy("not now"));
        }
        self.lost.lock().unwrap().push(place.pool.clone());
        Ok(())
    }

    fn joined(&self, place: &Place) -> Result<(), CallError> {
        self.joined.lock().unwrap().push(place.pool.clone());
        Ok(())
    }
}

/// Two folders that stand for two disks, as told by somebody.
struct Disks {
    root: tempfile::TempDir,
    notes: Arc<Notes>,
}

impl Disks {
    fn new() -> Self {
        let disks = Self { root: tempfile::tempdir().unwrap(), notes: Arc::default() };
        for name in ["p", "q"] {
            fs::create_dir(disks.at(name)).unwrap();
        }
        disks
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at(name).join("test.redb")
    }

    /// `p` and `q` are current copies, `+q` one that is to be filled.
    fn copies(&self, names: &[&str]) -> Copies {
        let place = |name: &&str| {
            let pool = name.trim_start_matches('+').to_owned();
            let folder = self.at(&pool);
            Place { coming: format!("{pool}1"), folder, current: !name.starts_with('+'), pool }
        };
        let witness: Arc<dyn Witness> = Arc::clone(&self.notes) as _;
        Copies { places: names.iter().map(place).collect(), witness }
    }

    fn open(&self, names: &[&str]) -> Store {
        Store::open(self.copies(names), "test", ONE).unwrap()
    }

    /// What a copy alone holds under `a`.
    fn alone(&self, name: &str) -> Option<u32> {
        Store::open(self.at(name).as_path(), "test", ONE).unwrap().get("t", "a").unwrap()
    }

    fn lost(&self) -> Vec<String> {
        self.notes.lost.lock().unwrap().clone()
    }
}

fn put(store: &Store, value: u32) -> Result<(), StoreError> {
    store.write(|w| w.put("t", "a", &value))
}

/// As a disk that fails does to an open file: each write to it is refused from now on.
fn fail(store: &Store, pool: &str) {
    let mut inner = store.lock();
    let copy = inner.copies.iter_mut().find(|copy| copy.place.pool == pool).unwrap();
    copy.file = None;
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), "test", ONE).unwrap();
    let store = open();
    assert_eq!(store.get::<u32>("t", "a").unwrap(), None);
    assert!(store.list::<u32>("t").unwrap().is_empty());
    store
        .write(|w| {
            w.put("t", "a", &1)?;
            w.put("t", "b", &2)
        })
        .unwrap();
    store.write(|w| w.delete("t", "a")).unwrap();
    drop(store);
    assert_eq!(open().list::<u32>("t").unwrap(), [("b".to_owned(), 2)]);
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "test", ONE).unwrap();
    let failed = store.write(|w| {
        w.put("t", "a", &1)?;
        Err::<(), _>(StoreError::Schema { path: "x".into(), found: 0, wanted: 1 })
    });
    assert!(failed.is_err());
    assert_eq!(store.get::<u32>("t", "a").unwrap(), None);
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_kept() {
    let disks = Disks::new();
    let zeros = vec![0; 70_000];
    for content in [&b""[..], b"not a database", &zeros] {
        for (first, second) in
            [(Some(content), None), (Some(content), Some(content)), (None, Some(content))]
        {
            for (name, content) in [("p", first), ("q", second)] {
                let _ = fs::remove_file(disks.file(name));
                if let Some(content) = content {
                    fs::write(disks.file(name), content).unwrap();
                }
            }
            let error = Store::open(disks.copies(&["p", "q"]), "test", ONE).unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
            for (name, content) in [("p", first), ("q", second)] {
                assert_eq!(fs::read(disks.file(name)).ok().as_deref(), content, "{name}");
                let expected = usize::from(content.is_some());
                assert_eq!(fs::read_dir(disks.at(name)).unwrap().count(), expected);
            }
        }
    }
}

#[test]
fn each_write_is_in_both_copies() {
    let disks = Disks::new();
    let store = disks.open(&["p", "q"]);
    put(&store, 1).unwrap();
    put(&store, 2).unwrap();
    drop(store);
    assert_eq!((disks.alone("p"), disks.alone("q")), (Some(2), Some(2)));
    // either leads alone, and the other is made equal when it is there again
    let store = disks.open(&["q"]);
    put(&store, 3).unwrap();
    drop(store);
    assert_eq!(disks.open(&["p", "q"]).get("t", "a").unwrap(), Some(3));
    assert_eq!((disks.alone("p"), disks.alone("q")), (Some(3), Some(3)));
    assert!(disks.lost().is_empty());
}

#[test]
fn a_copy_that_fails_is_noted_before_the_write_is_acknowledged() {
    for failing in ["p", "q"] {
        let other = if failing == "p" { "q" } else { "p" };
        let disks = Disks::new();
        let store = disks.open(&["p", "q"]);
        put(&store, 1).unwrap();
        fail(&store, failing);
        *disks.notes.refuses.lock().unwrap() = true;
        assert!(matches!(put(&store, 2).unwrap_err(), StoreError::Doubt { .. }));
        assert!(matches!(put(&store, 2).unwrap_err(), StoreError::Doubt { .. }));
        *disks.notes.refuses.lock().unwrap() = false;
        put(&store, 3).unwrap();
        assert_eq!(disks.lost(), [failing]);
        put(&store, 4).unwrap();
        assert_eq!(disks.lost(), [failing], "once");
        drop(store);
        assert_eq!((disks.alone(failing), disks.alone(other)), (Some(1), Some(4)));
    }
}

#[test]
fn the_last_copy_is_never_lost() {
    let disks = Disks::new();
    let store = disks.open(&["p", "q"]);
    fail(&store, "p");
    put(&store, 1).unwrap();
    fail(&store, "q");
    assert!(put(&store, 2).is_err());
    assert_eq!(disks.lost(), ["p"]);
    drop(store);
    assert_eq!(disks.alone("q"), Some(1));
}

#[test]
fn an_unreadable_copy_is_kept_aside_and_mended_by_the_other() {
    for broken in ["p", "q"] {
        let disks = Disks::new();
        let store = disks.open(&["p", "q"]);
        put(&store, 7).unwrap();
        drop(store);
        for (n, content) in [(1, &b"rot"[..]), (2, b"")] {
            fs::write(disks.file(broken), content).unwrap();
            let store = disks.open(&["p", "q"]);
            assert_eq!(store.get("t", "a").unwrap(), Some(7));
            let aside = disks.at(broken).join(format!("test.redb.unreadable-{n}"));
            assert_eq!(store.repaired(), std::slice::from_ref(&aside));
            assert_eq!(fs::read(aside).unwrap(), content);
            drop(store);
            assert_eq!((disks.alone("p"), disks.alone("q")), (Some(7), Some(7)));
        }
        // Where something was put aside, nothing is begun afresh.
        fs::remove_file(disks.file(broken)).unwrap();
        let alone = Store::open(disks.at(broken).as_path(), "test", ONE).unwrap_err();
        assert!(matches!(alone, StoreError::Unreadable { .. }), "{alone}");
    }
}

#[test]
fn rot_in_the_midst_of_a_copy_is_found_when_it_is_opened() {
    let disks = Disks::new();
    let store = disks.open(&["p", "q"]);
    for i in 0..200 {
        store.write(|w| w.put("t", &format!("k{i:04}"), &"x".repeat(400))).unwrap();
    }
    put(&store, 5).unwrap();
    drop(store);
    let clean = fs::read(disks.file("p")).unwrap();
    let mut seen = 0;
    for at in (4096..clean.len()).step_by(8192) {
        let mut rotten = clean.clone();
        rotten[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(disks.file("p"), rotten).unwrap();
        let store = disks.open(&["p", "q"]);
        assert_eq!(store.get("t", "a").unwrap(), Some(5), "rot at {at}");
        seen += store.repaired().len();
        for i in 0..200 {
            let value: Option<String> = store.get("t", &format!("k{i:04}")).unwrap();
            assert_eq!(value.map(|value| value.len()), Some(400), "rot at {at}, row {i}");
        }
    }
    assert!(seen > 0, "no rot hit a page in use");
}

#[test]
fn a_copy_that_comes_is_filled_and_gets_what_follows() {
    let disks = Disks::new();
    let store = disks.open(&["p"]);
    put(&store, 1).unwrap();
    // What lies there, however new it says it is, gives way.
    let stale = disks.open(&["q"]);
    (10..20).for_each(|value| put(&stale, value).unwrap());
    drop(stale);
    store.follow(&disks.copies(&["p", "+q"])).unwrap();
    assert_eq!(*disks.notes.joined.lock().unwrap(), ["q"]);
    put(&store, 2).unwrap();
    store.follow(&disks.copies(&["p", "q"])).unwrap();
    put(&store, 3).unwrap();
    // The first goes; the second goes on alone.
    store.follow(&disks.copies(&["q"])).unwrap();
    put(&store, 4).unwrap();
    drop(store);
    assert_eq!((disks.alone("p"), disks.alone("q")), (Some(3), Some(4)));

    // A daemon that starts while a copy is filled does the same.
    let store = disks.open(&["q", "+p"]);
    put(&store, 5).unwrap();
    drop(store);
    assert_eq!((disks.alone("p"), disks.alone("q")), (Some(5), Some(5)));
}

#[test]
fn a_copy_that_cannot_be_filled_is_given_up() {
    let disks = Disks::new();
    let store = disks.open(&["p"]);
    put(&store, 1).unwrap();
    fs::remove_dir(disks.at("q")).unwrap();
    store.follow(&disks.copies(&["p", "+q"])).unwrap();
    assert_eq!(disks.lost(), ["q"]);
    assert!(disks.notes.joined.lock().unwrap().is_empty());
    put(&store, 2).unwrap();
}

#[test]
fn no_store_lets_go_of_its_last_copy() {
    let disks = Disks::new();
    let store = disks.open(&["p"]);
    put(&store, 1).unwrap();
    let mut none = disks.copies(&["p"]);
    none.places.clear();
    store.follow(&none).unwrap();
    assert_eq!(store.get("t", "a").unwrap(), Some(1));
}

#[test]
fn older_schemas_are_taken_along_and_later_ones_left() {
    let disks = Disks::new();
    let store = disks.open(&["p", "q"]);
    put(&store, 41).unwrap();
    drop(store);
    let store = Store::open(disks.copies(&["p", "q"]), "test", TWO).unwrap();
    assert_eq!(store.get::<Value>("named", "a").unwrap(), Some(serde_json::json!({ "n": 41 })));
    assert_eq!(store.get::<u32>("t", "a").unwrap(), None);
    drop(store);
    let store = Store::open(disks.copies(&["p", "q"]), "test", THREE).unwrap();
    let expected = serde_json::json!({ "n": 41, "twice": 2 });
    assert_eq!(store.get::<Value>("named", "a").unwrap(), Some(expected.clone()));
    drop(store);
    // The older program refuses, and touches neither copy.
    let bytes = |name: &str| fs::read(disks.file(name)).unwrap();
    fs::write(disks.file("q"), b"rot").unwrap();
    let error = Store::open(disks.copies(&["p", "q"]), "test", TWO).unwrap_err();
    assert!(matches!(error, StoreError::Schema { found: 3, wanted: 2, .. }), "{error}");
    assert_eq!(bytes("q"), b"rot");
    // Over two steps at once, from a copy that was left behind in schema 1.
    let old = tempfile::tempdir().unwrap();
    let store = Store::open(old.path(), "test", ONE).unwrap();
    put(&store, 41).unwrap();
    drop(store);
    let store = Store::open(old.path(), "test", THREE).unwrap();
    assert_eq!(store.get::<Value>("named", "a").unwrap(), Some(expected));
}

#[test]
fn a_store_without_numbers_is_one_of_an_older_program() {
    let disks = Disks::new();
    older(&disks.file("p"), 9);
    let store = disks.open(&["p", "q"]);
    assert_eq!(store.get("t", "a").unwrap(), Some(9));
    put(&store, 10).unwrap();
    drop(store);
    assert_eq!((disks.alone("p"), disks.alone("q")), (Some(10), Some(10)));
}

/// Writes a store as ZOS did before a state had two copies.
fn older(path: &Path, value: u32) {
    let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("_store");
    let rows: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("t");
    let database = redb::Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("schema", 1).unwrap();
    transaction.open_table(rows).unwrap().insert("a", value.to_string().as_bytes()).unwrap();
    transaction.commit().unwrap();
}

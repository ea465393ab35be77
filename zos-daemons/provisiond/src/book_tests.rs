use super::*;
use crate::plan::tests::twin;

const BODY: &str = r#"{"version": 1, "workloads": {"d": {"type": "volume", "size": "1GiB"}}}"#;

fn evidence(word: &str) -> Evidence {
    Evidence { base: word.into(), signature: "c2ln".into() }
}

fn web() -> Owner {
    (twin(), "web".parse().unwrap())
}

fn put(book: &mut Book, body: &str) {
    let deployment = Deployment::from_json(body.as_bytes()).unwrap();
    book.put(&web(), body.as_bytes(), &deployment, evidence("put")).unwrap();
}

fn version(version: u64) -> String {
    BODY.replace("\"version\": 1", &format!("\"version\": {version}"))
}

#[test]
fn versions_never_return_not_even_over_deletion_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Book::open(folder.path()).unwrap().0;
    let mut book = open();
    assert_eq!(book.judge(&web(), 2, b"x"), Verdict::Conflict(1));
    assert_eq!(book.judge(&web(), 1, BODY.as_bytes()), Verdict::Create);
    put(&mut book, BODY);
    assert_eq!(book.judge(&web(), 1, BODY.as_bytes()), Verdict::Same);
    assert_eq!(book.judge(&web(), 1, b"other"), Verdict::Conflict(2));
    assert_eq!(book.judge(&web(), 2, version(2).as_bytes()), Verdict::Update);
    assert_eq!(book.judge(&web(), 3, b"x"), Verdict::Conflict(2));
    put(&mut book, &version(2));
    drop(book);

    let mut book = open();
    assert_eq!(book.judge(&web(), 2, version(2).as_bytes()), Verdict::Same);
    assert_eq!(book.judge(&web(), 1, BODY.as_bytes()), Verdict::Conflict(3));
    assert_eq!(book.delete(&web(), evidence("delete")).unwrap(), 3);
    assert_eq!(book.judge(&web(), 2, version(2).as_bytes()), Verdict::Conflict(3));
    drop(book);

    let book = open();
    assert_eq!(book.judge(&web(), 1, BODY.as_bytes()), Verdict::Conflict(3));
    assert_eq!(book.judge(&web(), 3, b"x"), Verdict::Create);
    assert_eq!(book.current().count(), 0);
}

#[test]
fn a_volume_that_was_taken_away_is_destroyed_once_and_may_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Book::open(folder.path()).unwrap().0;
    let volume = workload_key(&web(), &"d".parse().unwrap());
    let mut book = open();
    put(&mut book, BODY);
    book.note_made(std::slice::from_ref(&volume)).unwrap();
    put(&mut book, r#"{"version": 2, "workloads": {}}"#);
    put(&mut book, &version(3));
    drop(book);

    let mut book = open();
    let desired = book.desired();
    assert!(desired.removals.contains(&volume) && desired.made.contains(&volume));
    assert!(desired.volumes.contains_key(&volume));
    book.note_removed(&volume).unwrap();
    drop(book);

    let desired = open().desired();
    assert!(desired.removals.is_empty() && desired.made.is_empty());
}

#[test]
fn a_kept_volume_is_not_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = Book::open(folder.path()).unwrap().0;
    put(&mut book, BODY);
    put(&mut book, &version(2));
    assert!(book.desired().removals.is_empty());
    assert_eq!(book.charged_without(None).sru.0, (1 << 30) + (64 << 10)); // with its key
    assert_eq!(book.charged_without(Some(&web())), Resources::default());
    book.delete(&web(), evidence("delete")).unwrap();
    assert_eq!(book.desired().removals.len(), 1);
}

#[test]
fn a_row_that_cannot_be_read_is_shown_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "provision", MIGRATIONS).unwrap();
    let row = Row { highest: 7, body: Some("e30=".into()), evidence: evidence("put") };
    store.write(|write| write.put(DEPLOYMENTS, &format!("{}/web", twin()), &row)).unwrap();
    drop(store);
    let (book, faults) = Book::open(folder.path()).unwrap();
    assert_eq!(faults.len(), 1);
    assert_eq!(book.judge(&web(), 8, b"x"), Verdict::Create);
    assert!(book.desired().removals.is_empty());
}

#[test]
fn a_book_that_cannot_be_read_is_mended_by_its_copy_or_left() {
    let root = tempfile::tempdir().unwrap();
    let places: Vec<_> = ["p", "q"].map(|name| root.path().join(name)).into();
    places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
    let mut copies = Copies::from(&places[0]);
    let second = zos_daemon::store::Place { folder: places[1].clone(), ..copies.places[0].clone() };
    copies.places.push(zos_daemon::store::Place { pool: "q".into(), ..second });
    let mut book = Book::open(copies.clone()).unwrap().0;
    put(&mut book, BODY);
    drop(book);
    let files: Vec<_> = places.iter().map(|place| place.join("provision.redb")).collect();
    std::fs::write(&files[0], b"rot").unwrap();
    let (book, faults) = Book::open(copies.clone()).unwrap();
    assert_eq!((book.current().count(), faults.len()), (1, 1));
    assert!(faults[0].detail.contains("provision.redb.unreadable-1"), "{}", faults[0].detail);
    drop(book);
    // Neither can be read: nothing is begun afresh, and nothing is touched.
    files.iter().for_each(|file| std::fs::write(file, b"rot").unwrap());
    assert!(Book::open(copies).is_err());
    assert!(files.iter().all(|file| std::fs::read(file).unwrap() == b"rot"));
}

#[test]
fn a_twin_and_the_node_have_limits() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = Book::open(folder.path()).unwrap().0;
    let large = vec![b' '; 1 << 20];
    let current = Current {
        body: large.clone(),
        deployment: Deployment::from_json(BODY.as_bytes()).unwrap(),
    };
    for i in 0..3 {
        let owner = (twin(), format!("n{i}").parse().unwrap());
        book.entries.insert(owner, Entry { highest: 1, current: Some(current.clone()) });
    }
    assert_eq!(book.refusal(&web(), &large), None);
    assert!(book.refusal(&web(), &[large.clone(), b"x".to_vec()].concat()).is_some());
    for i in 0..Limits::TWIN_NAMES {
        let owner = (twin(), format!("n{i}").parse().unwrap());
        book.entries.entry(owner).or_insert(Entry { highest: 1, current: None });
    }
    assert!(book.refusal(&web(), b"x").is_some());
    assert_eq!(book.refusal(&(twin(), "n7".parse().unwrap()), b"x"), None);
}

#[test]
fn a_wish_to_go_back_is_durable_until_it_is_done_and_goes_with_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Book::open(folder.path()).unwrap().0;
    let (data, monday): (Key, Name) =
        ((twin(), "web/d".parse().unwrap()), "monday".parse().unwrap());
    let mut book = open();
    put(&mut book, BODY);
    book.restore(&data, monday.clone(), evidence("restore")).unwrap();
    drop(book);
    let mut book = open();
    assert_eq!(book.desired().restores, [(data.clone(), monday.clone())].into());
    // Of another wish that came before it nothing is noted.
    book.note_restored(&data, &"sunday".parse().unwrap(), None).unwrap();
    assert_eq!(book.desired().restores.len(), 1);
    book.note_restored(&data, &monday, Some("gone".into())).unwrap();
    drop(book);
    let mut book = open();
    assert!(book.desired().restores.is_empty());
    assert_eq!(book.restores()[&data].error.as_deref(), Some("gone"));
    book.restore(&data, monday.clone(), evidence("restore")).unwrap();
    book.note_restored(&data, &monday, None).unwrap();
    assert!(book.restores().is_empty());
    book.restore(&data, monday, evidence("restore")).unwrap();
    book.delete(&web(), evidence("delete")).unwrap();
    drop(book);
    assert!(open().restores().is_empty());
}

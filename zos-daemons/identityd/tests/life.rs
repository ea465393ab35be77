//! The daemon's parts together, over a folder that stands for the state.

use zos_api::local::storage::Settled;
use zos_daemon::FaultBoard;

fn settled(folder: &std::path::Path, durable: bool, refusal: Option<&str>) -> Settled {
    std::fs::create_dir_all(folder.join("identity")).unwrap();
    Settled {
        path: folder.to_str().unwrap().to_owned(),
        durable,
        identity_refusal: refusal.map(str::to_owned),
    }
}

/// The id of a node, by what it prints of itself; its key is out of reach on purpose.
fn load(settled: &Settled) -> (String, Vec<String>) {
    let faults = FaultBoard::default();
    let node = format!("{:?}", identityd::load(settled, &faults));
    (node, faults.list().into_iter().map(|fault| fault.id).collect())
}

#[test]
fn the_same_disk_gives_the_same_node() {
    let folder = tempfile::tempdir().unwrap();
    let first = load(&settled(folder.path(), true, None));
    let again = load(&settled(folder.path(), true, Some("it has a node")));
    assert_eq!(first, again);
    assert!(first.0.contains("ephemeral: false") && first.1.is_empty(), "{first:?}");
}

#[test]
fn without_a_disk_the_node_lasts_as_long_as_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let first = load(&settled(folder.path(), false, None));
    let restarted = load(&settled(folder.path(), false, None));
    assert_eq!(first, restarted);
    assert_eq!(first.1, ["identity.ephemeral"]);
}

#[test]
fn a_refusal_keeps_nothing_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (_, faults) = load(&settled(folder.path(), true, Some("two nodes")));
    assert_eq!(faults, ["identity.ephemeral"]);
    assert_eq!(std::fs::read_dir(folder.path().join("identity")).unwrap().count(), 0);
}

#[test]
fn a_broken_key_is_left_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let settled = settled(folder.path(), true, None);
    let path = folder.path().join("identity/key.pem");
    std::fs::write(&path, "not a key").unwrap();
    let (node, faults) = load(&settled);
    assert!(node.contains("ephemeral: true"), "{node}");
    assert_eq!(faults, ["identity.key-unreadable"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a key");
}

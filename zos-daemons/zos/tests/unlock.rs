//! Keys of volumes by the program: derived from the twin's, from a file, wrong, and by `apply --wait`.

mod place;

use apid::fake::FakeNode;
use place::{Place, run};

const WEB: &str = "version = 1
[workloads.vm]
type = \"vm\"
cpu = 1
memory = \"256MiB\"
image = \"builtin:hello\"
disks = [{ volume = \"mine\" }]
[workloads.mine]
type = \"volume\"
size = \"1GiB\"
key = \"twin\"
[workloads.plain]
type = \"volume\"
size = \"1GiB\"
";

/// A node with the twin's key and file, and nothing applied.
async fn start() -> Place {
    let node = FakeNode::new(9);
    let address = node.serve().await.unwrap().to_string();
    let place = Place { node, address, folder: tempfile::tempdir().unwrap() };
    assert_eq!(place.zos(&["key", "new"]).await.code, 0);
    std::fs::write(place.path("web.toml"), WEB).unwrap();
    place
}

#[tokio::test]
async fn what_is_locked_is_shown_with_what_to_do_and_opened() {
    let place = start().await;
    assert_eq!(place.zos(&["apply", "-f", "web.toml"]).await.code, 0);
    let shown = place.zos(&["show", "web"]).await.text();
    assert!(shown.contains("locked") && shown.contains("it waits for its key"), "{shown}");
    let opened = place.zos(&["unlock", "web/mine"]).await;
    assert_eq!(
        (opened.code, &*opened.text()),
        (0, "opened web/mine; this is its key from now on\n")
    );
    assert!(!place.zos(&["show", "web"]).await.text().contains("locked"));
    place.node.lock_volumes();
    assert!(place.zos(&["show", "web"]).await.text().contains("locked"));
    let opened = place.zos(&["unlock", "web/mine", "--json"]).await.json();
    assert_eq!(opened, serde_json::json!({ "volume": "web/mine", "first": false }));
}

#[tokio::test]
async fn waiting_opens_what_is_locked_and_says_what_is_wrong() {
    let place = start().await;
    let apply = ["apply", "-f", "web.toml", "--wait", "--timeout", "30"];
    let applied = place.zos(&apply).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.stderr.contains("web/mine: locked it waits for its key"), "{applied:?}");
    assert!(applied.text().contains("running"), "{applied:?}");

    // With a key of its own it isn't opened by the twin's.
    let place = start().await;
    let key: Vec<u8> = (0..64).collect();
    std::fs::write(place.path("data.key"), &key).unwrap();
    assert_eq!(place.zos(&["apply", "-f", "web.toml"]).await.code, 0);
    assert_eq!(place.zos(&["unlock", "web/mine", "--key-file", "data.key"]).await.code, 0);
    assert_eq!(place.zos(&apply).await.code, 0);
    place.node.lock_volumes();
    let refused = place.zos(&apply).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("open web/mine; `zos unlock --help`"), "{refused:?}");
    assert_eq!(place.zos(&["unlock", "web/mine", "--key-file", "data.key"]).await.code, 0);
    assert_eq!(place.zos(&apply).await.code, 0);
}

#[tokio::test]
async fn what_can_not_be_opened_is_said() {
    let place = start().await;
    assert_eq!(place.zos(&["apply", "-f", "web.toml"]).await.code, 0);
    std::fs::write(place.path("short.key"), [1; 63]).unwrap();
    std::fs::write(place.path("other.key"), (1..=64).collect::<Vec<u8>>()).unwrap();
    assert_eq!(place.zos(&["unlock", "web/mine"]).await.code, 0);
    let check = async |arguments: &[&str], code: i32, words: &str| {
        let ended = place.zos(&[&["unlock"], arguments].concat()).await;
        assert!(ended.code == code && ended.stderr.contains(words), "{arguments:?} {ended:?}");
    };
    check(&["web/mine", "--key-file", "short.key"], 2, "exactly 64 bytes").await;
    check(&["web/mine", "--key-file", "other.key"], 3, "not the key of volume").await;
    check(&["web/mine", "--key-file", "absent.key"], 1, "open absent.key").await;
    check(&["web/plain"], 1, "the node holds the key of web/plain").await;
    check(&["web/absent"], 4, "no volume web/absent").await;
    check(&["web"], 2, "<VOLUME>").await;
    let nowhere = run(None, &place.path("key"), place.folder.path(), &["unlock", "web/mine"]).await;
    assert!(nowhere.code == 2 && nowhere.stderr.contains("which node?"), "{nowhere:?}");
}

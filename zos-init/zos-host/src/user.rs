//! The node's users: one for each daemon, by number, so that no file of names is needed at run time.
//!
//! The one table: PID 1 starts services by it, the image's `/etc/passwd` is written from it.

/// Names and ids; a user's group has the same.
pub const NAMES: [(&str, u32); 12] = [
    ("root", 0),
    ("storage", 110),
    ("identity", 111),
    ("net", 112),
    ("capacity", 113),
    ("image", 114),
    ("vm", 115),
    ("provision", 116),
    ("meter", 117),
    ("api", 118),
    ("power", 119),
    ("console", 120),
];

/// The id of a name.
#[must_use]
pub fn id(name: &str) -> Option<u32> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, id)| *id)
}

/// The name of an id.
#[must_use]
pub fn name(id: u32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == id).map(|(name, _)| *name)
}

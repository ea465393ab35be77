//! Who may call what: the peer's user, as the kernel knows it, against one table.

use zos_host::user;

/// Methods of `org.zos.Init` and the users that may call them; root may call all.
const TABLE: &[(&str, &[&str])] = &[
    ("Describe", &["storage", "identity", "net", "capacity", "vm", "provision", "api", "console"]),
    ("ListUnits", &["vm", "api", "console"]),
    ("WatchUnits", &["vm", "console"]),
    ("DescribeUnit", &["api"]),
    ("StartUnit", &[]),
    ("StopUnit", &[]),
    ("RestartUnit", &["api"]),
    ("KillUnit", &[]),
    ("ReadLog", &["api"]),
    ("WatchEvents", &["vm", "api"]),
    ("Reload", &[]),
    ("StartTransient", &["vm"]),
    ("StopTransient", &["vm"]),
    ("Acknowledge", &["vm"]),
    ("Shutdown", &["api"]),
    ("SetLastEnd", &["storage"]),
    ("ListCrashes", &["storage", "api"]),
];

/// Whether this user may call this method. What nobody serves may be called by all: the answer says so.
pub(super) fn may(uid: u32, method: &str) -> bool {
    let Some(name) = method.strip_prefix("org.zos.Init.") else { return true };
    match TABLE.iter().find(|(known, _)| *known == name) {
        Some((_, users)) => uid == 0 || user::name(uid).is_some_and(|user| users.contains(&user)),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use zos_api::local::{User, init};

    use super::*;

    /// The daemons' declaration and this table are the same, method by method and user by user.
    #[test]
    fn the_table_is_the_declared_one() {
        let declared: Vec<_> = init::INTERFACE.methods.iter().map(|(name, _)| *name).collect();
        let ours: Vec<_> =
            TABLE.iter().map(|(name, _)| format!("{}.{name}", init::INTERFACE.name)).collect();
        assert_eq!(ours, declared);
        for (method, callers) in init::INTERFACE.methods {
            assert!(may(0, method), "root {method}");
            assert!(!may(20_003, method), "a VM {method}");
            for user in User::ALL {
                assert_eq!(may(user.id(), method), callers.contains(&user), "{user:?} {method}");
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_answered_to_all() {
        for method in ["org.varlink.service.GetInfo", "org.zos.Init.Nonsense", "nonsense", ""] {
            assert!(may(20_003, method), "{method}");
        }
    }
}

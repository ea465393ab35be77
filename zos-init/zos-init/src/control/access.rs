//! Who may call what: the peer's user, as the kernel knows it, against one table.

use zos_host::user;

/// Methods of `org.zos.Init` and the users that may call them; root may call all.
const TABLE: &[(&str, &[&str])] = &[
    (
        "Describe",
        &[
            "storage",
            "identity",
            "net",
            "capacity",
            "image",
            "vm",
            "provision",
            "meter",
            "api",
            "power",
            "console",
        ],
    ),
    ("ListUnits", &["vm", "api", "console"]),
    ("WatchUnits", &["vm", "console"]),
    ("StartTransient", &["vm"]),
    ("StopTransient", &["vm"]),
    ("Acknowledge", &["vm"]),
    ("Shutdown", &["api"]),
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
    use super::*;

    #[test]
    fn the_table() {
        let check = |user: &str, methods: &[&str]| {
            let uid = user::id(user).unwrap_or(20_003);
            for (name, _) in TABLE {
                let expect = methods.contains(name);
                assert_eq!(may(uid, &format!("org.zos.Init.{name}")), expect, "{user} {name}");
            }
            assert!(may(uid, "org.varlink.service.GetInfo"));
        };
        let all: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        check("root", &all);
        check(
            "vm",
            &[
                "Describe",
                "ListUnits",
                "WatchUnits",
                "StartTransient",
                "StopTransient",
                "Acknowledge",
            ],
        );
        check("api", &["Describe", "ListUnits", "Shutdown"]);
        check("console", &["Describe", "ListUnits", "WatchUnits"]);
        for user in
            ["storage", "identity", "net", "capacity", "provision", "meter", "power", "image"]
        {
            check(user, &["Describe"]);
        }
        check("a VM", &[]);
    }

    #[test]
    fn every_served_method_is_in_the_table() {
        for line in super::super::methods::INTERFACE.lines() {
            if let Some(rest) = line.strip_prefix("method ") {
                let name = rest.split('(').next().unwrap();
                assert!(TABLE.iter().any(|(known, _)| *known == name), "{name}");
            }
        }
    }
}

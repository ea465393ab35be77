//! The users of a node: one for each daemon.

/// A daemon's user. Its number is user id and group id alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum User {
    /// `storaged`.
    Storage = 110,
    /// `identityd`.
    Identity = 111,
    /// `netd`.
    Net = 112,
    /// `capacityd`.
    Capacity = 113,
    /// `imaged`.
    Image = 114,
    /// `vmd`.
    Vm = 115,
    /// `provisiond`.
    Provision = 116,
    /// `meterd`.
    Meter = 117,
    /// `apid`.
    Api = 118,
    /// `powerd`.
    Power = 119,
    /// `consoled`.
    Console = 120,
}

impl User {
    /// Every user.
    pub const ALL: [Self; 11] = [
        Self::Storage,
        Self::Identity,
        Self::Net,
        Self::Capacity,
        Self::Image,
        Self::Vm,
        Self::Provision,
        Self::Meter,
        Self::Api,
        Self::Power,
        Self::Console,
    ];

    /// Its user and group id.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The user with an id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|user| user.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_that_services_run_as() {
        let ours = User::ALL.map(|user| (format!("{user:?}").to_lowercase(), user.id()));
        let known: Vec<(String, u32)> = zos_host::user::NAMES
            .iter()
            .filter(|(name, _)| *name != "root")
            .map(|(name, id)| ((*name).to_owned(), *id))
            .collect();
        assert_eq!(ours.as_slice(), known);
    }
}

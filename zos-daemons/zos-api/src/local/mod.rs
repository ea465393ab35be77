//! The local interfaces: varlink over Unix sockets, who may call what, and with which values.
//!
//! An interface is a module; a method is a struct of its parameters that implements [`Method`]. So
//! a call can't be made with another method's parameters, and a reply has one type. The `.varlink`
//! texts in `interfaces/` say the same for people and for other clients; a test holds both
//! together.
//!
//! A reply is sent when the thing is done, and durable where it must be.

pub mod capacity;
mod error;
pub mod identity;
pub mod init;
pub mod net;
pub mod provision;
pub mod service;
pub mod storage;
mod user;
pub mod vm;

pub use error::CallError;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use user::User;

/// One method of an interface; the implementing struct is its parameters.
pub trait Method: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The interface that it belongs to.
    const INTERFACE: &'static Interface;
    /// Its full name: `org.zos.Storage.ListDisks`.
    const NAME: &'static str;
    /// Who may call it, besides root.
    const CALLERS: &'static [User];
    /// What it answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// An interface: its name, where it is served, and its text.
#[derive(Debug)]
pub struct Interface {
    /// `org.zos.Storage`.
    pub name: &'static str,
    /// `/run/zos/storage.sock`.
    pub socket: &'static str,
    /// The interface in varlink's definition language.
    pub text: &'static str,
    /// Each method's full name and who may call it, besides root.
    pub methods: &'static [(&'static str, &'static [User])],
}

/// Every interface of a node.
pub const INTERFACES: &[&Interface] = &[
    &init::INTERFACE,
    &storage::INTERFACE,
    &identity::INTERFACE,
    &net::INTERFACE,
    &capacity::INTERFACE,
    &vm::INTERFACE,
    &provision::INTERFACE,
    &service::INTERFACE,
];

/// Declares an interface and its methods: name, callers, parameters and reply of each.
macro_rules! interface {
    (
        $(#[$doc:meta])* $name:literal on $socket:literal;
        $( $(#[$mdoc:meta])* $method:ident [$($caller:ident)*] $(($($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)?))? -> $reply:ty; )*
    ) => {
        $(#[$doc])*
        pub const INTERFACE: $crate::local::Interface = $crate::local::Interface {
            name: concat!("org.zos.", $name),
            socket: $socket,
            text: include_str!(concat!("../../interfaces/org.zos.", $name, ".varlink")),
            methods: &[$((
                concat!("org.zos.", $name, ".", stringify!($method)),
                &[$($crate::local::User::$caller),*],
            )),*],
        };
        $(
            $(#[$mdoc])*
            #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $method { $($($(#[$fdoc])* pub $field: $type),*)? }

            impl $crate::local::Method for $method {
                const INTERFACE: &'static $crate::local::Interface = &INTERFACE;
                const NAME: &'static str = concat!("org.zos.", $name, ".", stringify!($method));
                const CALLERS: &'static [$crate::local::User] = &[$($crate::local::User::$caller),*];
                type Reply = $reply;
            }
        )*
    };
}
pub(crate) use interface;

/// The reply of a method that has nothing to say but that it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, serde::Deserialize)]
pub struct Done {}

/// Whether a call changed anything. Reconcilers rest on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was as asked for already.
    Unchanged,
    /// It is new.
    Created,
    /// It was there and is otherwise now.
    Updated,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text declares its interface, and exactly the methods that the code has.
    #[test]
    fn texts_and_types_name_the_same_methods() {
        for interface in INTERFACES {
            let mut lines = interface.text.lines().filter(|l| !l.starts_with('#'));
            assert!(
                lines.any(|l| l == format!("interface {}", interface.name)),
                "{} does not declare itself",
                interface.name
            );
            let mut written: Vec<_> = interface
                .text
                .lines()
                .filter_map(|l| l.strip_prefix("method "))
                .map(|l| format!("{}.{}", interface.name, l.split('(').next().unwrap_or(l)))
                .collect();
            let mut coded: Vec<_> = interface.methods.iter().map(|m| m.0.to_owned()).collect();
            written.sort();
            coded.sort();
            assert_eq!(written, coded, "{}", interface.name);
        }
    }
}

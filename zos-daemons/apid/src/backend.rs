//! What the API asks of the rest of the node: two ports.
//!
//! Behind them stand the other daemons ([`crate::bus`]), or a node in memory (`crate::fake`).

use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;
use zos_api::local::CallError;
use zos_api::local::capacity::Measured;
use zos_api::local::init::{Boot, Unit};
use zos_api::local::provision::{Delete, Deleted, Get, List, Put, PutReply, UsageReply};
use zos_api::local::vm::ReadLog;
use zos_types::Fault;
use zos_types::machine::Network;
use zos_types::status::DeploymentStatus;

/// A call under way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A call under way that may fail.
pub type Answer<'a, T> = Pending<'a, Result<T, CallError>>;
/// A VM's console as it comes; ends when the sender goes.
pub type LogStream = mpsc::Receiver<Result<Bytes, CallError>>;

/// The machine.
pub trait Machine: Send + Sync + 'static {
    /// How the node is. It answers in bounded time, whatever the other daemons do.
    fn about(&self) -> Pending<'_, About>;
    /// What the node has, and what twins hold of it.
    fn capacity(&self) -> Answer<'_, (Measured, UsageReply)>;
}

/// Twins' deployments.
pub trait Deployments: Send + Sync + 'static {
    /// Takes a deployment.
    fn put(&self, put: Put) -> Answer<'_, PutReply>;
    /// One deployment.
    fn get(&self, get: Get) -> Answer<'_, DeploymentStatus>;
    /// A twin's deployments.
    fn list(&self, list: List) -> Answer<'_, Vec<DeploymentStatus>>;
    /// Takes a deployment away.
    fn delete(&self, delete: Delete) -> Answer<'_, Deleted>;
    /// A VM's console.
    fn read_log(&self, read: ReadLog) -> Answer<'_, LogStream>;
}

/// How the node is, as far as its parts answered; one that did not is among the faults.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The boot, by PID 1.
    pub boot: Option<Boot>,
    /// The units, by PID 1.
    pub units: Vec<Unit>,
    /// The network.
    pub network: Option<Network>,
    /// Every part's faults.
    pub faults: Vec<Fault>,
}

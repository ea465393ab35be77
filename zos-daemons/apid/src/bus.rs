//! The ports over local calls: each bounded, so that a part that hangs hangs nobody else.

mod disks;
mod farmer;
mod keys;
mod snapshots;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zos_api::local::capacity::{Measure, Measured};
use zos_api::local::init::{self, ListUnits};
use zos_api::local::net;
use zos_api::local::provision::{Delete, Deleted, Get, List, Put, PutReply, Usage, UsageReply};
use zos_api::local::service::ListFaults;
use zos_api::local::vm::{LogChunk, ReadLog};
use zos_api::local::{CallError, INTERFACES, Interface, Method};
use zos_daemon::{Bus, FaultBoard, Watch};
use zos_types::Fault;
use zos_types::status::DeploymentStatus;

use crate::backend::{
    About, Answer, Counts, CrashReport, Deployments, LogStream, Machine, Pending, Piece,
};

/// For what is only looked at.
const LOOK: Duration = Duration::from_secs(2);
/// For what is written to disk before it is answered.
const WRITE: Duration = Duration::from_secs(20);

/// consoled has no interface of its own but what all have; a node without a screen has no consoled.
const CONSOLE: &str = "/run/zos/console.sock";

/// How many strangers' questions go to all daemons at once. Each opens about ten sockets, and
/// anybody may ask; the others wait here.
const LOOKERS: usize = 8;

/// The node's other daemons.
#[derive(Debug)]
pub(crate) struct Node {
    bus: Bus,
    faults: FaultBoard,
    lookers: Semaphore,
}

impl Node {
    pub(crate) fn new(bus: Bus, faults: FaultBoard) -> Self {
        Self { bus, faults, lookers: Semaphore::new(LOOKERS) }
    }

    async fn ask<M: Method>(&self, bound: Duration, method: M) -> Result<M::Reply, CallError> {
        within(M::INTERFACE, bound, self.bus.call(method)).await
    }

    /// What every daemon sees wrong. One that does not say is a fault itself.
    async fn list_faults(&self) -> Vec<Fault> {
        let mut calls = JoinSet::new();
        for interface in daemons() {
            let bus = self.bus.clone();
            calls.spawn(async move {
                let call = bus.call_on(interface.socket, ListFaults {});
                match within(interface, LOOK, call).await {
                    Ok(listed) => listed.faults,
                    Err(error) => vec![silent(interface, &error)],
                }
            });
        }
        let bus = self.bus.within(LOOK);
        calls.spawn(async move {
            let listed = bus.call_on(CONSOLE, ListFaults {}).await;
            listed.map(|listed| listed.faults).unwrap_or_default()
        });
        let mut faults = self.faults.list();
        while let Some(listed) = calls.join_next().await {
            faults.extend(listed.unwrap_or_default());
        }
        faults
    }
}

impl Machine for Node {
    fn about(&self) -> Pending<'_, About> {
        Box::pin(async {
            let _turn = self.lookers.acquire().await;
            let (boot, units, network, mut faults) = tokio::join!(
                self.ask(LOOK, init::Describe {}),
                self.ask(LOOK, ListUnits {}),
                self.ask(LOOK, net::Describe {}),
                self.list_faults(),
            );
            match &boot {
                Ok(boot) => faults.extend(boot.faults.iter().cloned()),
                Err(error) => faults.push(silent(&init::INTERFACE, error)),
            }
            faults.sort();
            faults.dedup();
            About {
                boot: boot.ok(),
                units: units.map(|u| u.units).unwrap_or_default(),
                network: network.ok(),
                faults,
            }
        })
    }

    fn capacity(&self) -> Answer<'_, (Measured, UsageReply)> {
        Box::pin(async { tokio::try_join!(self.ask(LOOK, Measure {}), self.ask(LOOK, Usage {})) })
    }

    fn shut_down(&self, action: init::Action) -> Answer<'_, ()> {
        Box::pin(self.shut_down_now(action))
    }

    fn crashes(&self) -> Answer<'_, CrashReport> {
        Box::pin(self.list_crashes())
    }

    fn counts(&self) -> Pending<'_, Counts> {
        Box::pin(self.read_counts())
    }
}

impl Deployments for Node {
    fn put(&self, put: Put) -> Answer<'_, PutReply> {
        Box::pin(self.ask(WRITE, put))
    }

    fn get(&self, get: Get) -> Answer<'_, DeploymentStatus> {
        Box::pin(self.ask(LOOK, get))
    }

    fn list(&self, list: List) -> Answer<'_, Vec<DeploymentStatus>> {
        Box::pin(async { Ok(self.ask(LOOK, list).await?.deployments) })
    }

    fn delete(&self, delete: Delete) -> Answer<'_, Deleted> {
        Box::pin(self.ask(WRITE, delete))
    }

    fn read_log(&self, read: ReadLog) -> Answer<'_, LogStream> {
        Box::pin(async {
            let watch = within(ReadLog::INTERFACE, LOOK, self.bus.watch(read)).await?;
            let (sender, stream) = mpsc::channel(4);
            tokio::spawn(forward(watch, sender));
            Ok(stream)
        })
    }
}

/// What the daemons serve, PID 1 apart.
fn daemons() -> impl Iterator<Item = &'static Interface> {
    let served = |i: &&Interface| !i.socket.is_empty() && i.name != init::INTERFACE.name;
    INTERFACES.iter().copied().filter(served)
}

/// Carries chunks until the stream ends, or until its reader has gone.
async fn forward(mut watch: Watch<LogChunk>, sender: mpsc::Sender<Result<Piece, CallError>>) {
    loop {
        let chunk = tokio::select! {
            chunk = watch.next() => chunk,
            () = sender.closed() => return,
        };
        let Some(chunk) = chunk else { return };
        let piece = chunk.and_then(|LogChunk { from, data, .. }| {
            let bytes = STANDARD.decode(data).map_err(|e| CallError::failed(&e))?.into();
            Ok(Piece { from, bytes })
        });
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

async fn within<T>(
    interface: &Interface,
    bound: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(bound, call).await.unwrap_or_else(|_| {
        let (daemon, seconds) = (daemon(interface), bound.as_secs());
        Err(CallError::busy(format!("{daemon} does not answer within {seconds} s")))
    })
}

fn silent(interface: &Interface, error: &CallError) -> Fault {
    let daemon = daemon(interface);
    let id = format!("api.no-answer:{daemon}");
    Fault::new(id, format!("{daemon} does not tell how it is: {error}"))
}

/// The daemon that serves an interface.
fn daemon(interface: &Interface) -> String {
    match interface.name.rsplit('.').next() {
        Some("Init") | None => "zos-init".to_owned(),
        Some(noun) => format!("{}d", noun.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_named_after_their_interfaces() {
        let names: Vec<String> =
            INTERFACES.iter().filter(|i| !i.socket.is_empty()).map(|i| daemon(i)).collect();
        let expected =
            ["zos-init", "storaged", "identityd", "netd", "capacityd", "vmd", "provisiond"];
        assert_eq!(names, expected);
    }

    #[tokio::test]
    async fn a_node_without_any_daemon_still_tells_how_it_is() {
        let dir = std::env::temp_dir().join("zos-apid-no-such-folder");
        let node = Node::new(Bus::at(dir), FaultBoard::default());
        let about = node.about().await;
        let ids: Vec<&str> = about.faults.iter().map(|f| f.id.as_str()).collect();
        assert_eq!(ids.len(), 7, "{ids:?}");
        assert!(ids.contains(&"api.no-answer:zos-init") && ids.contains(&"api.no-answer:vmd"));
        assert!(about.boot.is_none() && about.network.is_none());
        assert!(matches!(node.capacity().await, Err(CallError::Busy { .. })));
    }

    /// Sockets that PID 1 holds while their daemons hang: calls wait in the backlog.
    #[tokio::test]
    async fn a_node_whose_daemons_all_hang_answers_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = INTERFACES.iter().filter_map(|i| i.socket.rsplit('/').next());
        let names = names.filter(|name| !name.is_empty());
        let held: Vec<_> = names
            .map(|name| std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap())
            .collect();
        let node = Node::new(Bus::at(dir.path()), FaultBoard::default());
        let about = timeout(LOOK + LOOK / 2, node.about()).await.unwrap();
        assert_eq!(about.faults.len(), held.len());
        assert!(about.faults[0].detail.contains("does not answer within 2 s"), "{about:?}");
    }
}

//! What a farmer asks for, over local calls: services, power, crashes, counts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use zos_api::local::init::{
    self, Action, Describe, DescribeUnit, ListUnits, LogEntries, ReadLog, RestartUnit, Shutdown,
    Unit, UnitDetail, UnitKind,
};
use zos_api::local::service::ReadMetrics;
use zos_api::local::{CallError, Method, storage};
use zos_daemon::Watch;

use super::{CONSOLE, LOOK, Node, daemon, daemons, within};
use crate::backend::{Answer, Counts, CrashReport, LineStream, Services};

/// For what PID 1 notes before it answers.
const NOTE: Duration = Duration::from_secs(5);

impl Services for Node {
    fn units(&self) -> Answer<'_, Vec<Unit>> {
        Box::pin(async { Ok(self.ask(LOOK, ListUnits {}).await?.units) })
    }

    fn describe(&self, name: String) -> Answer<'_, UnitDetail> {
        Box::pin(self.ask(LOOK, DescribeUnit { unit: name }))
    }

    fn restart(&self, name: String) -> Answer<'_, ()> {
        Box::pin(async { self.ask(NOTE, RestartUnit { unit: name }).await.map(drop) })
    }

    fn read_lines(&self, name: String, after: u64, follow: bool) -> Answer<'_, LineStream> {
        Box::pin(async move {
            let read = ReadLog { unit: name, after };
            // Each answer holds many lines, and PID 1 bounds it: one waits while another is sent.
            let (sender, stream) = mpsc::channel(1);
            let mut last = None;
            if !follow {
                let newest = self.ask(LOOK, read.clone()).await?;
                if newest.missed == 0 {
                    let _ = sender.try_send(Ok(newest)); // its reader is here still, and it is the first
                    return Ok(stream);
                }
                // More is held than one answer has room for: those before it come as a stream does.
                last = newest.entries.last().map(|entry| entry.cursor);
            }
            let watch = within(ReadLog::INTERFACE, LOOK, self.bus.watch(read)).await?;
            tokio::spawn(forward(watch, sender, last));
            Ok(stream)
        })
    }
}

/// Carries lines until the stream ends, or the last that is wanted has come, or its reader has gone.
async fn forward(
    mut watch: Watch<LogEntries>,
    sender: mpsc::Sender<Result<LogEntries, CallError>>,
    last: Option<u64>,
) {
    loop {
        let entries = tokio::select! {
            entries = watch.next() => entries,
            () = sender.closed() => return,
            () = sleep(LOOK), if last.is_some() => {
                Some(Err(CallError::busy("zos-init does not go on with its log")))
            }
        };
        let Some(mut entries) = entries else { return };
        let mut ended = entries.is_err();
        if let (Ok(LogEntries { entries, .. }), Some(last)) = (&mut entries, last) {
            ended = entries.last().is_some_and(|entry| entry.cursor >= last);
            entries.retain(|entry| entry.cursor <= last);
        }
        if sender.send(entries).await.is_err() || ended {
            return;
        }
    }
}

impl Node {
    pub(super) async fn shut_down_now(&self, action: Action) -> Result<(), CallError> {
        self.ask(NOTE, Shutdown { action }).await.map(drop)
    }

    /// storaged keeps what PID 1 found at each boot; while it is silent, this boot's is better than none.
    pub(super) async fn list_crashes(&self) -> Result<CrashReport, CallError> {
        match self.ask(LOOK, storage::ListCrashes {}).await {
            Ok(kept) => Ok(CrashReport { crashes: kept.crashes, earlier: true }),
            Err(error) => {
                tracing::warn!("crashes of earlier boots are not told: {error}");
                let found = self.ask(LOOK, init::ListCrashes {}).await?;
                Ok(CrashReport { crashes: found.crashes, earlier: false })
            }
        }
    }

    pub(super) async fn read_counts(&self) -> Counts {
        let mut calls = JoinSet::new();
        for interface in daemons() {
            let bus = self.bus.clone();
            calls.spawn(async move {
                let call = bus.call_on(interface.socket, ReadMetrics {});
                let text = within(interface, LOOK, call).await.map(|metrics| metrics.text);
                (daemon(interface), text)
            });
        }
        let bus = self.bus.within(LOOK);
        let console = async { bus.call_on(CONSOLE, ReadMetrics {}).await.ok() };
        let pid_1 = async {
            let (boot, units) =
                tokio::join!(self.ask(LOOK, Describe {}), self.ask(LOOK, ListUnits {}));
            let units = units.ok().map(|list| list.units);
            let details = self.describe_services(units.as_deref().unwrap_or_default()).await;
            Counts { boot: boot.ok(), units, details, ..Counts::default() }
        };
        let (mut counts, daemons, console) = tokio::join!(pid_1, calls.join_all(), console);
        counts.daemons.extend(daemons);
        counts.daemons.extend(console.map(|told| ("consoled".to_owned(), Ok(told.text))));
        counts
    }

    /// What each service uses; those that can't be told are left out.
    async fn describe_services(&self, units: &[Unit]) -> BTreeMap<String, UnitDetail> {
        let mut calls = JoinSet::new();
        for unit in units.iter().filter(|unit| unit.kind == UnitKind::Service) {
            let (bus, unit) = (self.bus.clone(), unit.name.clone());
            calls.spawn(within(&init::INTERFACE, LOOK, async move {
                bus.call(DescribeUnit { unit }).await
            }));
        }
        let details = calls.join_all().await.into_iter().flatten();
        details.map(|detail| (detail.unit.name.clone(), detail)).collect()
    }
}

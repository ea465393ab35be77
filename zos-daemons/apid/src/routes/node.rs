//! The node itself: public.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use zos_api::local::init::{Boot, Unit, UnitKind};
use zos_api::node::NodeCapacity;
use zos_types::Problem;
use zos_types::machine::{BootReason, Node, Service, TimeQuality};

use crate::backend::About;
use crate::problem::Refused;
use crate::{Api, clock};

/// Who and how the node is
///
/// Answers whatever else is wrong: a part that does not answer is among the faults.
#[utoipa::path(
    get, path = "/v1/node", tag = "node",
    responses((status = 200, description = "The node.", body = Node)),
)]
pub(super) async fn get_node(State(api): State<Arc<Api>>) -> Json<Node> {
    let About { boot, units, network, faults } = api.machine.about().await;
    let now = clock::now();
    let audience = {
        let mut epoch = api.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        epoch.audience(now).to_owned()
    };
    let boot = boot.unwrap_or_else(silent);
    let mut phases = api.phases.clone();
    phases.extend(boot.phases.into_iter().map(|phase| (phase.name, phase.millis)));
    Json(Node {
        id: api.identity.node,
        ephemeral: api.identity.ephemeral,
        audience,
        farm: api.farm.name.clone(),
        version: boot.version,
        image: boot.image,
        boot_reason: boot.boot_reason,
        watchdog: boot.watchdog,
        time: Timestamp::from_second(now.wall()).unwrap_or_default().to_string(),
        time_quality: boot.time_quality,
        uptime: now.boot_millis / 1000,
        phases,
        network: network.unwrap_or_default(),
        services: units.into_iter().filter_map(service).collect(),
        faults,
    })
}

/// What is known of a boot while PID 1 does not answer; the faults say so.
fn silent() -> Boot {
    Boot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        image: String::new(),
        boot_reason: BootReason::Unknown,
        ending: None,
        watchdog: None,
        time_quality: TimeQuality::Unsure,
        settings: Default::default(),
        phases: Vec::new(),
        faults: Vec::new(),
    }
}

fn service(unit: Unit) -> Option<Service> {
    let Unit { name, kind, state, restarts, .. } = unit;
    (kind == UnitKind::Service).then(|| Service { name, state: super::word(&state), restarts })
}

/// What the node has, and what of it twins hold
#[utoipa::path(
    get, path = "/v1/capacity", tag = "node",
    responses(
        (status = 200, description = "The capacity.", body = NodeCapacity),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_capacity(
    State(api): State<Arc<Api>>,
) -> Result<Json<NodeCapacity>, Refused> {
    let (measured, usage) = api.machine.capacity().await?;
    Ok(Json(NodeCapacity {
        processor: measured.processor,
        capacity: measured.capacity.with_used(&usage.resources),
        offered: measured.offered,
        deployments: usage.deployments,
        vms: usage.vms,
    }))
}

//! Snapshots of a twin's volumes: signed by the twin that has the volume, and by nobody else.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use zos_api::local::Change;
use zos_api::local::provision::{DeleteSnapshot, ListSnapshots, RestoreSnapshot, TakeSnapshot};
use zos_api::node::SnapshotList;
use zos_types::volume::SnapshotStatus;
use zos_types::{Name, Problem, WorkloadName};

use super::name;
use crate::Api;
use crate::caller::Signed;
use crate::problem::Refused;

/// A volume's snapshots
#[utoipa::path(
    get, path = "/v1/deployments/{name}/workloads/{workload}/snapshots", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
    ),
    responses(
        (status = 200, description = "Oldest first.", body = SnapshotList),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path((deployment, workload)): Path<(String, String)>,
    signed: Signed,
) -> Result<Json<SnapshotList>, Refused> {
    let volume = volume(&deployment, &workload)?;
    let snapshots = api.snapshots.list_of(ListSnapshots { twin: signed.twin, name: volume });
    Ok(Json(SnapshotList { snapshots: snapshots.await? }))
}

/// One snapshot
#[utoipa::path(
    get, path = "/v1/deployments/{name}/workloads/{workload}/snapshots/{snapshot}", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
        ("snapshot" = Name, Path, description = "The snapshot's name."),
    ),
    responses(
        (status = 200, description = "The snapshot.", body = SnapshotStatus),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume or snapshot.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path((deployment, workload, snapshot)): Path<(String, String, String)>,
    signed: Signed,
) -> Result<Json<SnapshotStatus>, Refused> {
    let (volume, snapshot) = (volume(&deployment, &workload)?, name(&snapshot)?);
    let list = ListSnapshots { twin: signed.twin, name: volume.clone() };
    let snapshots = api.snapshots.list_of(list).await?;
    let found = snapshots.into_iter().find(|found| found.name == snapshot);
    found.map(Json).ok_or_else(|| {
        let detail = format!("volume {volume} has no snapshot `{snapshot}`");
        Refused::new(StatusCode::NOT_FOUND, "not-found", detail)
    })
}

/// Take a snapshot
///
/// Keeps a volume as it is now, also while its VM runs: what the guest has written to the disk is in it,
/// what it still holds in memory is not (as after a power cut). The volume's full size is set aside and
/// billed for it. One of this name that is there is left as it is, so a request may be repeated. A
/// volume has at most 32.
#[utoipa::path(
    put, path = "/v1/deployments/{name}/workloads/{workload}/snapshots/{snapshot}", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
        ("snapshot" = Name, Path, description = "The snapshot's name: unique for the volume."),
    ),
    responses(
        (status = 200, description = "There is one of this name; it is as it was.", body = SnapshotStatus),
        (status = 201, description = "Taken, and durable.", body = SnapshotStatus),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`full`: there is no room for it, or the volume has as many as it may; \
            `conflict`: the volume is being set back to another.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path((deployment, workload, snapshot)): Path<(String, String, String)>,
    signed: Signed,
) -> Result<Response, Refused> {
    let (name, snapshot) = (volume(&deployment, &workload)?, name(&snapshot)?);
    let twin = signed.twin;
    let take = TakeSnapshot { twin, name: name.clone(), snapshot: snapshot.clone() };
    let taken = api.snapshots.take(take).await?;
    tracing::info!("{twin} took snapshot {name}@{snapshot}: {:?}", taken.change);
    let status = match taken.change {
        Change::Created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(taken.snapshot)).into_response())
}

/// Destroy a snapshot
///
/// Its room is free when this is answered. What was made from it is not touched.
#[utoipa::path(
    delete, path = "/v1/deployments/{name}/workloads/{workload}/snapshots/{snapshot}", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
        ("snapshot" = Name, Path, description = "The snapshot's name."),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume or snapshot.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the volume is being set back to it, or a volume is being made \
            from it.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path((deployment, workload, snapshot)): Path<(String, String, String)>,
    signed: Signed,
) -> Result<StatusCode, Refused> {
    let (name, snapshot) = (volume(&deployment, &workload)?, name(&snapshot)?);
    let twin = signed.twin;
    let delete = DeleteSnapshot { twin, name: name.clone(), snapshot: snapshot.clone() };
    api.snapshots.destroy(delete).await?;
    tracing::info!("{twin} deleted snapshot {name}@{snapshot}");
    Ok(StatusCode::NO_CONTENT)
}

/// Set a volume back to a snapshot
///
/// What was written to the volume since is lost. A VM that has the volume is stopped, orderly first, and
/// started again when it is done: one request, which the node brings to its end also over a restart of
/// its own. The volume's status shows `restoring` until then. The snapshot stays.
#[utoipa::path(
    post, path = "/v1/deployments/{name}/workloads/{workload}/snapshots/{snapshot}/restore",
    tag = "deployments", security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
        ("snapshot" = Name, Path, description = "The snapshot's name."),
    ),
    responses(
        (status = 202, description = "Noted, and durable.", body = SnapshotStatus),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume or snapshot.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the volume is being set back to another snapshot.",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn restore(
    State(api): State<Arc<Api>>,
    Path((deployment, workload, snapshot)): Path<(String, String, String)>,
    signed: Signed,
) -> Result<Response, Refused> {
    let (name, snapshot) = (volume(&deployment, &workload)?, name(&snapshot)?);
    let Signed { twin, evidence, .. } = signed;
    let restore =
        RestoreSnapshot { twin, name: name.clone(), snapshot: snapshot.clone(), evidence };
    let noted = api.snapshots.restore(restore).await?;
    tracing::info!("{twin} sets {name} back to snapshot {snapshot}");
    Ok((StatusCode::ACCEPTED, Json(noted)).into_response())
}

fn volume(deployment: &str, workload: &str) -> Result<WorkloadName, Refused> {
    Ok(WorkloadName { deployment: name(deployment)?, workload: name(workload)? })
}

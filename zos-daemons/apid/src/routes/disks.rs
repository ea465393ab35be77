//! Disks and pools. The farmer's.
//!
//! ```text
//!  POST …/adopt?dry_run=true ─▶ plan: does, loses, hash ─▶ the farmer reads it
//!  POST …/adopt {"plan": hash} ─┬─ the disk is as it was ─▶ done
//!                               └─ it has changed ────────▶ 409, nothing was written
//! ```

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use zos_api::node::disks::{Confirmation, DiskList, PoolList};
use zos_types::Problem;
use zos_types::disk::{Disk, DiskPlan, Pool};

use super::{check_json, query};
use crate::Api;
use crate::backend::DiskChange;
use crate::caller::ByFarmer;
use crate::problem::Refused;

/// The node's disks
#[utoipa::path(
    get, path = "/v1/disks", tag = "farmer", security(("signature" = [])),
    responses(
        (status = 200, description = "Each with what it is to the node, and why.", body = DiskList),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "storaged does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    _farmer: ByFarmer,
) -> Result<Json<DiskList>, Refused> {
    Ok(Json(DiskList { disks: api.disks.disks().await? }))
}

/// One disk
#[utoipa::path(
    get, path = "/v1/disks/{disk}", tag = "farmer", security(("signature" = [])),
    params(("disk" = String, Path, description = "The kernel's name, or the stable id.")),
    responses(
        (status = 200, description = "The disk; `reason` tells how far what was begun is.", body = Disk),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such disk.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "storaged does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(disk): Path<String>,
    _farmer: ByFarmer,
) -> Result<Json<Disk>, Refused> {
    Ok(Json(find(&api, &disk).await?))
}

/// The node's pools
#[utoipa::path(
    get, path = "/v1/pools", tag = "farmer", security(("signature" = [])),
    responses(
        (status = 200, description = "Each with what it can hold, and how it does.", body = PoolList),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "storaged does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn pools(
    State(api): State<Arc<Api>>,
    _farmer: ByFarmer,
) -> Result<Json<PoolList>, Refused> {
    Ok(Json(PoolList { pools: api.disks.pools().await? }))
}

/// Look through a pool
///
/// All that has checksums is read, and what has a second copy repaired. Answered when it has begun; `scrub` of the
/// pool tells how far it is.
#[utoipa::path(
    post, path = "/v1/pools/{pool}/scrub", tag = "farmer", security(("signature" = [])),
    params(("pool" = String, Path, description = "Its id.")),
    responses(
        (status = 202, description = "It has begun.", body = Pool),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such pool.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "It is being looked through already, or storaged does not answer.",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn scrub(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    _farmer: ByFarmer,
) -> Result<Response, Refused> {
    let find = async || {
        let found = api.disks.pools().await?.into_iter().find(|pool| pool.id == id);
        found.ok_or_else(|| {
            let detail = format!("there is no pool `{id}`; GET /v1/pools lists them");
            Refused::new(StatusCode::NOT_FOUND, "not-found", detail)
        })
    };
    find().await?;
    api.disks.scrub(id.clone()).await?;
    Ok((StatusCode::ACCEPTED, Json(find().await?)).into_response())
}

/// How a change is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Tell the plan and do nothing. Then there is no body.
    #[serde(default)]
    dry_run: bool,
}

/// Give a disk to the node
///
/// All that is on it is lost. With `dry_run=true` the answer is the plan: what is done, what is lost, and a hash
/// over what the disk holds. The word that carries it out names that hash; if the disk has changed since, nothing
/// is written. An adoption that a power cut ends is finished at the next boot.
#[utoipa::path(
    post, path = "/v1/disks/{disk}/adopt", tag = "farmer", security(("signature" = [])),
    params(("disk" = String, Path, description = "The kernel's name, or the stable id."), How),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses(
        (status = 200, description = "The plan.", body = DiskPlan),
        (status = 201, description = "Its pool is made; the disk as it is now.", body = Disk),
        (status = 400, description = "`invalid`: neither a dry run nor a plan's hash.", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such disk.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the disk can't be adopted, or is no longer as in the plan; \
            `detail` tells why, and what the plan would be now.", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "`media-type`: the body must be JSON.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "storaged does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn adopt(
    State(api): State<Arc<Api>>,
    Path(disk): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    farmer: ByFarmer,
) -> Result<Response, Refused> {
    change(&api, disk, DiskChange::Adopt, &uri, &headers, &farmer).await
}

/// Take a disk from the node
///
/// Its pool takes no new volumes, those on it move to others, and once nothing is left it is wiped and shown as
/// empty; nothing that did not move is destroyed. Answered when the word is durable; the disk's `reason` tells the
/// rest. It goes on after a reboot.
#[utoipa::path(
    post, path = "/v1/disks/{disk}/release", tag = "farmer", security(("signature" = [])),
    params(("disk" = String, Path, description = "The kernel's name, or the stable id."), How),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses(
        (status = 200, description = "The plan.", body = DiskPlan),
        (status = 202, description = "It is being emptied.", body = Disk),
        (status = 400, description = "`invalid`: neither a dry run nor a plan's hash.", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such disk.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the disk can't be released, or what lies on it is no longer as in \
            the plan.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`media-type`: the body must be JSON.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "storaged does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn release(
    State(api): State<Arc<Api>>,
    Path(disk): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    farmer: ByFarmer,
) -> Result<Response, Refused> {
    change(&api, disk, DiskChange::Release, &uri, &headers, &farmer).await
}

async fn change(
    api: &Api,
    disk: String,
    change: DiskChange,
    uri: &Uri,
    headers: &HeaderMap,
    farmer: &ByFarmer,
) -> Result<Response, Refused> {
    let How { dry_run } = query(uri)?;
    if dry_run {
        if !farmer.body.is_empty() {
            let detail = "a dry run has no body: it confirms nothing";
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid", detail));
        }
        return Ok(Json(api.disks.plan(disk, change).await?).into_response());
    }
    if !farmer.body.is_empty() {
        check_json(headers, "the farmer's word")?;
    }
    let Confirmation { plan } = serde_json::from_slice(&farmer.body).map_err(|e| {
        let detail = format!(
            "the body is to be {{\"plan\": \"<hash>\"}}, with the hash that ?dry_run=true tells: {e}"
        );
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    })?;
    api.disks.confirm(disk.clone(), change, plan).await?;
    tracing::warn!("the farmer's word on disk {disk}: {change:?}");
    let status = match change {
        DiskChange::Adopt => StatusCode::CREATED,
        DiskChange::Release => StatusCode::ACCEPTED,
    };
    Ok((status, Json(find(api, &disk).await?)).into_response())
}

async fn find(api: &Api, disk: &str) -> Result<Disk, Refused> {
    let disks = api.disks.disks().await?;
    let named = disks.iter().position(|found| found.name == disk);
    let found = named.or_else(|| disks.iter().position(|found| found.id == disk));
    let found = found.and_then(|at| disks.into_iter().nth(at));
    found.ok_or_else(|| {
        let detail = format!("there is no disk `{disk}`; GET /v1/disks lists them");
        Refused::new(StatusCode::NOT_FOUND, "not-found", detail)
    })
}

//! Keys of volumes that the twin holds: asked for, and handed over.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use zos_api::local::identity::PublicSealingKey;
use zos_api::local::storage::{DescribeKey, UnlockVolume};
use zos_api::node::KeyHandover;
use zos_types::volume::VolumeKey;
use zos_types::{Name, Problem, WorkloadName};

use super::{check_json, name};
use crate::Api;
use crate::caller::Signed;
use crate::problem::Refused;

/// The key that twins seal to
///
/// What a twin hands over is sealed to it, and only this run of the node can open it. It is new at each start of the
/// node; check the signature with the node's id, since TLS ends before the part of the node that holds its private half.
#[utoipa::path(
    get, path = "/v1/node/sealing-key", tag = "node",
    responses(
        (status = 200, description = "The key.", body = PublicSealingKey),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_sealing_key(
    State(api): State<Arc<Api>>,
) -> Result<Json<PublicSealingKey>, Refused> {
    Ok(Json(api.keys.sealing_key().await?))
}

/// What is known of a volume's key
#[utoipa::path(
    get, path = "/v1/deployments/{name}/workloads/{workload}/key", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
    ),
    responses(
        (status = 200, description = "Who holds it, and whether the volume waits for it.", body = VolumeKey),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume, or not yet.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_key(
    State(api): State<Arc<Api>>,
    Path((deployment, workload)): Path<(String, String)>,
    signed: Signed,
) -> Result<Json<VolumeKey>, Refused> {
    let name = WorkloadName { deployment: name(&deployment)?, workload: name(&workload)? };
    Ok(Json(api.keys.describe(DescribeKey { twin: signed.twin, name }).await?))
}

/// Hand a volume's key over
///
/// Opens a volume with `key = "twin"` until it is closed or the node boots. The first key that is handed over is
/// the volume's from then on; the node keeps nothing of it but what tells another key from it.
#[utoipa::path(
    put, path = "/v1/deployments/{name}/workloads/{workload}/key", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `volume` or `share` in it."),
    ),
    request_body(content = KeyHandover, content_type = "application/json"),
    responses(
        (status = 204, description = "The volume is open."),
        (status = 400, description = "`invalid`: it was not sealed to the node's present sealing key for this \
            volume, is not 64 bytes, or the node holds this volume's key.", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such volume, or not yet.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: it is not the volume's key.", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "`media-type`: the body must be JSON.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn put_key(
    State(api): State<Arc<Api>>,
    Path((deployment, workload)): Path<(String, String)>,
    headers: HeaderMap,
    signed: Signed,
) -> Result<StatusCode, Refused> {
    let name = WorkloadName { deployment: name(&deployment)?, workload: name(&workload)? };
    check_json(&headers, "a key")?;
    // What is wrong with it is not told in its own words, which are a secret.
    let handover: KeyHandover = serde_json::from_slice(&signed.body).map_err(|_| {
        let detail = "the body must be {\"sealed\": \"<base64>\"}";
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    })?;
    let unlock = UnlockVolume { twin: signed.twin, name: name.clone(), sealed: handover.sealed };
    api.keys.unlock(unlock).await?;
    tracing::info!("{} opened volume {name}", signed.twin);
    Ok(StatusCode::NO_CONTENT)
}

//! A twin's deployments: signed. Another twin's deployment does not exist.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use utoipa::IntoParams;
use zos_api::local::provision::{Delete, Get, List, Put};
use zos_api::local::{CallError, Change};
use zos_api::node::{Applied, Deleted, DeploymentList};
use zos_types::status::DeploymentStatus;
use zos_types::{Deployment, Name, Problem};

use super::{check_json, name, query};
use crate::Api;
use crate::caller::Signed;
use crate::problem::Refused;

/// The twin's deployments
#[utoipa::path(
    get, path = "/v1/deployments", tag = "deployments", security(("signature" = [])),
    responses(
        (status = 200, description = "Those of the twin that signed, by name.", body = DeploymentList),
        (status = 401, description = "`signature-missing`, `-malformed`, `-invalid`, `-expired`, `-replayed`, \
            `-audience`; `audience` and `time` say what to sign with.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    signed: Signed,
) -> Result<Json<DeploymentList>, Refused> {
    let deployments = api.deployments.list(List { twin: signed.twin }).await?;
    Ok(Json(DeploymentList { deployments }))
}

/// How a deployment is to be put.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    /// Judge only: what would change, and whether there is room.
    #[serde(default)]
    #[param(default = false, required = false)]
    dry_run: bool,
}

/// Ask for a deployment
///
/// `version` is 1 for a name never used, else the highest ever seen under it + 1, also after a
/// deletion. The same version with the same bytes changes nothing, so a request may be repeated.
#[utoipa::path(
    put, path = "/v1/deployments/{name}", tag = "deployments", security(("signature" = [])),
    params(("name" = Name, Path, description = "Unique for the twin on this node."), PutQuery),
    request_body(content = Deployment, content_type = "application/json"),
    responses(
        (status = 200, description = "Changed, unchanged or, with `dry_run`, judged.", body = Applied),
        (status = 201, description = "New, and durable.", body = Applied),
        (status = 400, description = "`invalid`: `errors` names each field and its rule.", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: another version is due, `next_version` says which; \
            `full`: the node has no room.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`too-large`.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`media-type`: the body must be JSON.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    signed: Signed,
) -> Result<Response, Refused> {
    let name = name(&text)?;
    let PutQuery { dry_run } = query(&uri)?;
    check_json(&headers, "a deployment")?;
    let Signed { twin, evidence, body } = signed;
    let put = Put { twin, name: name.clone(), body: STANDARD.encode(body), evidence, dry_run };
    let reply = api.deployments.put(put).await?;
    if !dry_run {
        tracing::info!("{twin} put {name}: {:?}", reply.change);
    }
    let status = match reply.change {
        Change::Created if !dry_run => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let tag = etag(&reply.status);
    let applied = Applied { change: reply.change, dry_run, used: reply.used, status: reply.status };
    Ok((status, [(ETAG, tag)], Json(applied)).into_response())
}

/// One deployment
#[utoipa::path(
    get, path = "/v1/deployments/{name}", tag = "deployments", security(("signature" = [])),
    params(("name" = Name, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The deployment; `ETag` is its version.", body = DeploymentStatus,
            headers(("ETag" = String, description = "The version, quoted."))),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "The twin has none of this name; `next_version` says what the next one \
            must carry.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    signed: Signed,
) -> Result<Response, Refused> {
    let name = name(&text)?;
    let get = Get { twin: signed.twin, name: name.clone() };
    let status = api.deployments.get(get).await.map_err(|error| absent(&name, error))?;
    Ok(([(ETAG, etag(&status))], Json(status)).into_response())
}

/// Take a deployment away
///
/// Durable when answered; its workloads go down after it.
#[utoipa::path(
    delete, path = "/v1/deployments/{name}", tag = "deployments", security(("signature" = [])),
    params(("name" = Name, Path, description = "Its name.")),
    responses(
        (status = 202, description = "It is no longer wanted.", body = Deleted),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "The twin has none of this name.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    signed: Signed,
) -> Result<Response, Refused> {
    let name = name(&text)?;
    let Signed { twin, evidence, .. } = signed;
    let delete = Delete { twin, name: name.clone(), evidence };
    let deleted = api.deployments.delete(delete).await.map_err(|error| absent(&name, error))?;
    tracing::info!("{twin} deleted {name}");
    let body = Deleted { next_version: deleted.next_version };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// A deployment that never was, or is no longer, is told as absent with its next version.
fn absent(name: &Name, error: CallError) -> Refused {
    let next_version = match error {
        CallError::NotFound { .. } => Some(1),
        CallError::Conflict { next_version, .. } => next_version,
        error => return error.into(),
    };
    let detail = format!("there is no deployment `{name}` of this twin");
    Refused::new(StatusCode::NOT_FOUND, "not-found", detail).with_next_version(next_version)
}

fn etag(status: &DeploymentStatus) -> String {
    format!("\"{}\"", status.deployment.version)
}

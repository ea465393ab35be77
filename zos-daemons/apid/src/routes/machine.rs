//! The machine: power, crashes, metrics. The farmer's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use zos_api::node::farmer::{CrashList, Power};
use zos_types::Problem;

use super::check_json;
use crate::backend::CrashReport;
use crate::caller::ByFarmer;
use crate::metrics::{self, exposition};
use crate::problem::Refused;
use crate::{Api, clock};

/// Stop the node, orderly
///
/// VMs are stopped first, each with its time to end. Answered when it is noted. A signature is good once, so a
/// request that was answered can't be sent again.
#[utoipa::path(
    post, path = "/v1/node/power", tag = "farmer", security(("signature" = [])),
    request_body(content = Power, content_type = "application/json"),
    responses(
        (status = 202, description = "The node goes down.", body = Power),
        (status = 400, description = "`invalid`: the body says otherwise than it may, or no kernel is loaded for \
            `kexec`.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: it can't be done as the node is now.", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "`media-type`: the body must be JSON.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "PID 1 does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn power(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    farmer: ByFarmer,
) -> Result<Response, Refused> {
    check_json(&headers, "what is to be done")?;
    let power: Power = serde_json::from_slice(&farmer.body).map_err(|e| {
        let detail =
            format!("the body is to be {{\"action\": \"reboot\"}}, or poweroff, or kexec: {e}");
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    })?;
    api.machine.shut_down(power.action.into()).await?;
    tracing::warn!("the farmer ends this run: {:?}", power.action);
    Ok((StatusCode::ACCEPTED, Json(power)).into_response())
}

/// What kernels that died left
///
/// The last lines of each one's log, as the machine's memory kept them over the reset.
#[utoipa::path(
    get, path = "/v1/node/crashes", tag = "farmer", security(("signature" = [])),
    responses(
        (status = 200, description = "Newest first.", body = CrashList),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "Neither storaged nor PID 1 answers.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn crashes(
    State(api): State<Arc<Api>>,
    _farmer: ByFarmer,
) -> Result<Json<CrashList>, Refused> {
    let CrashReport { crashes, earlier } = api.machine.crashes().await?;
    Ok(Json(CrashList { crashes, earlier }))
}

/// What the node counts
///
/// OpenMetrics 1.0, for Prometheus and its like. `zos_scrape_ok` says of each daemon whether it answered; the rest
/// is there without those that did not.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "farmer", security(("signature" = [])),
    responses(
        (status = 200, description = "OpenMetrics text.", body = String,
            content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>, _farmer: ByFarmer) -> impl IntoResponse {
    let counts = api.machine.counts().await;
    let text = exposition(&api.served, &counts, clock::now());
    ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text)
}

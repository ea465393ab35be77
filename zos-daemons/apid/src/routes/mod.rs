//! The routes. Each handler carries its own description, so that the OpenAPI document and the
//! router can't differ.

mod deployments;
mod disks;
mod document;
mod keys;
mod log;
mod machine;
mod node;
mod service_log;
mod services;
mod snapshots;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
pub use document::openapi;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zos_types::Name;

use crate::Api;
use crate::problem::{Refused, in_one_form};

fn parts() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(node::get_node))
        .routes(routes!(node::get_capacity))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::put, deployments::get, deployments::delete))
        .routes(routes!(log::get_log))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::put, snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::restore))
        .routes(routes!(keys::get_sealing_key))
        .routes(routes!(keys::get_key, keys::put_key))
        .routes(routes!(services::list))
        .routes(routes!(services::get))
        .routes(routes!(services::restart))
        .routes(routes!(service_log::get_log))
        .routes(routes!(disks::list))
        .routes(routes!(disks::get))
        .routes(routes!(disks::adopt))
        .routes(routes!(disks::release))
        .routes(routes!(disks::pools))
        .routes(routes!(disks::scrub))
        .routes(routes!(machine::power))
        .routes(routes!(machine::crashes))
        .routes(routes!(machine::metrics))
        .routes(routes!(document::get_openapi))
        .split_for_parts()
}

/// The whole API.
pub fn router(api: Arc<Api>) -> Router {
    let (router, _) = parts();
    let served = api.served.clone();
    router
        .fallback(async || StatusCode::NOT_FOUND.into_response())
        .layer(map_response(in_one_form))
        .layer(map_response(move |response: Response| {
            served.answered(response.status().as_u16());
            std::future::ready(response)
        }))
        .with_state(api)
}

/// The request's query; unknown words are refused.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    let query = Query::try_from_uri(uri);
    let Query(query) = query.map_err(|e| {
        let detail = format!("the query can't be read: {}", e.body_text());
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    })?;
    Ok(query)
}

fn name(text: &str) -> Result<Name, Refused> {
    text.parse().map_err(|e: zos_types::name::NameError| {
        Refused::new(StatusCode::BAD_REQUEST, "invalid", e.to_string())
    })
}

/// `what` must come as JSON.
fn check_json(headers: &HeaderMap, what: &str) -> Result<(), Refused> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("{what} is sent as application/json, not as `{given}`");
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail))
}

/// A word as JSON writes it.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

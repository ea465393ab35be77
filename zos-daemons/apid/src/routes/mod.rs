//! The routes. Each handler carries its own description, so that the OpenAPI document and the
//! router can't differ.

mod deployments;
mod document;
mod log;
mod node;

use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::IntoResponse;
pub use document::openapi;
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
        .routes(routes!(document::get_openapi))
        .split_for_parts()
}

/// The whole API.
pub fn router(api: Arc<Api>) -> Router {
    let (router, _) = parts();
    router
        .fallback(async || StatusCode::NOT_FOUND.into_response())
        .layer(map_response(in_one_form))
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

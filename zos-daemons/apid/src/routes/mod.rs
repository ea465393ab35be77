//! The routes. Each handler carries its own description, so that the OpenAPI document and the
//! router can't differ.

mod deployments;
mod log;
mod node;

use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::routing::get;
use serde::de::DeserializeOwned;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zos_types::Name;

use crate::Api;
use crate::problem::{Refused, in_one_form};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ZOS node API",
        description = "What a node says of itself to anybody, and what a twin keeps on it. HTTPS on TCP 8443; \
            the certificate is signed by the node's key, and clients check it with the node's id alone. \
            Every answer of 400 and above is a problem (RFC 9457) whose `type` is `urn:zos:problem:<slug>`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "https://{host}:8443", variables(("host" = (default = "node.local"))))),
    tags(
        (name = "node", description = "The node itself. No signature is needed."),
        (name = "deployments", description = "A twin's deployments. Requests are signed."),
    ),
    modifiers(&SignatureScheme),
)]
struct Document;

struct SignatureScheme;

impl utoipa::Modify for SignatureScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let words = "RFC 9421 with Ed25519: label and tag `zos`, no `alg`; covered, in this order: `\"@method\" \
            \"@path\" \"@query\" \"zos-audience\"`, and `\"content-digest\"` (sha-256) when there is a body; \
            parameters `created`, `keyid` (the twin's id), `expires` (at most 300 s later), `nonce`, `tag`. Header \
            `Zos-Audience` is `<node id>/<epoch>`, as GET /v1/node and every 401 tell. With it go `Signature-Input` \
            and, with a body, `Content-Digest`.";
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "Signature",
            words,
        )));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("signature", scheme);
    }
}

fn parts() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(node::get_node))
        .routes(routes!(node::get_capacity))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::put, deployments::get, deployments::delete))
        .routes(routes!(log::get_log))
        .split_for_parts()
}

/// The whole API.
pub fn router(api: Arc<Api>) -> Router {
    let (router, _) = parts();
    let document: Arc<str> = openapi().into();
    let document =
        async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string());
    router
        .route("/v1/openapi.json", get(document))
        .fallback(async || StatusCode::NOT_FOUND.into_response())
        .layer(map_response(in_one_form))
        .with_state(api)
}

/// The API's description: OpenAPI 3.1, in JSON.
pub fn openapi() -> String {
    let (_, document) = parts();
    let mut text = document.to_pretty_json().expect("a document of strings");
    text.push('\n');
    text
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

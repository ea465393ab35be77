//! The API's description: OpenAPI 3.1, gathered from the handlers and the types.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::schema::{Discriminator, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{KnownFormat, ObjectBuilder, OpenApi as Tree, Ref, RefOr, SchemaFormat};
use utoipa::{OpenApi, PartialSchema, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ZOS node API",
        description = "What a node says of itself to anybody, what a twin keeps on it, and what its farmer may do \
            with it. HTTPS on TCP 8443; \
            the certificate is signed by the node's key, and clients check it with the node's id alone. \
            Every answer of 400 and above is a problem (RFC 9457) whose `type` is `urn:zos:problem:<slug>`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "https://{host}:8443", variables(("host" = (default = "node.local"))))),
    tags(
        (name = "node", description = "The node itself. No signature is needed."),
        (name = "deployments", description = "A twin's deployments. Requests are signed."),
        (name = "farmer", description = "The machine's services, logs, disks, power, crashes and metrics. Requests are \
            signed with the key of the node's setting `zos.farmer`."),
    ),
)]
struct Frame;

const SIGNATURE: &str = "RFC 9421 with Ed25519: label and tag `zos`, no `alg`; covered, in this order: \
    `\"@method\" \"@path\" \"@query\" \"zos-audience\"`, and `\"content-digest\"` (sha-256) when there is a body; \
    parameters `created`, `keyid` (the twin's id), `expires` (at most 300 s later), `nonce`, `tag`. Header \
    `Zos-Audience` is `<node id>/<epoch>`, as GET /v1/node and every 401 tell. With it go `Signature-Input` and, \
    with a body, `Content-Digest`.";

/// The document before any route is in it.
pub(super) fn frame() -> Tree {
    let mut tree = Frame::openapi();
    let header = ApiKeyValue::with_description("Signature", SIGNATURE);
    let scheme = SecurityScheme::ApiKey(ApiKey::Header(header));
    tree.components.get_or_insert_default().add_security_scheme("signature", scheme);
    tree
}

/// The API's description, in JSON.
pub fn openapi() -> String {
    let (_, mut tree) = super::parts();
    tag_workloads(&mut tree);
    let mut text = tree.to_pretty_json().expect("a document of strings");
    text.push('\n');
    text
}

/// Puts `type` into each kind of workload. Generated, it stands beside the kind in an `allOf`,
/// which nothing can satisfy: a kind refuses fields that it does not name.
fn tag_workloads(tree: &mut Tree) {
    let Some(schemas) = tree.components.as_mut().map(|c| &mut c.schemas) else { return };
    let Some(RefOr::T(Schema::OneOf(mut union))) = schemas.remove("Workload") else { return };
    for item in &mut union.items {
        let RefOr::T(Schema::AllOf(both)) = item else { continue };
        let [RefOr::Ref(kind), RefOr::T(Schema::Object(tag))] = both.items.as_slice() else {
            continue;
        };
        let kind: Ref = kind.clone();
        let name = kind.ref_location.rsplit('/').next().unwrap_or_default();
        if let Some(RefOr::T(Schema::Object(fields))) = schemas.get_mut(name) {
            fields.properties.extend(tag.properties.clone());
            fields.required.extend(tag.required.iter().cloned());
        }
        *item = RefOr::Ref(kind);
    }
    let mapping = [("vm", "Vm"), ("volume", "Volume")]
        .map(|(word, name)| (word, format!("#/components/schemas/{name}")));
    union.discriminator = Some(Discriminator::with_mapping("type", mapping));
    schemas.insert("Workload".to_owned(), RefOr::T(Schema::OneOf(union)));
}

/// This description
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "node",
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json")),
)]
pub(super) async fn get_openapi() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(openapi);
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// Bytes of any kind.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Binary {}

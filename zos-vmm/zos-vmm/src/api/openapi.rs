//! The interface's description, OpenAPI 3.1: made of the types and of this table, kept in the
//! repository, and held to the code by this test.

use super::message::{Info, Ping, Resize};
use super::{VmConfig, routes};
use std::path::Path;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, PathItem, Paths, Ref, RefOr, Required, ResponseBuilder,
    ServerBuilder,
};
use utoipa::{OpenApi as _, PartialSchema};

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(VmConfig, Ping, Info, Resize)))]
struct Types;

type Code = (&'static str, &'static str);

/// A row: path, summary, body, what a good answer carries, and the other answers.
type Row =
    (&'static str, &'static str, Option<&'static str>, Option<&'static str>, &'static [Code]);

const BAD: Code = ("400", "The wrong method, a body where none belongs, or one that isn't JSON.");
const NO_VM: Code = ("404", "No VM was created.");
const STATE: Code = ("500", "The VM is in another state, or it failed; the answer says which.");

const ROWS: [Row; 13] = [
    ("vmm.ping", "Whether somebody is there", None, Some("VmmPingResponse"), &[BAD]),
    ("vmm.shutdown", "End the process, and the VM with it", None, None, &[BAD]),
    (
        "vm.create",
        "Create a VM. In the jail there is one already",
        Some("VmConfig"),
        None,
        &[("400", "This configuration can't be had; the answer lists each field."), STATE],
    ),
    ("vm.delete", "Forget the VM, after ending it; no error without one", None, None, &[BAD]),
    ("vm.boot", "Boot the VM, or resume it when it is paused", None, None, &[BAD, NO_VM, STATE]),
    ("vm.info", "What the VM is made of and does", None, Some("VmInfo"), &[BAD, NO_VM]),
    ("vm.counters", "What went through devices and vCPUs", None, Some("VmCounters"), &[BAD, STATE]),
    ("vm.pause", "Bring the VM to rest", None, None, &[BAD, STATE]),
    ("vm.resume", "Let it go on", None, None, &[BAD, STATE]),
    ("vm.shutdown", "End the VM at once; in the jail with the process", None, None, &[BAD, STATE]),
    (
        "vm.reboot",
        "End the VM at once and start it anew; in the jail the process ends with code 3",
        None,
        None,
        &[BAD, STATE],
    ),
    ("vm.power-button", "Press the power button", None, None, &[BAD, STATE]),
    (
        "vm.resize",
        "Resize the balloon",
        Some("VmResize"),
        None,
        &[BAD, STATE, ("501", "CPUs and memory keep their size.")],
    ),
];

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn content(name: &str) -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(reference(name))).build()
}

fn document() -> OpenApi {
    let mut tree = Types::openapi();
    tree.info = InfoBuilder::new()
        .title("zos-vmm")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Cloud Hypervisor's interface, as far as it is there, over a Unix socket. Every answer \
             of 400 and above is a JSON array of strings, from what failed to its cause. Bodies are \
             at most 4 MiB and have a Content-Length.",
        ))
        .build();
    tree.servers = Some(vec![ServerBuilder::new().url("http://localhost/api/v1").build()]);
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let counts =
        ObjectBuilder::new().additional_properties(Some(AdditionalProperties::from(number)));
    let all = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::from(counts)));
    let words = ArrayBuilder::new().items(String::schema());
    let schemas = &mut tree.components.get_or_insert_default().schemas;
    schemas.insert("VmCounters".to_owned(), all.into());
    schemas.insert("Error".to_owned(), words.into());
    tree.paths = Paths::new();
    for (path, summary, body, answer, codes) in ROWS {
        let good = match answer {
            Some(name) => ResponseBuilder::new().content("application/json", content(name)),
            None => ResponseBuilder::new(),
        };
        let method = if answer.is_some() { HttpMethod::Get } else { HttpMethod::Put };
        let body = body.map(|name| {
            RequestBodyBuilder::new()
                .content("application/json", content(name))
                .required(Some(Required::True))
                .build()
        });
        let mut operation = OperationBuilder::new()
            .operation_id(Some(path.replace(['.', '-'], "_")))
            .summary(Some(summary))
            .request_body(body)
            .response(
                if answer.is_some() { "200" } else { "204" },
                good.description("Done.").build(),
            );
        for (code, words) in codes {
            operation = operation.response(*code, refused(words));
        }
        tree.paths.paths.insert(format!("/{path}"), PathItem::new(method, operation));
    }
    for (path, advice) in routes::ABSENT {
        let operation = OperationBuilder::new()
            .operation_id(Some(path.replace(['.', '-'], "_")))
            .summary(Some(format!("Isn't there yet: {advice}")))
            .response("501", refused("Isn't there."));
        tree.paths.paths.insert(format!("/{path}"), PathItem::new(HttpMethod::Put, operation));
    }
    tree
}

fn refused(words: &str) -> utoipa::openapi::Response {
    let error = content("Error");
    ResponseBuilder::new().description(words).content("application/json", error).build()
}

#[test]
fn the_committed_description_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/zos-vmm-openapi.json");
    let fresh = document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "docs/zos-vmm-openapi.json is stale. Write it anew, look at the difference and commit it:\n    \
         REGENERATE=1 cargo test -p zos-vmm --lib api::openapi"
    );
}

/// Each path of the description is one that the router knows, by that method, and the other way.
#[test]
fn the_description_has_the_routers_paths() {
    for (path, _, body, answer, _) in ROWS {
        let method = if answer.is_some() { "GET" } else { "PUT" };
        let head = super::http::Head {
            method: method.to_owned(),
            path: format!("{}{path}", routes::ROOT),
            keep_alive: true,
        };
        let body = body.map_or("", |name| match name {
            "VmConfig" => "{}",
            _ => r#"{"desired_balloon": 0}"#,
        });
        routes::route(&head, body.as_bytes()).unwrap();
    }
}

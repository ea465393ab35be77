//! A VM's console: a stream of bytes, since a serial port is not UTF-8.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use zos_api::local::vm::ReadLog;
use zos_types::{Name, Problem, WorkloadName};

use super::document::Binary;
use super::{name, query, stream};
use crate::Api;
use crate::backend::Piece;
use crate::caller::Signed;
use crate::problem::Refused;

/// Where an answer begins.
const LOG_FROM: HeaderName = HeaderName::from_static("zos-log-from");

/// What part of the log is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only what comes after so many bytes ever written.
    #[serde(default)]
    #[param(default = 0, required = false)]
    from: u64,
    /// Wait for more, until the VM is gone or the client leaves.
    #[serde(default)]
    #[param(default = false, required = false)]
    follow: bool,
}

/// A VM's console
///
/// The bytes that its guest wrote to the serial port, as far as the node still holds them (the
/// last 256 KiB). When the answer breaks off, ask again from `Zos-Log-From` and as many bytes as came.
#[utoipa::path(
    get, path = "/v1/deployments/{name}/workloads/{workload}/log", tag = "deployments",
    security(("signature" = [])),
    params(
        ("name" = Name, Path, description = "The deployment's name."),
        ("workload" = Name, Path, description = "The name of a `vm` in it."),
        LogQuery,
    ),
    responses(
        (status = 200, description = "The bytes.", body = Binary, content_type = "application/octet-stream",
            headers(("Zos-Log-From" = u64, description = "How many bytes were ever written before the first one of \
                these. Less than `from`: the VM was made anew, or the node booted, and its console with it."))),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such VM.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "A part of the node does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_log(
    State(api): State<Arc<Api>>,
    Path((deployment, workload)): Path<(String, String)>,
    uri: Uri,
    signed: Signed,
) -> Result<Response, Refused> {
    let name = WorkloadName { deployment: name(&deployment)?, workload: name(&workload)? };
    let LogQuery { from, follow } = query(&uri)?;
    let read = ReadLog { twin: signed.twin, name, from, follow };
    let stream = api.deployments.read_log(read).await?;
    let (first, stream) = stream::begin(stream).await?;
    let at = first.as_ref().map_or(from, |piece| piece.from);
    let write = |piece: Piece| piece.bytes;
    let answer = stream::answer(first, stream, "application/octet-stream", write, &api.shutdown);
    Ok(([(LOG_FROM, at.to_string())], answer).into_response())
}

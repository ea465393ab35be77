//! The node's services: the farmer's. What runs for twins is theirs, and only counted here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use zos_api::local::CallError;
use zos_api::local::init::{Exit, Unit, UnitDetail, UnitKind};
use zos_api::node::farmer::{Restarting, ServiceDetail, ServiceList, ServiceStatus};
use zos_types::{Name, Problem};

use super::name;
use crate::caller::ByFarmer;
use crate::clock::Clocks;
use crate::problem::Refused;
use crate::{Api, clock};

/// The node's services
#[utoipa::path(
    get, path = "/v1/services", tag = "farmer", security(("signature" = [])),
    responses(
        (status = 200, description = "Each service, and how many programs run for twins.", body = ServiceList),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "`farmer-only`: another key signed; `farmer-unset`: the node was told of no \
            farmer.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "PID 1 does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    _farmer: ByFarmer,
) -> Result<Json<ServiceList>, Refused> {
    let units = api.services.units().await?;
    let now = clock::now();
    let (services, transient): (Vec<Unit>, Vec<Unit>) =
        units.into_iter().partition(|unit| unit.kind == UnitKind::Service);
    let services = services.into_iter().map(|unit| status(unit, now)).collect();
    Ok(Json(ServiceList { services, transient: transient.len() as u64 }))
}

/// One service, with what it uses
#[utoipa::path(
    get, path = "/v1/services/{name}", tag = "farmer", security(("signature" = [])),
    params(("name" = Name, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The service.", body = ServiceDetail),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such service.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "PID 1 does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    _farmer: ByFarmer,
) -> Result<Json<ServiceDetail>, Refused> {
    let UnitDetail { unit, usage, log_bytes } = find(&api, &name(&text)?).await?;
    let service = status(unit, clock::now());
    Ok(Json(ServiceDetail { service, usage, log_bytes }))
}

/// Restart a service
///
/// It is stopped and started again; one that has failed is started. Running VMs are not touched.
/// Answered when it is noted: the service's state tells the rest.
#[utoipa::path(
    post, path = "/v1/services/{name}/restart", tag = "farmer", security(("signature" = [])),
    params(("name" = Name, Path, description = "Its name.")),
    responses(
        (status = 202, description = "It is being restarted.", body = Restarting),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such service.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "PID 1 does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn restart(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    _farmer: ByFarmer,
) -> Result<Response, Refused> {
    let name = name(&text)?.to_string();
    api.services.restart(name.clone()).await.map_err(|error| absent(&name, error))?;
    tracing::info!("the farmer restarts {name}");
    Ok((StatusCode::ACCEPTED, Json(Restarting { name })).into_response())
}

/// A service; a program that runs for a twin is none.
async fn find(api: &Api, name: &Name) -> Result<UnitDetail, Refused> {
    let found = api.services.describe(name.to_string()).await;
    let detail = found.map_err(|error| absent(name.as_str(), error))?;
    match detail.unit.kind {
        UnitKind::Service => Ok(detail),
        UnitKind::Transient => Err(absent(name.as_str(), CallError::not_found("not a service"))),
    }
}

/// A service that is not there is told in our words; other errors as they are.
pub(super) fn absent(name: &str, error: CallError) -> Refused {
    match error {
        CallError::NotFound { .. } => {
            let detail = format!("there is no service `{name}`; GET /v1/services lists them");
            Refused::new(StatusCode::NOT_FOUND, "not-found", detail)
        }
        error => error.into(),
    }
}

fn status(unit: Unit, now: Clocks) -> ServiceStatus {
    let Unit { name, state, restarts, since_ms, exit, detail, .. } = unit;
    let (since, exit) = (now.date(since_ms), exit.map(ending));
    ServiceStatus { name, state, since, restarts, exit, detail }
}

/// How a process ended, in words.
fn ending(exit: Exit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(0), _) => "ended by itself, with code 0".to_owned(),
        (Some(code), _) => format!("failed with code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("ended by {name}"),
            None => format!("ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    };
    if exit.oom { format!("{how}, out of memory") } else { how }
}

/// The signals that end processes (signal(7)).
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let check = |code: Option<i32>, signal: Option<i32>, oom: bool, words: &str| {
            assert_eq!(ending(Exit { code, signal, oom }), words);
        };
        check(Some(0), None, false, "ended by itself, with code 0");
        check(Some(101), None, false, "failed with code 101");
        check(None, Some(6), false, "ended by SIGABRT");
        check(None, Some(9), true, "ended by SIGKILL, out of memory");
        check(None, Some(40), false, "ended by signal 40");
    }
}

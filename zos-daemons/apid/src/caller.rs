//! Who asks: a request with a twin's signature over it, or with the farmer's.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use zos_api::local::provision::Evidence;
use zos_api::signature::{Headers, Parts, Refusal};
use zos_types::TwinId;
use zos_types::deployment::MAX_BODY;

use crate::problem::Refused;
use crate::{Api, clock};

/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);

/// A request that its twin signed for this node, in this epoch, and that came for the first time.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) twin: TwinId,
    pub(crate) evidence: Evidence,
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<Api>> for Signed {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let body = read(body).await?;
        let parts =
            Parts { method: head.method.as_str(), path: head.uri.path(), query: head.uri.query() };
        let now = clock::now();
        let mut epoch = api.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let result =
            headers(&head.headers).and_then(|headers| epoch.judge(now, parts, headers, &body));
        match result {
            Ok(verified) => {
                let signature = verified.signature_text();
                let evidence = Evidence { base: verified.base, signature };
                Ok(Self { twin: verified.twin, evidence, body })
            }
            Err(refusal) => {
                let status = match refusal {
                    Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::UNAUTHORIZED,
                };
                let mut refused = Refused::new(status, refusal.slug(), refusal.to_string());
                refused.0.audience = Some(epoch.audience(now).to_owned());
                refused.0.time = Some(epoch.time(now));
                Err(refused)
            }
        }
    }
}

/// A request that the farmer signed so.
#[derive(Debug)]
pub(crate) struct ByFarmer {
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<Api>> for ByFarmer {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refused> {
        let Signed { twin, body, .. } = Signed::from_request(request, api).await?;
        api.farm.farmer.check(twin)?;
        Ok(Self { body })
    }
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    let read = timeout(BODY, Limited::new(body, MAX_BODY).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a body has at most {MAX_BODY} bytes");
            Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail))
        }
        Ok(Err(error)) => {
            let detail = format!("the body broke off: {error}");
            Err(Refused::new(StatusCode::BAD_REQUEST, "invalid", detail))
        }
        Err(_) => {
            let detail = format!("the body did not come within {} s", BODY.as_secs());
            Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

fn headers(map: &HeaderMap) -> Result<Headers<'_>, Refusal> {
    let one = |name: &str| {
        let mut values = map.get_all(name).iter();
        let value = values.next().map(|value| value.to_str()).transpose();
        match (value, values.next()) {
            (Ok(value), None) => Ok(value),
            _ => Err(Refusal::Malformed(format!("{name} must come once, in plain ASCII"))),
        }
    };
    Ok(Headers {
        audience: one("zos-audience")?,
        content_digest: one("content-digest")?,
        input: one("signature-input")?,
        signature: one("signature")?,
    })
}

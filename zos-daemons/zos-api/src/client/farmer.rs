//! A farmer's requests.

use super::{Client, ClientError, Log, body};
use crate::node::farmer::{
    CrashList, LogRecord, Power, PowerAction, Restarting, ServiceDetail, ServiceList,
};
use zos_types::Name;

/// The longest record of a log, bytes.
const MAX_RECORD: usize = 4 << 20;

impl Client {
    /// The node's services.
    pub async fn services(&self) -> Result<ServiceList, ClientError> {
        body(&self.signed("GET", "/v1/services", &[]).await?)
    }

    /// One service, with what it uses.
    pub async fn service(&self, name: &Name) -> Result<ServiceDetail, ClientError> {
        body(&self.signed("GET", &format!("/v1/services/{name}"), &[]).await?)
    }

    /// Stops a service and starts it again; answered when it is noted.
    pub async fn restart(&self, name: &Name) -> Result<Restarting, ClientError> {
        body(&self.signed("POST", &format!("/v1/services/{name}/restart"), &[]).await?)
    }

    /// A service's log after a cursor, or all that is held; with `follow`, also what comes.
    pub async fn service_log(
        &self,
        name: &Name,
        after: Option<&str>,
        follow: bool,
    ) -> Result<ServiceLog, ClientError> {
        let after = after.map(|cursor| format!("after={cursor}"));
        let follow = follow.then(|| "follow=true".to_owned());
        let query: Vec<String> = after.into_iter().chain(follow).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("/v1/services/{name}/log{mark}{}", query.join("&"));
        Ok(ServiceLog { log: self.open(&target).await?, held: Vec::new() })
    }

    /// An ordered stop of the node; answered when it is noted.
    pub async fn power(&self, action: PowerAction) -> Result<Power, ClientError> {
        let power = serde_json::to_vec(&Power { action });
        let power = power.map_err(|e| ClientError::Protocol(e.to_string()))?;
        body(&self.signed("POST", "/v1/node/power", &power).await?)
    }

    /// What kernels that died left.
    pub async fn crashes(&self) -> Result<CrashList, ClientError> {
        body(&self.signed("GET", "/v1/node/crashes", &[]).await?)
    }

    /// What the node counts: OpenMetrics text.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.signed("GET", "/v1/metrics", &[]).await?;
        String::from_utf8(response.into_body().into())
            .map_err(|e| ClientError::Protocol(e.to_string()))
    }
}

/// A service's log as it comes.
#[derive(Debug)]
pub struct ServiceLog {
    log: Log,
    /// What came of records that are not whole yet.
    held: Vec<u8>,
}

impl ServiceLog {
    /// The next record; none at the end.
    pub async fn next(&mut self) -> Option<Result<LogRecord, ClientError>> {
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                let record = serde_json::from_slice(&line);
                return Some(record.map_err(|e| ClientError::Protocol(format!("its log: {e}"))));
            }
            if self.held.len() > MAX_RECORD {
                return Some(Err(ClientError::Protocol("a record of its log has no end".into())));
            }
            match self.log.next().await? {
                Ok(bytes) => self.held.extend_from_slice(&bytes),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

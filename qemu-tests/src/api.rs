//! The node's API, blocking, with every wait bounded: what a test asks of a node from outside.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ed25519_dalek::SigningKey;
use zos_api::client::{Address, Client, ClientError};
use zos_api::node::{Applied, Deleted, NodeCapacity};
use zos_types::machine::{Fault, Node};
use zos_types::status::{DeploymentStatus, WorkloadStatus};
use zos_types::{Name, WorkloadName};

/// An answer as it came: status, and the body (an object, or null).
pub type Answer = (u16, serde_json::Value);

/// How often a waiter asks.
const ASK: Duration = Duration::from_millis(500);

/// A client of one node.
#[derive(Debug)]
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Api {
    /// A client of the node behind a port of this machine.
    pub fn new(port: u16, key: Option<SigningKey>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let client = Client::new(Address { id: None, host: "127.0.0.1".into(), port }, key);
        Ok(Self { runtime, client })
    }

    /// `GET /v1/node`.
    pub fn node(&self) -> Result<Node> {
        Ok(self.run(self.client.node())?)
    }

    /// `GET /v1/capacity`.
    pub fn capacity(&self) -> Result<NodeCapacity> {
        Ok(self.run(self.client.capacity())?)
    }

    /// Waits until the node answers, and what it says of itself is as wanted.
    pub fn wait_node(
        &self,
        what: &str,
        patience: Duration,
        mut alive: impl FnMut() -> Result<()>,
        wanted: impl Fn(&Node) -> bool,
    ) -> Result<Node> {
        let end = Instant::now() + patience;
        loop {
            let last = self.node();
            if let Ok(node) = &last
                && wanted(node)
            {
                return last;
            }
            alive().with_context(|| format!("waiting for {what}"))?;
            if Instant::now() > end {
                let seen =
                    last.map_or_else(|error| format!("{error:#}"), |node| format!("{node:#?}"));
                bail!("no {what} in {} s; GET /v1/node says last:\n{seen}", patience.as_secs());
            }
            std::thread::sleep(ASK);
        }
    }

    /// Puts a deployment written in TOML, as `zos apply` does.
    pub fn put(&self, name: &str, toml: &str) -> Result<Applied> {
        Ok(self.run(self.client.put(&name.parse()?, &json(toml)?, false))?)
    }

    /// Deletes a deployment.
    pub fn delete(&self, name: &str) -> Result<Deleted> {
        Ok(self.run(self.client.delete(&name.parse()?))?)
    }

    /// Every deployment of the twin.
    pub fn list(&self) -> Result<Vec<DeploymentStatus>> {
        Ok(self.run(self.client.list())?.deployments)
    }

    /// A deployment.
    pub fn get(&self, name: &str) -> Result<DeploymentStatus> {
        Ok(self.run(self.client.get(&name.parse::<Name>()?))?)
    }

    /// Waits until a workload is as wanted.
    pub fn wait_workload(
        &self,
        (deployment, workload): (&str, &str),
        patience: Duration,
        wanted: impl Fn(&WorkloadStatus) -> bool,
    ) -> Result<WorkloadStatus> {
        let end = Instant::now() + patience;
        loop {
            let last = self.get(deployment);
            if let Ok(status) = &last
                && let Some(found) = status.workloads.get(&workload.parse::<Name>()?)
                && wanted(found)
            {
                return Ok(found.clone());
            }
            if Instant::now() > end {
                let seen = last.map_or_else(
                    |error| format!("{error:#}"),
                    |status| format!("{:#?}", status.workloads),
                );
                bail!(
                    "{deployment}/{workload} is not as wanted after {} s; last:\n{seen}",
                    patience.as_secs()
                );
            }
            std::thread::sleep(ASK);
        }
    }

    /// A VM's console, as far as the node holds it.
    pub fn log(&self, deployment: &str, workload: &str) -> Result<String> {
        let name = WorkloadName { deployment: deployment.parse()?, workload: workload.parse()? };
        self.run(async {
            let mut log = self.client.log(&name, false).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = log.next().await {
                bytes.extend_from_slice(&piece?);
            }
            Ok::<_, ClientError>(String::from_utf8_lossy(&bytes).into_owned())
        })
        .map_err(Into::into)
    }

    /// Waits until a VM's console holds a text, and gives the whole of it.
    pub fn wait_log(
        &self,
        (deployment, workload): (&str, &str),
        text: &str,
        patience: Duration,
    ) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            let last = self.log(deployment, workload);
            match last {
                Ok(log) if log.contains(text) => return Ok(log),
                last if Instant::now() > end => {
                    let seen = last.unwrap_or_else(|error| format!("{error:#}"));
                    bail!(
                        "no `{text}` in the log of {deployment}/{workload} in {} s:\n{seen}",
                        patience.as_secs()
                    );
                }
                _ => std::thread::sleep(ASK),
            }
        }
    }

    /// Sends a request as it is.
    pub fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let answer = self.run(self.client.exchange(method, target, headers, body))?;
        let body = serde_json::from_slice(answer.body()).unwrap_or_default();
        Ok((answer.status().as_u16(), body))
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// The JSON body of a deployment written in TOML.
pub fn json(toml: &str) -> Result<Vec<u8>> {
    let value: serde_json::Value = toml::from_str(toml).context("read the deployment")?;
    Ok(serde_json::to_vec(&value)?)
}

/// The fault with this id, or whose id begins so (`storage.foreign-disk:`).
#[must_use]
pub fn fault<'a>(node: &'a Node, id: &str) -> Option<&'a Fault> {
    node.faults.iter().find(|fault| fault.id.starts_with(id))
}

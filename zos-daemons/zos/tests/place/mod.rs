//! The program, a node in memory, and a folder with a twin's key beside it.

use std::path::{Path, PathBuf};

use apid::fake::FakeNode;
use serde_json::Value;
use tokio::process::Command;

/// A node, and a folder with a twin's key beside it.
pub(crate) struct Place {
    pub(crate) node: FakeNode,
    pub(crate) address: String,
    pub(crate) folder: tempfile::TempDir,
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Place {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program against the node, with its id; not run yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let node = format!("{}@{}", self.node.id(), self.address);
        command(Some(&node), &self.path("key"), self.folder.path(), arguments)
    }

    /// Runs it to its end.
    pub(crate) async fn zos(&self, arguments: &[&str]) -> Ended {
        end(self.command(arguments)).await
    }
}

/// Runs the program to its end.
pub(crate) async fn run(
    node: Option<&str>,
    key: &Path,
    folder: &Path,
    arguments: &[&str],
) -> Ended {
    end(command(node, key, folder, arguments)).await
}

async fn end(mut command: Command) -> Ended {
    let output = command.output().await.unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(node: Option<&str>, key: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zos"));
    command.args(arguments).current_dir(folder).env("ZOS_KEY", key).env_remove("ZOS_NODE");
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    if let Some(node) = node {
        command.env("ZOS_NODE", node);
    }
    command
}

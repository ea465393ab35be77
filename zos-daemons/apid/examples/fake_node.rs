//! A node in memory on the loopback, to try a client against without a machine:
//!
//! ```sh
//! cargo run -p apid --features fake --example fake_node
//! ```
#![forbid(unsafe_code)]

use apid::fake::FakeNode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let node = FakeNode::new(7);
    let address = node.serve().await?;
    println!("export ZOS_NODE={}@{address}", node.id());
    std::future::pending().await
}

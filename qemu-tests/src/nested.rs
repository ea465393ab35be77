//! VMs that a test starts in a node by itself, as a developer does: no daemon knows of them.
//!
//! ```text
//!  node ── netns `lab` ── br0 10.77.0.1/24 ─┬─ tap0 ─ guest 10.77.0.2      (no firewall, no DHCP)
//!                                           └─ tap1 ─ guest 10.77.0.3
//!  zos-vmm, QEMU, iperf3 -s: started in there by the probe
//! ```

use anyhow::{Context as _, Result, ensure};

use crate::peers::Peers;
use crate::probe::Probe;

/// The network's name.
const LAB: &str = "lab";
/// The node's address in it.
pub const NODE: &str = "10.77.0.1";
/// Where our VMM lies in a node.
pub const ZOS_VMM: &str = "/bin/zos-vmm";

/// A network of its own inside a node.
#[derive(Clone, Debug)]
pub struct Lab {
    ip: Vec<String>,
}

impl Lab {
    /// Makes it, with so many taps. The node needs [`Peers`] with `ip`.
    pub fn make(probe: &mut Probe, peers: &Peers, taps: usize) -> Result<Self> {
        let lab = Self { ip: peers.command("ip") };
        run(probe, lab.ip("netns add lab"))?;
        run(probe, lab.inside(lab.ip("link set lo up")))?;
        for line in ["link add br0 type bridge", "addr add 10.77.0.1/24 dev br0", "link set br0 up"]
        {
            run(probe, lab.inside(lab.ip(line)))?;
        }
        for number in 0..taps {
            for line in [
                format!("tuntap add dev tap{number} mode tap vnet_hdr"),
                format!("link set tap{number} master br0 up"),
            ] {
                run(probe, lab.inside(lab.ip(&line)))?;
            }
        }
        Ok(lab)
    }

    /// The words of a command that runs in it.
    #[must_use]
    pub fn inside(&self, command: Vec<String>) -> Vec<String> {
        self.ip(&format!("netns exec {LAB}")).into_iter().chain(command).collect()
    }

    fn ip(&self, line: &str) -> Vec<String> {
        self.ip.iter().cloned().chain(words(line)).collect()
    }
}

/// Words between spaces.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[allow(clippy::needless_pass_by_value)] // made for the call
fn run(probe: &mut Probe, command: Vec<String>) -> Result<()> {
    let answer = probe.run(&command).with_context(|| command.join(" "))?;
    ensure!(answer["code"] == 0, "{}: {}", command.join(" "), answer["output"]);
    Ok(())
}

//! The image, whole, in QEMU: one file a theme, one test a promise (or a few that one boot can prove).
//!
//! ```text
//!  boot       every way to start a node leads to the same node
//!  disks      the key's disk is kept, foreign disks are left alone, whatever comes when
//!  keys       a volume opens with the TPM that sealed its key, or with its twin's key, and with no other
//!  vm         a twin's VM runs, is walled in, and outlives the daemons around it
//!  agent      a VM's PID 1 answers its host, through the jail
//!  hostile    a guest that is up to no good is stood, and not felt
//!  debian     a stock Debian as a guest: what it does anywhere, it does here
//!  api        who may ask for what
//!  varlink    the local sockets, by systemd's client
//!  log        floods cost their rings
//!  bad_input  what is missing or broken is shown, and the node goes on as far as it can
//!  jail       what a VMM may not that a guest has taken over
//!  quarantine what a VM takes is counted; one that ends again and again is left alone
//!  shares     VMs have a folder together, which outlives them and stands nowhere in the tree
//!  sandbox    what a service may not, in its fence
//!  supervision  bad services, bad unit files and bad callers disturb nobody else
//!  evidence   a machine that dies comes back, and knows why it died
//!  disk_faults  disks that vanish, fail, are full, or claim what is another's
//!  state      the node's key and deployments on two disks: either one is enough
//!  volumes    each kind of volume on the node's kernel: rot, lost disks, growth, snapshots, moves
//!  kills      QEMU killed at any moment, and a full boot after each
//!  care       disks tell how they are, pools are scrubbed, motors rest
//!  powercut   the power cut at any moment: nothing acknowledged is lost, nothing is unreadable
//!  chaos      daemons killed at any moment: nothing acknowledged is lost, no VM is touched
//! ```
//!
//! `make image` comes first. What a test leaves behind lies in `target/qemu-tests/<test>/`.
#![forbid(unsafe_code)]

mod adopt;
mod agent;
mod api;
mod bad_input;
mod boot;
mod care;
mod chaos;
mod debian;
mod disk_faults;
mod disks;
mod evidence;
mod hostile;
mod jail;
mod keys;
mod kills;
mod log;
mod powercut;
mod quarantine;
mod sandbox;
mod shares;
mod state;
mod supervision;
mod varlink;
mod vm;
mod volumes;

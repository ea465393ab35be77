//! Command lines, those of Cloud Hypervisor's documents among them, and what they mean.

use super::*;
use clap::CommandFactory;
use zos_vmm_spec::{Bucket, Bytes, Mac, Rate};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// The arguments behind `--kernel k`, in shell's words.
fn spec(arguments: &str) -> Result<Spec, String> {
    let all = format!("zos-vmm --kernel k {arguments}");
    let cli = Cli::try_parse_from(all.split_whitespace()).map_err(|error| error.to_string())?;
    let spec = cli.spec(&mut Passed::default()).map_err(|error| format!("{error:#}"))?;
    spec.ok_or_else(|| "no spec".to_owned())
}

/// What a command line without a word on anything means.
fn plain() -> Spec {
    spec("").unwrap()
}

fn path(path: &str) -> Option<Source> {
    Some(Source::Path(path.into()))
}

#[test]
fn command_lines_mean_what_they_say() {
    type Check = fn(&Spec) -> bool;
    let rows: &[(&str, Check)] = &[
        ("", |s| (s.cpus, s.memory, s.rng) == (1, Bytes(256 << 20), true)),
        ("", |s| s.serial.is_none() && s.console.is_none() && s.cmdline == CMDLINE),
        ("--cpus 2", |s| s.cpus == 2),
        ("--cpus boot=4", |s| s.cpus == 4),
        ("--cpus boot=8,max=8,kvm_hyperv=off", |s| s.cpus == 8),
        ("--memory 128MiB", |s| s.memory == Bytes(128 << 20)),
        ("--memory size=1024M", |s| s.memory == Bytes(1 << 30)),
        ("--memory size=4G,shared=on", |s| s.memory == Bytes(4 << 30)),
        ("--memory size=1G,mergeable=off,hugepages=off", |s| s.memory == Bytes(1 << 30)),
        ("--initramfs i", |s| s.initramfs == path("i")),
        ("--disk path=focal.raw", |s| s.disks[0].source == Source::Path("focal.raw".into())),
        ("--disk path=a path=/tmp/cloudinit", |s| s.disks.len() == 2 && !s.disks[1].readonly),
        ("--disk path=a,readonly=on,serial=007 --disk path=b,id=data", |s| {
            let (a, b) = (&s.disks[0], &s.disks[1]);
            a.readonly
                && a.serial.as_deref() == Some("007")
                && (&*a.id, &*b.id) == ("disk0", "data")
        }),
        ("--disk path=a,num_queues=4,queue_size=128,iommu=off", |s| s.disks[0].queues == 4),
        ("--disk path=a,image_type=Raw,direct=off", |s| s.disks.len() == 1),
        // 100 MiB and 1000 requests each 100 ms.
        ("--disk path=a,bw_size=100M,bw_refill_time=100,ops_size=1000,ops_refill_time=100", |s| {
            let bucket = |per_second, burst| Some(Bucket { per_second, burst });
            let (bytes, operations) = (bucket(1000 << 20, 100 << 20), bucket(10_000, 1000));
            s.disks[0].rate == Some(Rate { bytes, operations })
        }),
        ("--net tap=ich0,mac=a4:a1:c2:00:00:01,ip=192.168.249.1,mask=255.255.255.0", |s| {
            s.nets[0].mac == Some(Mac([0xa4, 0xa1, 0xc2, 0, 0, 1]))
        }),
        ("--net tap=t0,mac=,num_queues=4,queue_size=256", |s| {
            s.nets[0].queues == 2 && s.nets[0].mac.is_none()
        }),
        ("--net tap=t0,mac=52:54:00:00:00:01,addresses=[10.0.0.2,fd00::2],num_queues=2", |s| {
            let addresses = ["10.0.0.2", "fd00::2"].map(|address| address.parse().unwrap());
            s.nets[0].addresses.as_deref() == Some(&addresses) && s.nets[0].queues == 1
        }),
        ("--net tap=t0,mac=52:54:00:00:00:01,addresses=10.0.0.2", |s| {
            s.nets[0].addresses.as_ref().is_some_and(|addresses| addresses.len() == 1)
        }),
        ("--net tap=t0,bw_size=10,bw_refill_time=1000", |s| {
            s.nets[0].receive_rate == s.nets[0].transmit_rate && s.nets[0].transmit_rate.is_some()
        }),
        ("--rng src=/dev/urandom", |s| s.rng),
        ("--rng off", |s| !s.rng),
        ("--no-rng", |s| !s.rng),
        ("--balloon size=64M,deflate_on_oom=on", |s| {
            s.balloon.is_some_and(|b| b.size == Bytes(64 << 20) && b.deflate_on_oom)
        }),
        ("--balloon size=0,free_page_reporting=on", |s| {
            s.balloon.is_some_and(|b| b.free_page_reporting && !b.deflate_on_oom)
        }),
        ("--vsock cid=3,socket=/tmp/ch.vsock", |s| {
            s.vsock
                .as_ref()
                .is_some_and(|v| v.cid == 3 && Some(&v.socket) == path("/tmp/ch.vsock").as_ref())
        }),
        (
            "--memory size=1G,shared=on --fs tag=myfs,socket=/tmp/virtiofs,num_queues=1,queue_size=512",
            |s| s.shares[0].tag == "myfs" && s.shares[0].queues == 1,
        ),
        ("--serial tty --console off", |s| {
            s.serial.as_ref().is_some_and(|c| c.terminal) && s.console.is_none()
        }),
        ("--serial null --console tty", |s| {
            let console = s.console.as_ref();
            s.serial == Some(zos_vmm_spec::Console::default())
                && console.is_some_and(|c| c.terminal)
        }),
        ("--console off --serial file=/tmp/log", |s| {
            s.serial.as_ref().unwrap().file == path("/tmp/log")
        }),
        ("--serial socket=/tmp/s", |s| s.serial.as_ref().unwrap().socket == path("/tmp/s")),
        ("--serial ring=/tmp/r", |s| s.serial.as_ref().unwrap().ring == path("/tmp/r")),
        ("--console ring=/tmp/r", |s| s.console.as_ref().unwrap().ring == path("/tmp/r")),
    ];
    for (arguments, check) in rows {
        let spec = spec(arguments).unwrap_or_else(|why| panic!("{arguments}: {why}"));
        assert!(check(&spec), "{arguments}: {spec:?}");
    }
}

#[test]
fn each_refusal_names_what_and_says_why() {
    for (arguments, words) in [
        ("--cpus boot=2,max=4", "cpus.max_vcpus"),
        ("--cpus many", "`many` is no KEY=VALUE"),
        ("--cpus boot=many", "invalid type"),
        ("--cpus boot=0", "cpus: must be 1 to 128"),
        ("--cpus boot=2,boot=3", "stands there twice"),
        ("--cpus boot=2,affinity=[0@[1,2],1@[3]]", "cpus.affinity"),
        ("--memory lots", "`lots` is no size"),
        ("--memory size=1G,hugepages=on", "memory.hugepages"),
        ("--memory size=1G,hotplug_size=1G", "memory.hotplug_size"),
        ("--disk readonly=on", "disks[0].path"),
        ("--disk path=a,format=qcow2", "disks[0].format: there is no such field"),
        ("--disk path=a,image_type=Qcow2", "disks[0].image_type: only raw"),
        ("--disk path=a path=b,direct=on", "disks[1].direct"),
        ("--disk path=a,vhost_user=on,socket=/s", "disks[0].vhost_user"),
        ("--disk path=a,queue_size=100", "power of two"),
        ("--disk path=a,bw_size=1,bw_refill_time=1,bw_one_time_burst=5", "one_time_burst"),
        ("--disk path=a,bw_size=1", "refill_time"),
        ("--net mac=52:54:00:00:00:01", "net[0].tap"),
        ("--net tap=a,mac=zz", "net[0].mac"),
        ("--net tap=a,ip=10.0.0.1", "net[0].ip"),
        ("--net tap=a,num_queues=3", "net[0].num_queues"),
        ("--net tap=a,addresses=[10.0.0.2]", "addresses: need a `mac`"),
        ("--net tap=a,mac=52:54:00:00:00:01,addresses=[ten]", "IP address"),
        ("--net fd=3,mac=52:54:00:00:00:01", "net[0].fd"),
        ("--balloon size=1M,statistics=on", "balloon.statistics: there is no such field"),
        ("--balloon size=1G", "balloon.size: must be below"),
        ("--vsock cid=2,socket=/s", "vsock.cid"),
        ("--fs tag=a", "fs[0].socket"),
        ("--serial pty", "serial.mode: Pty"),
        ("--serial loud", "write off, null, tty"),
        ("--serial file", "needs a path"),
        ("--serial tty=1", "takes no path"),
        ("--serial tty --console tty", "one terminal"),
        ("--rng src=/dev/hwrng", "rng.src"),
        ("--spec a", "cannot be used with"),
    ] {
        let error = spec(arguments).expect_err(arguments);
        assert!(error.contains(words), "{arguments}: {error}");
    }
    assert!(Cli::try_parse_from(["zos-vmm", "--cpus", "2"]).is_err());
}

#[test]
fn a_socket_is_private_and_removed_at_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api");
    for prefix in ["", "path="] {
        let door = open_door(&format!("{prefix}{}", path.display())).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(door);
        assert!(!path.exists());
    }
    for wrong in ["fd=x", "fd=1", "fd=99999"] {
        assert!(open_door(wrong).is_err(), "{wrong}");
    }
    assert_eq!(plain().kernel, Source::Path("k".into()));
}

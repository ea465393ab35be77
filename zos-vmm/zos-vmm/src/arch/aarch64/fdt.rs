//! The device tree: what the guest can't find out by itself (Devicetree Specification 0.4; Linux,
//! Documentation/devicetree/bindings).
//!
//! ```text
//!  /  chosen, memory, cpus, psci (hvc), timer
//!     intc ── its ◀── msi-map ── pcie      a function's requester id = its ITS device id
//!     clock ◀── serial, clock, button ◀── keys
//! ```

use super::layout::{self, line};
use super::pl061;
use vm_fdt::{Error, FdtWriter};

/// What differs from VM to VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'a> {
    pub(super) cpus: u16,
    pub(super) ram_bytes: u64,
    pub(super) cmdline: &'a str,
    /// Address and length.
    pub(super) initramfs: Option<(u64, u64)>,
    /// For the guest's random numbers and the place of its kernel, from before it has a driver.
    pub(super) seed: &'a [u8; 64],
}

/// Bytes of the seed that place the kernel.
const PLACEMENT: usize = 8;

const GIC: u32 = 1;
const ITS: u32 = 2;
const CLOCK: u32 = 3;
const LINES: u32 = 4;
/// The first vCPU's; the others follow.
const CPU: u32 = 0x100;

const SHARED: u32 = 0;
const PRIVATE: u32 = 1;
const EDGE: u32 = 1;
const LEVEL: u32 = 4;
const KEY_POWER: u32 = 116;
const CLOCK_HZ: u32 = 24_000_000;
/// PCI ranges: memory of 32 bits, not prefetchable.
const PCI_MEMORY: u32 = 0x0200_0000;

pub(super) fn tree(contents: &Contents<'_>) -> Result<Vec<u8>, Error> {
    let mut tree = Tree(FdtWriter::new()?);
    tree.node("", |root| {
        root.0.property_string("compatible", "linux,dummy-virt")?;
        root.0.property_string("model", "ZOS VM")?;
        root.0.property_u32("interrupt-parent", GIC)?;
        root.cells(2, 2)?;
        chosen(root, contents)?;
        root.node(&format!("memory@{:x}", layout::RAM), |node| {
            node.0.property_string("device_type", "memory")?;
            node.0.property_array_u64("reg", &[layout::RAM, contents.ram_bytes])
        })?;
        processors(root, contents.cpus)?;
        interrupts(root, contents.cpus)?;
        small_devices(root)?;
        pci(root)
    })?;
    tree.0.finish()
}

struct Tree(FdtWriter);

impl Tree {
    fn node(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let node = self.0.begin_node(name)?;
        fill(self)?;
        self.0.end_node(node)
    }

    fn cells(&mut self, address: u32, size: u32) -> Result<(), Error> {
        self.0.property_u32("#address-cells", address)?;
        self.0.property_u32("#size-cells", size)
    }

    fn compatible(&mut self, names: &[&str]) -> Result<(), Error> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.0.property_string_list("compatible", names)
    }

    /// A PrimeCell with a line of its own.
    fn primecell(
        &mut self,
        (kind, address, line): (&str, u64, u32),
        fill: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.node(&format!("{kind}@{address:x}"), |node| {
            node.compatible(&[&format!("arm,{kind}"), "arm,primecell"])?;
            node.0.property_array_u64("reg", &[address, layout::SMALL_BYTES])?;
            node.0.property_array_u32("interrupts", &[SHARED, line, EDGE])?;
            fill(node)
        })
    }
}

fn chosen(root: &mut Tree, contents: &Contents<'_>) -> Result<(), Error> {
    root.node("chosen", |node| {
        node.0.property_string("bootargs", contents.cmdline)?;
        node.0.property_string("stdout-path", &format!("/pl011@{:x}", layout::SERIAL))?;
        if let Some((start, bytes)) = contents.initramfs {
            node.0.property_u64("linux,initrd-start", start)?;
            node.0.property_u64("linux,initrd-end", start + bytes)?;
        }
        let (placement, random) = contents.seed.split_at(PLACEMENT);
        node.0.property("kaslr-seed", placement)?;
        node.0.property("rng-seed", random)
    })
}

/// One socket, a core for each vCPU, one thread for each core; without the map Linux would take
/// MPIDR's groups of 16 for sockets.
fn processors(root: &mut Tree, cpus: u16) -> Result<(), Error> {
    root.node("cpus", |node| {
        node.cells(1, 0)?;
        for index in 0..cpus {
            let affinity = layout::affinity(index);
            node.node(&format!("cpu@{affinity:x}"), |cpu| {
                cpu.0.property_string("device_type", "cpu")?;
                cpu.0.property_string("compatible", "arm,armv8")?;
                cpu.0.property_string("enable-method", "psci")?;
                cpu.0.property_u32("reg", u32::try_from(affinity).unwrap_or(0))?;
                cpu.0.property_phandle(CPU + u32::from(index))
            })?;
        }
        node.node("cpu-map", |map| {
            map.node("socket0", |socket| {
                socket.node("cluster0", |cluster| {
                    (0..cpus).try_for_each(|index| {
                        cluster.node(&format!("core{index}"), |core| {
                            core.0.property_u32("cpu", CPU + u32::from(index))
                        })
                    })
                })
            })
        })
    })?;
    root.node("psci", |node| {
        node.compatible(&["arm,psci-1.0", "arm,psci-0.2"])?;
        node.0.property_string("method", "hvc")
    })?;
    root.node("timer", |node| {
        node.compatible(&["arm,armv8-timer"])?;
        node.0.property_null("always-on")?;
        let lines: Vec<u32> = line::TIMER.iter().flat_map(|ppi| [PRIVATE, *ppi, LEVEL]).collect();
        node.0.property_array_u32("interrupts", &lines)
    })
}

fn interrupts(root: &mut Tree, cpus: u16) -> Result<(), Error> {
    root.node(&format!("intc@{:x}", layout::GIC_DISTRIBUTOR), |gic| {
        gic.compatible(&["arm,gic-v3"])?;
        gic.0.property_null("interrupt-controller")?;
        gic.0.property_u32("#interrupt-cells", 3)?;
        gic.cells(2, 2)?;
        gic.0.property_null("ranges")?;
        let redistributors = u64::from(cpus) * layout::GIC_REDISTRIBUTOR_BYTES;
        gic.0.property_array_u64(
            "reg",
            &[
                layout::GIC_DISTRIBUTOR,
                layout::GIC_DISTRIBUTOR_BYTES,
                layout::GIC_REDISTRIBUTORS,
                redistributors,
            ],
        )?;
        gic.0.property_array_u32("interrupts", &[PRIVATE, line::MAINTENANCE, LEVEL])?;
        gic.0.property_phandle(GIC)?;
        gic.node(&format!("its@{:x}", layout::GIC_ITS), |its| {
            its.compatible(&["arm,gic-v3-its"])?;
            its.0.property_null("msi-controller")?;
            its.0.property_u32("#msi-cells", 1)?;
            its.0.property_array_u64("reg", &[layout::GIC_ITS, layout::GIC_ITS_BYTES])?;
            its.0.property_phandle(ITS)
        })
    })
}

fn small_devices(root: &mut Tree) -> Result<(), Error> {
    root.node("clock", |clock| {
        clock.compatible(&["fixed-clock"])?;
        clock.0.property_u32("#clock-cells", 0)?;
        clock.0.property_u32("clock-frequency", CLOCK_HZ)?;
        clock.0.property_phandle(CLOCK)
    })?;
    root.primecell(("pl011", layout::SERIAL, line::SERIAL), |serial| {
        serial.0.property_array_u32("clocks", &[CLOCK, CLOCK])?;
        serial.0.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])
    })?;
    let pclk = |node: &mut Tree| {
        node.0.property_u32("clocks", CLOCK)?;
        node.0.property_string("clock-names", "apb_pclk")
    };
    root.primecell(("pl031", layout::CLOCK, line::CLOCK), pclk)?;
    root.primecell(("pl061", layout::BUTTON, line::BUTTON), |lines| {
        pclk(lines)?;
        lines.0.property_null("gpio-controller")?;
        lines.0.property_u32("#gpio-cells", 2)?;
        lines.0.property_null("interrupt-controller")?;
        lines.0.property_u32("#interrupt-cells", 2)?;
        lines.0.property_phandle(LINES)
    })?;
    root.node("keys", |keys| {
        keys.compatible(&["gpio-keys"])?;
        keys.node("power", |power| {
            power.0.property_string("label", "power button")?;
            power.0.property_u32("linux,code", KEY_POWER)?;
            power.0.property_array_u32("gpios", &[LINES, pl061::BUTTON, 0])
        })
    })
}

fn pci(root: &mut Tree) -> Result<(), Error> {
    root.node(&format!("pcie@{:x}", layout::ECAM), |pci| {
        pci.compatible(&["pci-host-ecam-generic"])?;
        pci.0.property_string("device_type", "pci")?;
        pci.0.property_array_u64("reg", &[layout::ECAM, layout::ECAM_BYTES])?;
        pci.0.property_array_u32("bus-range", &[0, 0])?;
        pci.0.property_u32("linux,pci-domain", 0)?;
        pci.cells(3, 2)?;
        let (bars, bytes) = (layout::PCI_BARS, layout::PCI_BARS_BYTES);
        // As the bus sees it (3 cells), as the processor sees it (2), length (2).
        pci.0.property_array_u32("ranges", &[PCI_MEMORY, 0, bars, 0, bars, 0, bytes])?;
        pci.0.property_null("dma-coherent")?;
        pci.0.property_array_u32("msi-map", &[0, ITS, 0, 0x1_0000])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every property by its path, read as the specification's chapter 5 has it.
    fn properties(blob: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        let text = |at: usize| {
            let end = at + blob[at..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(blob[at..end].to_vec()).unwrap()
        };
        assert_eq!((word(0), word(4) as usize), (0xd00d_feed, blob.len()));
        let (mut at, strings) = (word(8) as usize, word(12) as usize);
        let (mut path, mut found) = (Vec::new(), BTreeMap::new());
        loop {
            let token = word(at);
            at += 4;
            match token {
                1 => {
                    path.push(text(at));
                    at = (at + path.last().unwrap().len() + 1).next_multiple_of(4);
                }
                2 => drop(path.pop()),
                3 => {
                    let (length, name) = (word(at) as usize, text(strings + word(at + 4) as usize));
                    let value = blob[at + 8..at + 8 + length].to_vec();
                    found.insert(format!("{}/{name}", path.join("/")), value);
                    at = (at + 8 + length).next_multiple_of(4);
                }
                9 => return found,
                other => panic!("token {other}"),
            }
        }
    }

    fn cells(value: &[u8]) -> Vec<u32> {
        value.chunks_exact(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap())).collect()
    }

    fn sample(cpus: u16) -> BTreeMap<String, Vec<u8>> {
        let blob = tree(&Contents {
            cpus,
            ram_bytes: 256 << 20,
            cmdline: "console=ttyAMA0",
            initramfs: Some((0x4f00_0000, 0x1234)),
            seed: &[7; 64],
        });
        let blob = blob.unwrap();
        assert!((blob.len() as u64) < layout::FDT_BYTES);
        properties(&blob)
    }

    #[test]
    fn what_the_kernel_is_told() {
        let found = sample(2);
        for (path, text) in [
            ("/chosen/bootargs", "console=ttyAMA0\0"),
            ("/chosen/stdout-path", "/pl011@9000000\0"),
            ("/psci/method", "hvc\0"),
            ("/cpus/cpu@1/enable-method", "psci\0"),
            ("/pl011@9000000/compatible", "arm,pl011\0arm,primecell\0"),
        ] {
            assert_eq!(found[path], text.as_bytes(), "{path}");
        }
        for (path, wanted) in [
            ("/memory@40000000/reg", &[0, 0x4000_0000, 0, 0x1000_0000][..]),
            ("/chosen/linux,initrd-start", &[0, 0x4f00_0000]),
            ("/chosen/linux,initrd-end", &[0, 0x4f00_1234]),
            ("/timer/interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]),
            ("/intc@8000000/interrupts", &[1, 9, 4]),
            ("/pl011@9000000/interrupts", &[0, 1, 1]),
            ("/pcie@30000000/msi-map", &[0, ITS, 0, 0x1_0000]),
            (
                "/pcie@30000000/ranges",
                &[0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2000_0000],
            ),
            ("/keys/power/gpios", &[LINES, 3, 0]),
        ] {
            assert_eq!(cells(&found[path]), wanted, "{path}");
        }
        assert!(found.contains_key("/pcie@30000000/dma-coherent"));
    }

    #[test]
    fn every_vcpu_has_a_node_a_core_and_a_redistributor() {
        for cpus in [1, 2, 17, 128] {
            let found = sample(cpus);
            for index in 0..cpus {
                let affinity = layout::affinity(index);
                let phandle = &found[&format!("/cpus/cpu@{affinity:x}/phandle")];
                assert_eq!(
                    &found[&format!("/cpus/cpu-map/socket0/cluster0/core{index}/cpu")],
                    phandle
                );
                assert_eq!(
                    cells(&found[&format!("/cpus/cpu@{affinity:x}/reg")]),
                    [u32::try_from(affinity).unwrap()]
                );
            }
            let nodes = found.keys().filter(|path| path.ends_with("/enable-method")).count();
            assert_eq!(nodes, usize::from(cpus));
            assert_eq!(cells(&found["/intc@8000000/reg"])[7], u32::from(cpus) * 0x2_0000);
        }
    }

    /// Every reference leads to a node that is there.
    #[test]
    fn handles_resolve() {
        let found = sample(3);
        let handles: Vec<u32> = found
            .iter()
            .filter(|(path, _)| path.ends_with("/phandle"))
            .map(|(_, value)| cells(value)[0])
            .collect();
        for (path, at) in [
            ("/interrupt-parent", 0),
            ("/pcie@30000000/msi-map", 1),
            ("/keys/power/gpios", 0),
            ("/pl011@9000000/clocks", 1),
        ] {
            assert!(handles.contains(&cells(&found[path])[at]), "{path}");
        }
    }

    #[test]
    fn a_command_line_that_no_tree_can_hold_is_refused() {
        let contents =
            Contents { cpus: 1, ram_bytes: 1, cmdline: "a\0b", initramfs: None, seed: &[0; 64] };
        assert!(tree(&contents).is_err());
    }
}

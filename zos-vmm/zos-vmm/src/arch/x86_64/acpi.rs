//! ACPI tables: reduced hardware, so that nothing of a PC of 1990 has to be there.
//!
//! ```text
//!  RSDP ─▶ XSDT ─┬─▶ FADT ─▶ DSDT   COM1, power button (generic event device), PCI host bridge, S5
//!                ├─▶ MADT           local APICs, IOAPIC
//!                └─▶ MCFG           ECAM of bus 0
//! ```
//!
//! Sources: ACPI 6.5, chapters 4.8.3.7 (sleep registers), 5.2 (tables), 5.6.9 (interrupt-signalled
//! events); PCI Firmware 3.3, 4.1 (MCFG).

use super::layout::{self, line};
use super::platform::port;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Method,
    Name, Notify, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

const OEM: [u8; 6] = *b"ZOS   ";
const TABLE: [u8; 8] = *b"ZOSVMM  ";
const REVISION: u32 = 1;
/// Sleep type of "soft off" (`_S5`).
pub(super) const SLEEP_TYPE_OFF: u8 = 5;
/// The value for the reset register.
pub(super) const RESET_VALUE: u8 = 1;
/// No VGA, no CMOS clock, no 8042 keyboard (FADT, IA-PC boot architecture).
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;
/// The root pointer takes 36 bytes at the start; tables follow on 16-byte borders.
const FIRST_TABLE: u64 = layout::ACPI + 64;

/// The tables as one piece of memory to be put at `layout::ACPI`, root pointer first.
pub(super) fn tables(cpus: u16) -> Vec<u8> {
    let mut area = Area::default();
    let dsdt = area.put(&dsdt());
    let fadt = area.put(&fadt(dsdt));
    let madt = area.put(&madt(cpus));
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(layout::ECAM, 0, 0, 0);
    let mcfg = area.put(&mcfg);
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    [fadt, madt, mcfg].iter().for_each(|table| xsdt.add_entry(*table));
    let xsdt = area.put(&xsdt);
    let mut bytes = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut bytes);
    bytes.resize(usize::try_from(FIRST_TABLE - layout::ACPI).unwrap_or(64), 0);
    bytes.extend_from_slice(&area.bytes);
    bytes
}

#[derive(Default)]
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table; returns its address.
    fn put(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = FIRST_TABLE + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn register(port: u16) -> GAS {
    GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // No fixed buttons: the power button is a device in the DSDT.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.sleep_control_reg = register(port::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(port::SLEEP_STATUS);
    fadt.reset_reg = register(port::RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.finalize()
}

fn madt(cpus: u16) -> impl Aml {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, REVISION, controller);
    // Ids up to 127 fit the old 8-bit form, which every kernel reads.
    for id in (0..cpus).filter_map(|cpu| u8::try_from(cpu).ok()) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    madt
}

struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn dsdt() -> Raw {
    let mut sdt = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    let mut body = Vec::new();
    serial(&mut body);
    power_button(&mut body);
    host_bridge(&mut body);
    Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_OFF])).to_aml_bytes(&mut body);
    sdt.append_slice(&body);
    Raw(sdt.as_slice().to_vec())
}

fn serial(body: &mut Vec<u8>) {
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_DDN".into(), &"COM1"),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Interrupt::new(true, true, false, false, line::SERIAL),
                    &IO::new(port::SERIAL, port::SERIAL, 0, 8),
                ]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

/// The button, and the event device whose interrupt presses it.
fn power_button(body: &mut Vec<u8>) {
    Device::new(
        "_SB_.PWRB".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
    )
    .to_aml_bytes(body);
    const PRESSED: u8 = 0x80;
    Device::new(
        "_SB_.GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Interrupt::new(
                    true,
                    true,
                    false,
                    false,
                    line::POWER_BUTTON,
                )]),
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &PRESSED)],
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn host_bridge(body: &mut Vec<u8>) {
    let ecam = u32::try_from(layout::ECAM).unwrap_or(0);
    let ecam_bytes = u32::try_from(layout::ECAM_BYTES).unwrap_or(0);
    let last_bar = layout::PCI_BARS + (layout::PCI_BARS_BYTES - 1);
    let uncached = AddressSpaceCacheable::NotCacheable;
    Scope::new(
        "_SB_".into(),
        vec![
            // ECAM must be reserved by a motherboard device, or Linux doesn't trust MCFG.
            &Device::new(
                "MBRD".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![&Memory32Fixed::new(true, ecam, ecam_bytes)]),
                    ),
                ],
            ),
            &Device::new(
                "PCI0".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
                    &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new("_SEG".into(), &ZERO),
                    &Name::new("_BBN".into(), &ZERO),
                    // DMA is coherent.
                    &Name::new("_CCA".into(), &ONE),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![
                            &AddressSpace::new_bus_number(0u16, 0u16),
                            &AddressSpace::new_memory(
                                uncached,
                                true,
                                layout::PCI_BARS,
                                last_bar,
                                None,
                            ),
                        ]),
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// Walks from the root pointer as a guest would.
    #[test]
    fn every_table_is_found_and_sums_to_zero() {
        let area = tables(128);
        assert!(area.len() as u64 <= layout::ACPI_END - layout::ACPI);
        assert_eq!((&area[..8], sum(&area[..20]), sum(&area[..36])), (&b"RSD PTR "[..], 0, 0));
        let table = |address: u64| {
            let at = usize::try_from(address - layout::ACPI).unwrap();
            let length = u32::from_le_bytes(area[at + 4..at + 8].try_into().unwrap()) as usize;
            let table = &area[at..at + length];
            assert_eq!(sum(table), 0);
            table
        };
        let xsdt = table(word(&area, 24));
        let names: Vec<_> =
            (36..xsdt.len()).step_by(8).map(|at| &table(word(xsdt, at))[..4]).collect();
        assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
        let fadt = table(word(xsdt, 36));
        assert_eq!(&table(word(fadt, 140))[..4], b"DSDT");
        // 44 bytes of header, 8 for each processor, 12 for the IOAPIC.
        assert_eq!(table(word(xsdt, 44)).len(), 44 + 128 * 8 + 12);
    }
}

//! What a disk says of its own health, as `smartctl --json=c` tells it (smartmontools 7.4).
//!
//! ```text
//!  exit bit 0, 1   the disk doesn't say (virtio, a USB bridge unknown), or could not be opened
//!  5               it sleeps: our own word for it, `-n standby,5`; no other error has both bits
//!  bit 3, `passed`, NVMe's critical warning ─▶ Failing
//!  worn out, blocks lost or waiting, too hot ─▶ Warning, with reasons
//! ```
//! The disk's firmware chose the numbers and a vendor their meaning: each is looked up by itself, in any
//! form, and what makes no sense is left out.

use serde_json::Value;
use zos_types::disk::{Health, Verdict};

/// The exit status for a disk whose motor stands still.
pub const ASLEEP: u8 = 5;
/// More than any disk says, in bytes.
pub const LONGEST: usize = 1 << 20;

/// Why there is no health.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SmartError {
    /// The disk doesn't answer; the words are smartctl's.
    #[error("the disk does not answer: {0}")]
    Silent(String),
    /// What was said is not what smartctl says.
    #[error("its answer makes no sense: {0}")]
    Garbled(String),
}

/// A disk that says nothing.
pub fn unknown() -> Health {
    Health {
        verdict: Verdict::Unknown,
        reasons: Vec::new(),
        temperature: None,
        hours: None,
        used: None,
        media_errors: None,
        standby: false,
    }
}

/// Reads what smartctl wrote, and how it ended (none: by a signal).
pub fn read(output: &[u8], exit: Option<i32>) -> Result<Health, SmartError> {
    let Some(exit) = exit.and_then(|exit| u8::try_from(exit).ok()) else {
        return Err(SmartError::Garbled("it was ended".to_owned()));
    };
    if exit == ASLEEP {
        return Ok(Health { standby: true, ..unknown() });
    }
    let said: Value = serde_json::from_slice(output.get(..LONGEST).unwrap_or(output))
        .map_err(|error| SmartError::Garbled(error.to_string()))?;
    if said.pointer("/smartctl/version").is_none() {
        return Err(SmartError::Garbled("it is not of smartctl".to_owned()));
    }
    if exit & 1 != 0 {
        // It knows no way to ask this disk.
        return Ok(unknown());
    }
    if exit & 2 != 0 {
        return Err(SmartError::Silent(words(&said)));
    }
    Ok(Asked(&said).health(exit))
}

/// Whether another way of asking may help: a USB bridge that smartctl doesn't know.
pub fn is_unknown_bridge(output: &[u8]) -> bool {
    let said = serde_json::from_slice::<Value>(output.get(..LONGEST).unwrap_or(output));
    said.is_ok_and(|said| words(&said).contains("Unknown USB bridge"))
}

/// The error that smartctl gave, fit to be shown.
fn words(said: &Value) -> String {
    let messages = said.pointer("/smartctl/messages").and_then(Value::as_array);
    let first = messages.and_then(|messages| messages.first()?.get("string")?.as_str());
    let first = first.unwrap_or("no reason given");
    first.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// An answer, to look things up in.
struct Asked<'a>(&'a Value);

impl Asked<'_> {
    fn number(&self, path: &str) -> Option<u64> {
        self.0.pointer(path)?.as_u64()
    }

    fn list(&self, path: &str) -> &[Value] {
        self.0.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The raw value of an ATA attribute. Vendors keep other things in its upper bits.
    fn attribute(&self, id: u64) -> Option<u64> {
        let attributes = self.list("/ata_smart_attributes/table").iter();
        let mut of_id = attributes.filter(|a| a.get("id").and_then(Value::as_u64) == Some(id));
        Some(of_id.next()?.pointer("/raw/value")?.as_u64()? & 0xffff_ffff)
    }

    fn health(&self, exit: u8) -> Health {
        let mut reasons = Reasons::default();
        let passed = self.0.pointer("/smart_status/passed").and_then(Value::as_bool);
        if passed == Some(false) || exit & 8 != 0 {
            reasons.failing("it says that it fails");
        }
        self.nvme(&mut reasons);
        self.ata(&mut reasons);
        let media_errors = self.media_errors();
        if let Some(lost) = media_errors.filter(|lost| *lost > 0) {
            reasons.warning(format!("it could not read {lost} blocks"));
        }
        if let Some(grown) = self.number("/scsi_grown_defect_list").filter(|grown| *grown > 0) {
            reasons.warning(format!("it replaced {grown} bad blocks"));
        }
        let used = self.used();
        if let Some(used) = used.filter(|used| *used >= 100) {
            reasons.warning(format!("{used} % of its life is used up"));
        }
        let temperature = self.temperature();
        let trip = self.number("/temperature/drive_trip").filter(|trip| *trip > 0);
        if let (Some(now), Some(trip)) = (temperature, trip)
            && u64::try_from(now).is_ok_and(|now| now >= trip)
        {
            reasons.warning(format!("it has {now} °C, and bears {trip}"));
        }
        let silent = if passed == Some(true) { Verdict::Good } else { Verdict::Unknown };
        Health {
            verdict: reasons.verdict.unwrap_or(silent),
            reasons: reasons.words,
            temperature,
            hours: self.number("/power_on_time/hours"),
            used,
            media_errors,
            standby: false,
        }
    }

    /// The SMART / health information log (NVMe base specification 2.0, figure 207).
    fn nvme(&self, reasons: &mut Reasons) {
        let log = "/nvme_smart_health_information_log";
        let warning = self.number(&format!("{log}/critical_warning")).unwrap_or(0);
        let rows = [
            (1, true, "its spare blocks run out"),
            (2, false, "it is too hot or too cold"),
            (4, true, "it is no longer reliable"),
            (8, true, "it takes no more writes"),
            (16, false, "its memory would not outlive a power cut"),
            (32, false, "its persistent memory is no longer reliable"),
        ];
        for (_, fails, what) in rows.iter().filter(|(bit, ..)| warning & bit != 0) {
            if *fails { reasons.failing(what) } else { reasons.warning(*what) }
        }
    }

    fn ata(&self, reasons: &mut Reasons) {
        for attribute in self.list("/ata_smart_attributes/table") {
            let is = |path: &str, word: &str| {
                attribute.pointer(path).and_then(Value::as_str) == Some(word)
            };
            let warns = attribute.pointer("/flags/prefailure").and_then(Value::as_bool);
            if warns == Some(true) && is("/when_failed", "now") {
                let id = attribute.get("id").and_then(Value::as_u64).unwrap_or(0);
                reasons.failing(&format!("its attribute {id} is below what its maker allows"));
            }
        }
        for (id, what) in [(5, "blocks were replaced"), (197, "blocks can't be read for now")] {
            if let Some(count) = self.attribute(id).filter(|count| *count > 0) {
                reasons.warning(format!("{count} {what}"));
            }
        }
    }

    fn media_errors(&self) -> Option<u64> {
        let nvme = self.number("/nvme_smart_health_information_log/media_errors");
        let ata = self.attribute(187).max(self.attribute(198));
        let scsi = ["read", "write", "verify"].map(|what| {
            self.number(&format!("/scsi_error_counter_log/{what}/total_uncorrected_errors"))
        });
        let scsi = scsi.into_iter().flatten().reduce(u64::saturating_add);
        nvme.or(ata).or(scsi)
    }

    fn used(&self) -> Option<u16> {
        let nvme = self.number("/nvme_smart_health_information_log/percentage_used");
        let scsi = self.number("/scsi_percentage_used_endurance_indicator");
        let pages = self.list("/ata_device_statistics/pages").iter();
        let rows = pages.filter_map(|page| page.get("table")?.as_array()).flatten();
        let name = "Percentage Used Endurance Indicator";
        let mut of_life = rows.filter(|row| row.get("name").and_then(Value::as_str) == Some(name));
        let ata = of_life.next().and_then(|row| row.get("value")?.as_u64());
        nvme.or(ata).or(scsi).map(|used| u16::try_from(used).unwrap_or(u16::MAX))
    }

    /// 0 and what no disk lives in are no temperatures: those that measure none say so.
    fn temperature(&self) -> Option<i16> {
        let now = self.0.pointer("/temperature/current")?.as_i64()?;
        i16::try_from(now).ok().filter(|now| (-60..=200).contains(now) && *now != 0)
    }
}

#[derive(Default)]
struct Reasons {
    verdict: Option<Verdict>,
    words: Vec<String>,
}

impl Reasons {
    fn failing(&mut self, what: &str) {
        self.verdict = Some(Verdict::Failing);
        self.words.push(what.to_owned());
    }

    fn warning(&mut self, what: impl Into<String>) {
        self.verdict = self.verdict.max(Some(Verdict::Warning));
        self.words.push(what.into());
    }
}

#[cfg(test)]
mod tests;

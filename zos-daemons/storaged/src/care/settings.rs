//! What the farmer says about care.

use std::time::Duration;

use zos_daemon::{Config, Reader};

/// A motor stops after this long without a request, if nothing is said.
const STANDBY: Duration = Duration::from_secs(20 * 60);

/// Settings of care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `zos.disk.standby`: after this long without a request a motor is stopped; none: never.
    pub standby: Option<Duration>,
}

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let form = "write `never`, or minutes of 1 or more, such as `20`";
        let said = reader.with("disk.standby", form, |text| match text {
            "never" => Some(None),
            minutes => {
                let minutes: u32 = minutes.trim_end_matches("min").trim().parse().ok()?;
                (minutes > 0).then(|| Some(Duration::from_secs(u64::from(minutes) * 60)))
            }
        });
        Self { standby: said.unwrap_or(Some(STANDBY)) }
    }
}

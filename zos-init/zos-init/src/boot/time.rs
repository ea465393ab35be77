//! Is the clock to be believed? A wrong one must not stop anything: it only lowers the quality.

use zos_host::kmsg::Level;
use zos_host::{Result, SysRoot, clock};

use super::{Boot, TimeQuality};
use crate::log;

/// No node of ours ran before this: 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;
/// A clock beyond this is broken: 2100-01-01.
const LATEST: i64 = 4_102_444_800;

pub(super) fn sanity(boot: &mut Boot) -> Result<()> {
    let now = clock::wall_seconds();
    let has_clock = !SysRoot::host().list("/sys/class/rtc")?.is_empty();
    boot.time_quality = quality(now, has_clock);
    if !(EARLIEST..LATEST).contains(&now) {
        // Dates of files and lines look less odd, and nothing is fooled: the quality says it.
        let text = format!("the clock says {now} s since 1970, which can't be; it starts in 2026");
        log::line(Level::Warning, &text);
        clock::set_wall_seconds(EARLIEST)?;
    }
    Ok(())
}

fn quality(now: i64, has_clock: bool) -> TimeQuality {
    if has_clock && (EARLIEST..LATEST).contains(&now) {
        TimeQuality::Rtc
    } else {
        TimeQuality::Unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        for (now, has_clock, expect) in [
            (0, true, TimeQuality::Unsure),
            (EARLIEST, true, TimeQuality::Rtc),
            (EARLIEST, false, TimeQuality::Unsure),
            (LATEST, true, TimeQuality::Unsure),
        ] {
            assert_eq!(quality(now, has_clock), expect, "{now} {has_clock}");
        }
    }
}

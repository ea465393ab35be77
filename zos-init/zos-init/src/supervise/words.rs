//! What the core says in words.

use super::Millis;

/// Of a unit that hangs.
pub(super) const HUNG: &str = "its process was killed and doesn't end";

/// `90 s`, `10 min`, `250 ms`: the largest unit that is exact.
pub(super) fn span(millis: Millis) -> String {
    match millis {
        0 => "0 s".to_owned(),
        hours if hours % 3_600_000 == 0 => format!("{} h", hours / 3_600_000),
        minutes if minutes % 60_000 == 0 => format!("{} min", minutes / 60_000),
        seconds if seconds % 1000 == 0 => format!("{} s", seconds / 1000),
        millis => format!("{millis} ms"),
    }
}

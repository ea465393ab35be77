//! Bytes in, lines out.

use zos_host::kmsg::Level;

/// Longest line, bytes; a longer one is cut into several of its level.
pub(super) const LINE: usize = 4096;

/// Where a line goes.
type Take<'a> = &'a mut dyn FnMut(Level, &str);

/// What has come of a line that isn't whole yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// The level of the line whose first pieces are out already.
    cut: Option<Level>,
}

impl Lines {
    /// Takes bytes; hands over the lines that are whole. Empty ones are left out.
    pub(super) fn push(&mut self, bytes: &[u8], take: Take<'_>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            // The usual line isn't copied.
            if whole && self.partial.is_empty() && text.len() <= LINE {
                self.emit(text, take);
                self.cut = None;
                continue;
            }
            while !text.is_empty() {
                if self.partial.len() == LINE {
                    self.emit_piece(take);
                }
                let (now, later) = text.split_at(text.len().min(LINE - self.partial.len()));
                self.partial.extend_from_slice(now);
                text = later;
            }
            if whole {
                self.end(take);
            }
        }
    }

    /// The end of the stream: what was left without a newline.
    pub(super) fn end(&mut self, take: Take<'_>) {
        let line = std::mem::take(&mut self.partial);
        self.emit(&line, take);
        self.cut = None;
    }

    /// Hands over the full buffer, but for a character that isn't whole.
    fn emit_piece(&mut self, take: Take<'_>) {
        let full = std::mem::take(&mut self.partial);
        let is_start = |back: &usize| full[LINE - back] & 0xc0 != 0x80;
        let cut = match (1..=3).find(is_start) {
            Some(back) if full[LINE - back] >= 0xc0 => LINE - back,
            _ => LINE,
        };
        self.emit(&full[..cut], take);
        self.partial.extend_from_slice(&full[cut..]);
    }

    fn emit(&mut self, line: &[u8], take: Take<'_>) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return;
        }
        let (level, text) = match self.cut {
            Some(level) => (level, line),
            None => Level::split(line),
        };
        self.cut = Some(level);
        take(level, text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(lines: &mut Lines, bytes: &[u8]) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        lines.push(bytes, &mut |level, text| out.push((level, text.to_owned())));
        out
    }

    fn end(lines: &mut Lines) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        lines.end(&mut |level, text| out.push((level, text.to_owned())));
        out
    }

    #[test]
    fn lines_and_levels() {
        let mut lines = Lines::default();
        assert_eq!(push(&mut lines, b"<4>warn\nhal"), [(Level::Warning, "warn".to_owned())]);
        let two = [(Level::Info, "half".to_owned()), (Level::Emergency, "x".to_owned())];
        assert_eq!(push(&mut lines, b"f\r\n\n<0>x\n"), two);
        assert_eq!(push(&mut lines, b"tail"), []);
        assert_eq!(end(&mut lines), [(Level::Info, "tail".to_owned())]);
        assert_eq!(end(&mut lines), []);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_keeps_its_level() {
        let mut lines = Lines::default();
        let long = format!("<3>{}\nnext\n", "ü".repeat(LINE));
        let out = push(&mut lines, long.as_bytes());
        assert_eq!(out.len(), 4);
        assert!(out[..3].iter().all(|(level, _)| *level == Level::Error));
        let together: String = out[..3].iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(together, "ü".repeat(LINE));
        assert_eq!(out[3], (Level::Info, "next".to_owned()));
    }

    proptest! {
        #[test]
        fn nothing_grows(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..8)) {
            let mut lines = Lines::default();
            for chunk in chunks {
                for (_, line) in push(&mut lines, &chunk) {
                    // A broken byte becomes three.
                    prop_assert!(line.len() <= 3 * LINE);
                }
                prop_assert!(lines.partial.len() <= LINE);
            }
        }

        #[test]
        fn cuts_do_not_matter(
            parts in proptest::collection::vec("(<[0-9]>)?[aü€𝄞]{0,3000}\r?\n?", 0..5),
            cut in 1_usize..5000,
        ) {
            let text = parts.concat();
            let mut whole = Lines::default();
            let mut expect = push(&mut whole, text.as_bytes());
            expect.extend(end(&mut whole));
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in text.as_bytes().chunks(cut) {
                got.extend(push(&mut lines, chunk));
            }
            got.extend(end(&mut lines));
            prop_assert_eq!(got, expect);
        }
    }
}

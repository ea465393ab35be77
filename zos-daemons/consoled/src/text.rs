//! Lines of styled text, as a terminal wants them or plain.

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// As it is.
    Plain,
    /// What a line is about.
    Label,
    /// What to look at first.
    Strong,
    /// All is well.
    Good,
    /// Somebody should look.
    Bad,
}

impl Style {
    /// Select Graphic Rendition (ECMA-48, 8.3.117), in colours that every console has.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Label => "0;36",
            Self::Strong => "0;1;37",
            Self::Good => "0;32",
            Self::Bad => "0;1;33",
        }
    }
}

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line with one piece of text.
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().with(style, text)
    }

    /// The same line with another piece.
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Its text without styles, cut to a width. What a console could take for a command is left out.
    pub fn plain(&self, width: usize) -> String {
        self.cut(width).map(|(_, text)| text).collect::<String>().trim_end().to_owned()
    }

    /// The same with the codes of its styles.
    pub fn ansi(&self, width: usize) -> String {
        let pieces = self.cut(width).map(|(style, text)| format!("\x1b[{}m{text}", style.code()));
        pieces.collect::<String>() + "\x1b[0m"
    }

    fn cut(&self, width: usize) -> impl Iterator<Item = (Style, String)> + '_ {
        let mut left = width;
        self.0.iter().map(move |(style, text)| {
            let text: String = text.chars().filter(|c| !c.is_control()).take(left).collect();
            left -= text.chars().count();
            (*style, text)
        })
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces where it can.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let Some(line) = lines.last_mut() else { break };
            let length = line.chars().count();
            let space = usize::from(length > 0);
            if length + space + word.len() <= width {
                line.push_str(&" ".repeat(space));
                line.extend(word.drain(..));
            } else if length > 0 {
                lines.push(String::new());
            } else {
                line.extend(word.drain(..width));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_cut_and_nothing_gets_through_to_the_terminal() {
        let line = Line::new(Style::Strong, "a\x1b[2Jb").with(Style::Plain, "cdef  ");
        assert_eq!(line.plain(80), "a[2Jbcdef");
        assert_eq!(line.plain(6), "a[2Jbc");
        assert_eq!(line.ansi(6), "\x1b[0;1;37ma[2Jb\x1b[0mc\x1b[0m");
    }

    #[test]
    fn texts_are_wrapped_at_spaces() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(wrap("", 3), [""]);
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_lose_nothing(text in ".{0,200}", width in 0usize..40) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width.max(1)));
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&lines.join(" ")), letters(&text));
        }
    }
}

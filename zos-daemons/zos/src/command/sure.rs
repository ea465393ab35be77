//! What can't be undone is asked first: on a terminal, or never with `--yes`.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;

use crate::cli::Sure;
use crate::exit::Usage;

impl Sure {
    /// Whether somebody is to be asked before `verb`; an error if nobody is there and nobody said so.
    pub(super) fn is_asked(self, verb: &str) -> Result<bool, Usage> {
        if self.yes {
            return Ok(false);
        }
        if !io::stdin().is_terminal() {
            return Err(Usage(format!("nobody is there to be asked; say --yes to {verb}")));
        }
        Ok(true)
    }

    /// The same where scripts may go on unasked.
    pub(super) fn is_asked_at_a_terminal(self) -> bool {
        !self.yes && io::stdin().is_terminal()
    }
}

/// Asks, and ends here unless the answer is yes.
pub(super) fn ask(question: &str) -> anyhow::Result<()> {
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if is_yes(&answer) { Ok(()) } else { bail!("nothing was done") }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        let check = |answer: &str, yes: bool| assert_eq!(is_yes(answer), yes, "{answer:?}");
        check("y\n", true);
        check(" YES \n", true);
        check("\n", false);
        check("", false); // the terminal was closed
        check("n\n", false);
        check("yo\n", false);
    }
}

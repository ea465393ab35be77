//! Programs of the machine: what must be there, from which Debian package, and how one is run.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Something that must be installed on the machine that builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program in `PATH`, or a header by its absolute path.
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

const fn need(name: &'static str, package: &'static str) -> Need {
    Need { name, package }
}

/// To fetch and unpack packages.
pub const FETCH: &[Need] = &[
    need("apt-get", "apt"),
    need("apt-cache", "apt"),
    need("dpkg-deb", "dpkg"),
    need("dpkg", "dpkg"),
];

/// To build a kernel.
pub const KERNEL: &[Need] = &[
    need("make", "make"),
    need("gcc", "gcc"),
    need("ld", "binutils"),
    need("flex", "flex"),
    need("bison", "bison"),
    need("bc", "bc"),
    need("tar", "tar"),
    need("patch", "patch"),
    need("xz", "xz-utils"),
    need("zstd", "zstd"),
    need("perl", "perl"),
    need("/usr/include/gelf.h", "libelf-dev"),
    need("/usr/include/openssl/opensslv.h", "libssl-dev"),
];

/// Names all that is missing at once.
///
/// # Errors
/// [`Error::Missing`] with the Debian packages.
pub fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|n| !present(n.name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Missing(missing)) }
}

/// Whether a program is in `PATH`, or a path exists.
#[must_use]
pub fn present(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Runs to the end and gives what was printed.
///
/// # Errors
/// [`Error::Program`] with the last lines of its error output.
pub fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let ran = command.stdin(Stdio::null()).output().map_err(|e| Error::Program {
        program: name.clone(),
        status: e.to_string(),
        output: String::new(),
    })?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&ran.stderr);
    Err(Error::Program { program: name, status: ran.status.to_string(), output: tail(&text, 12) })
}

/// The first line that a program prints about its version; part of what names a build.
///
/// # Errors
/// As [`output`].
pub fn version(program: &str) -> Result<String> {
    let text = output(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Starts with piped output, hands over each line as it comes, and reports the end.
///
/// # Errors
/// [`Error::Program`], with the last lines of its error output.
pub fn stream(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    use std::io::BufRead as _;
    let name = describe(command);
    let failed =
        |status: String, output: String| Error::Program { program: name.clone(), status, output };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string(), String::new()))?;
    let errors = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    if let Some(pipe) = child.stdout.take() {
        for text in std::io::BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
            line(&text);
        }
    }
    let status = child.wait().map_err(|e| failed(e.to_string(), String::new()))?;
    let errors = errors.and_then(|t| t.join().ok()).unwrap_or_default();
    if status.success() { Ok(()) } else { Err(failed(status.to_string(), tail(&errors, 20))) }
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Program and its first few arguments that aren't options.
fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    let plain =
        command.get_args().map(|a| a.to_string_lossy().into_owned()).filter(|a| !a.contains('='));
    words.extend(plain.filter(|a| !a.starts_with('-')).take(3));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing_with_its_package() {
        let needs = [
            need("sh", "dash"),
            need("no-such-program-here", "nowhere"),
            need("/no/such.h", "no-dev"),
        ];
        let text = require(&needs).unwrap_err().to_string();
        assert_eq!(
            text,
            "this machine lacks no-such-program-here, /no/such.h; install with: apt-get install no-dev nowhere"
        );
    }

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3") && error.contains("| why"), "{error}");
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut seen = Vec::new();
        stream(Command::new("sh").args(["-c", "echo a; echo b"]), |l| seen.push(l.to_owned()))
            .unwrap();
        assert_eq!(seen, ["a", "b"]);
    }
}

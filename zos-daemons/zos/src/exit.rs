//! How zos ends: one error, what to do about it, and a code that scripts can tell apart.

use std::io::ErrorKind;
use std::process::ExitCode;

use zos_api::client::ClientError;
use zos_types::Problem;

use crate::output::plain;

/// Asked for in a way that can't work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Applied, and not running in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotInTime(pub(crate) String);

/// Prints the error, if there is one, and gives the code that `--help` documents.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS; // `zos logs | head`
    }
    let words = format!("{error:#}"); // may be a node's words; a TOML error has several lines
    eprintln!("zos: {}", words.lines().map(plain).collect::<Vec<_>>().join("\n"));
    if let Some(problem) = error.downcast_ref::<ClientError>().and_then(ClientError::problem) {
        for field in &problem.errors {
            eprintln!("  {}: {}", plain(&place(&field.pointer)), plain(&field.rule));
        }
    }
    if let Some(hint) = hint(&error) {
        eprintln!("{hint}");
    }
    ExitCode::from(number(&error))
}

fn number(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    if error.is::<NotInTime>() {
        return 6;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(problem)) => match problem.status {
            404 => 4,
            500.. => 1,
            _ => 3,
        },
        Some(ClientError::Unreachable { .. } | ClientError::WrongNode { .. }) => 5,
        Some(ClientError::NoKey) => 2,
        Some(ClientError::Protocol(_)) | None => 1,
    }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    Some(match error.downcast_ref::<ClientError>()? {
        ClientError::Unreachable { .. } => {
            "Is the node on, and the address right? Its screen shows ID and addresses.".to_owned()
        }
        ClientError::WrongNode { .. } => {
            "Nothing was sent. If the node was set up anew, take its new id from its screen."
                .to_owned()
        }
        ClientError::NoKey => "Make one with `zos key new`, or name yours with --key.".to_owned(),
        ClientError::Refused(problem) => return refusal(problem),
        ClientError::Protocol(_) => return None,
    })
}

fn refusal(problem: &Problem) -> Option<String> {
    Some(match (problem.slug(), problem.next_version) {
        ("conflict", Some(next)) => {
            format!("Write `version = {next}` to replace what is there; `zos show` shows that.")
        }
        ("full", _) => "`zos capacity` shows what is free.".to_owned(),
        ("unavailable", _) => {
            "Try again in a few seconds; `zos node show` shows its faults.".to_owned()
        }
        ("farmer-only", _) => {
            "`zos key show` shows which key you sign with; name another with --key.".to_owned()
        }
        ("failed", _) => "`zos node show` shows the node's faults.".to_owned(),
        _ => return None,
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// A JSON pointer as people write it in TOML: `/workloads/web/cpu` is `workloads.web.cpu`.
fn place(pointer: &str) -> String {
    let place = pointer.trim_start_matches('/').replace('/', ".");
    let place = place.replace("~1", "/").replace("~0", "~");
    if place.is_empty() { "the deployment".to_owned() } else { place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let check = |error: anyhow::Error, code: u8| assert_eq!(number(&error), code, "{error}");
        let refused =
            |status, slug| ClientError::Refused(Box::new(Problem::new(status, slug, "", "")));
        check(anyhow::anyhow!("x"), 1);
        check(Usage("x".into()).into(), 2);
        check(ClientError::NoKey.into(), 2);
        check(refused(409, "conflict").into(), 3);
        check(refused(401, "signature-invalid").into(), 3);
        check(refused(403, "farmer-only").into(), 3);
        check(refused(404, "not-found").into(), 4);
        check(refused(503, "unavailable").into(), 1);
        check(NotInTime("x".into()).into(), 6);
        let address = "192.0.2.7".parse().unwrap();
        check(ClientError::WrongNode { address, detail: String::new() }.into(), 5);
        check(anyhow::Error::from(refused(404, "not-found")).context("outer"), 4);
    }

    #[test]
    fn pointers_are_written_as_in_toml() {
        let check = |pointer: &str, text: &str| assert_eq!(place(pointer), text);
        check("", "the deployment");
        check("/workloads/web/cpu", "workloads.web.cpu");
        check("/workloads/a~1b", "workloads.a/b");
    }
}

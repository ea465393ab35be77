//! Waiting for a node that will answer again: its API is started anew, it boots, a cable is out.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use zos_api::client::ClientError;

/// How long a node that does not answer is waited for: longer than it takes to boot.
const PATIENCE: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Says that what was followed goes on later.
pub(super) fn tell() {
    eprintln!("zos: the log broke off; it goes on when the node answers");
}

/// Asks until there is an answer, or a refusal that does not pass.
pub(super) async fn ask_until_answered<T>(
    ask: impl AsyncFn() -> Result<T, ClientError>,
    passes: impl Fn(&ClientError, Duration) -> bool,
) -> Result<T, ClientError> {
    let (start, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        sleep(pause).await;
        match ask().await {
            Err(error) if start.elapsed() < PATIENCE && passes(&error, start.elapsed()) => {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Whether an error may be gone a moment later.
pub(super) fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => problem.status == 503,
        _ => false,
    }
}

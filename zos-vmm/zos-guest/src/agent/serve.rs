//! One connection: its request, what is done, the answer.

use super::{Processes, mounts, session, stats};
use crate::{network, power};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_settime};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use zos_agent::{Answer, Decoder, Frame, Refusal, Request};

/// How long a host may take for its request.
const PATIENCE: i64 = 30;

/// Serves a connection to its end.
pub(super) fn serve(connection: &File, processes: &Arc<Processes>) {
    let mut decoder = Decoder::default();
    let _ = setsockopt(connection, ReceiveTimeout, &TimeVal::seconds(PATIENCE));
    let Some(Frame::Request(request)) = read(connection, &mut decoder) else { return };
    let _ = setsockopt(connection, ReceiveTimeout, &TimeVal::seconds(0));
    let result = match request {
        Request::Exec(exec) => match session::start(&exec, processes) {
            Ok(process) => return session::run(process, connection, decoder, processes),
            Err(reason) => Err(reason),
        },
        Request::Power(how) => power::may_end().map(|()| {
            answer(connection, Answer::Done);
            power::end(how, "the host asks");
            Answer::Done
        }),
        other => perform(other),
    };
    answer(connection, result.unwrap_or_else(|reason| Answer::Refused(Refusal { reason })));
}

fn perform(request: Request) -> Result<Answer, String> {
    let done = |()| Answer::Done;
    match request {
        Request::Describe => stats::describe().map(Answer::Description),
        Request::Stats => stats::stats().map(Answer::Stats),
        Request::Mount(mount) => mounts::mount(&mount).map(done),
        Request::Unmount { target } => mounts::unmount(&target).map(done),
        Request::Network(interface) => network::set_up(&interface).map(done),
        Request::SetClock { unix_ns } => {
            let time = Duration::from_nanos(unix_ns).into();
            clock_settime(ClockId::CLOCK_REALTIME, time)
                .map(done)
                .map_err(|error| format!("set the clock: {error}"))
        }
        Request::Exec(_) | Request::Power(_) => Err("that is done elsewhere".to_owned()),
    }
}

fn answer(mut connection: &File, answer: Answer) {
    // A host that has gone needs no answer; one that is too long is the same as none.
    if let Ok(bytes) = Frame::Answer(answer).encode() {
        let _ = connection.write_all(&bytes);
    }
}

/// The next frame; none: the connection has ended, or is of no more use.
pub(super) fn read(mut connection: &File, decoder: &mut Decoder) -> Option<Frame> {
    let mut piece = [0; 8192];
    loop {
        if let Some(frame) = decoder.take().ok()? {
            return Some(frame);
        }
        match connection.read(&mut piece) {
            Ok(0) => return None,
            Ok(count) => decoder.feed(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

//! Asking a service to stop all VMs orderly: one varlink call, answered whenever it is done.

use serde_json::json;
use zos_host::poll::Interest;
use zos_host::varlink::{Call, Connection, Received, Reply, object};
use zos_host::{Error, Result, unix};

use super::{Node, Token, launch};
use crate::supervise::{Event, Millis, UnitId};

/// What is called; a unit that `drains` serves it on its socket.
const METHOD: &str = "org.zos.Vm.Drain";

impl Node {
    pub(super) fn ask_to_drain(&mut self, unit: UnitId, deadline_ms: Millis) -> Result<()> {
        let service = self.services.get(&unit).ok_or_else(|| launch::unknown(unit))?;
        let path = service.socket.as_ref().ok_or_else(|| launch::unknown(unit))?;
        let mut connection = Connection::new(unix::connect(path)?);
        let parameters = object(&json!({ "deadline_ms": deadline_ms }));
        connection.send(&Call::new(METHOD, parameters), Vec::new())?;
        if connection.unsent() > 0 {
            return Err(Error::invalid("send to", path, "it doesn't read"));
        }
        self.poll.add(&connection, Token::Drain.number(), Interest::READ)?;
        self.drain = Some(connection);
        Ok(())
    }

    /// The service has something to say.
    pub(super) fn drain_answers(&mut self) {
        let Some(connection) = &mut self.drain else { return };
        let problem = match connection.receive() {
            Ok(Received::Nothing) => return,
            Ok(Received::Closed) => Some("the connection was closed".to_owned()),
            Err(error) => Some(error.line()),
            Ok(Received::Some) => match connection.message() {
                None => return,
                Some(message) => match serde_json::from_slice::<Reply>(&message) {
                    Ok(reply) => reply.error,
                    Err(error) => Some(error.to_string()),
                },
            },
        };
        self.drain = None;
        self.event(Event::Drained { problem });
    }
}

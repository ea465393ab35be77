//! What a guest's PID 1 says to its host.

use std::io::{self, Read, Write};
use zos_agent::{Decoder, Event, Exec, Host, HostError};

/// A guest that says these bytes, in pieces, whatever it hears.
struct Guest<'a>(&'a [u8]);

impl Read for Guest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.first().map_or(0, |first| usize::from(*first) + 1);
        let count = piece.min(self.0.len()).min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}

impl Write for Guest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host comes to an end with it, and a frame that was understood is one that can be said.
pub(super) fn host(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    while let Ok(Some(frame)) = decoder.take() {
        frame.encode().expect("what was read can be written");
    }
    let end = |mut host: Host<Guest<'_>>| -> Result<(), HostError> {
        host.exec(Exec::default())?;
        while !matches!(host.event()?, Event::Exit(_)) {}
        Ok(())
    };
    let _ = end(Host::new(Guest(bytes)));
    let _ = Host::connect(Guest(bytes)).and_then(end);
}

//! One request after another, by preadv and pwritev: for hosts that forbid io_uring.

use super::{Engine, Operation};
use crate::virtio::blk::disk::Disk;
use crate::virtio::blk::request::Request;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Does each request when it is started.
#[derive(Debug)]
pub(in crate::virtio::blk) struct Blocking {
    disk: Arc<Disk>,
    finished: VecDeque<(Box<Request>, io::Result<usize>)>,
}

impl Blocking {
    pub(in crate::virtio::blk) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, finished: VecDeque::with_capacity(1) }
    }
}

/// Does what a request says, in the calling thread.
fn perform(disk: &Disk, request: &Request) -> io::Result<usize> {
    let file = &disk.file;
    match request.operation() {
        Operation::Read(at) => request.pieces().read_at(file, at),
        Operation::Write { at, durable: false } => request.pieces().write_at(file, at),
        Operation::Write { at, durable: true } => {
            let count = request.pieces().write_at(file, at)?;
            rustix::fs::fdatasync(file)?;
            Ok(count)
        }
        Operation::Flush => Ok(rustix::fs::fdatasync(file).map(|()| 0)?),
        Operation::Clear(how, range) => disk.clear(how, range).map(|()| 0),
    }
}

impl Engine for Blocking {
    fn depth(&self) -> usize {
        1
    }

    fn start(&mut self, request: Box<Request>) {
        let result = perform(&self.disk, &request);
        self.finished.push_back((request, result));
    }

    fn submit(&mut self) -> bool {
        true
    }

    fn finished(&mut self) -> Option<(Box<Request>, io::Result<usize>)> {
        self.finished.pop_front()
    }

    fn wait(&mut self) {}

    fn holds(&self) -> usize {
        self.finished.len()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

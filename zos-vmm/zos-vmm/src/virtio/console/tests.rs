use super::*;
use crate::console::{Ring, Sink, Wire};
use crate::jail::Kind;
use crate::pci::Function;
use crate::virtio::driver::{BUFFERS, Driver};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use vm_memory::{Bytes, GuestAddress};

const RING: usize = 128 << 10;

/// A console with a ring and a socket, its driver, and a client that is connected.
fn bench() -> (Driver, File, UnixStream) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(RING as u64 + 4096).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let wire = Arc::new(Wire::new().unwrap());
    let session = Session::socket(wire.clone(), listener.into());
    let ring = Ring::open(file.try_clone().unwrap()).unwrap();
    let console = Console::new(Sink::Ring(ring), None, Some(wire));
    let ends = ConsoleEnds { console, session: Some(session), size: Some((132, 50)) };
    let device = VirtioConsole::new(ends);
    let mut driver = Driver::confined(device.profile(), Box::new(device), Kind::Shared);
    driver.start(F_SIZE);
    (driver, file, client)
}

/// Writes on the console as the guest's kernel does.
fn print(driver: &mut Driver, buffers: &[crate::virtio::driver::Buffer]) {
    let before = driver.queues[1].used().len();
    driver.queues[1].offer(buffers);
    driver.kick(1);
    driver.wait(|driver| driver.queues[1].used().len() > before);
}

fn log(file: &File) -> Vec<u8> {
    let mut total = [0; 8];
    file.read_exact_at(&mut total, 16).unwrap();
    let mut log = vec![0; usize::try_from(u64::from_le_bytes(total)).unwrap()];
    file.read_exact_at(&mut log, 4096).unwrap();
    log
}

#[test]
fn output_is_kept_and_seen() {
    let (mut driver, file, mut client) = bench();
    driver.memory.write_slice(b"booting", GuestAddress(BUFFERS)).unwrap();
    print(&mut driver, &[(BUFFERS, 4, false), (BUFFERS + 4, 3, false)]);
    assert_eq!(log(&file), b"booting");
    // What is written once the client is there reaches it.
    let mut seen = Vec::new();
    client.set_nonblocking(true).unwrap();
    driver.wait(|driver| {
        print(driver, &[(BUFFERS, 7, false)]);
        let mut bytes = [0; 64];
        let count = client.read(&mut bytes).unwrap_or(0);
        seen.extend_from_slice(&bytes[..count]);
        seen.len() >= 7
    });
    assert_eq!(&seen[..7], b"booting");
}

#[test]
fn typed_bytes_wait_for_room() {
    use std::io::Write;
    let (mut driver, _file, mut client) = bench();
    client.write_all(b"echo hello\n").unwrap();
    let mut typed = Vec::new();
    for _ in 0..3 {
        let before = driver.queues[0].used().len();
        driver.queues[0].offer(&[(BUFFERS, 4, true)]);
        driver.kick(0);
        driver.wait(|driver| driver.queues[0].used().len() > before);
        let (_, length) = driver.queues[0].used()[before];
        let mut bytes = vec![0; length as usize];
        driver.memory.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
        typed.extend_from_slice(&bytes);
    }
    assert_eq!(typed, b"echo hello\n");
}

#[test]
fn a_request_of_gigabytes_is_cut() {
    let (mut driver, file, _client) = bench();
    let whole = u32::try_from(crate::virtio::driver::MEMORY).unwrap();
    // Over and over the same memory, as much as 15 descriptors hold.
    print(&mut driver, &vec![(0, whole, false); 15]);
    assert_eq!(log(&file).len(), MOST);
    // What isn't memory, what is to be written, and what is for input but to be read.
    for buffers in [&[(u64::MAX - 4, 8, false)][..], &[(BUFFERS, 8, true)], &[(BUFFERS, 0, false)]]
    {
        print(&mut driver, buffers);
    }
    assert_eq!(log(&file).len(), MOST);
}

#[test]
fn the_size_is_told() {
    let (mut driver, ..) = bench();
    let mut config = [0; 8];
    driver.function.bar_read(0x2000, &mut config);
    assert_eq!(config, [132, 0, 50, 0, 1, 0, 0, 0]);
}

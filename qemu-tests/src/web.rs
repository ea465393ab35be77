//! The boot server: a folder over HTTP/1.1, with a few pages of the test's own in front of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A page made by the test: called with how often it was asked for before.
pub type Page = Box<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

/// A server that lives as long as its process; its port is free for each.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

struct Site {
    folder: PathBuf,
    pages: BTreeMap<String, Page>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// Serves a folder, and before it these pages (`/start`).
    pub fn serve(folder: &Path, pages: BTreeMap<String, Page>) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for the boot server")?;
        let address = listener.local_addr().context("find the boot server's port")?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let site = Arc::new(Site { folder: folder.to_owned(), pages, asked: asked.clone() });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = site.clone();
                std::thread::spawn(move || site.answer(stream));
            }
        });
        Ok(Self { address, asked })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The paths asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic while held").clone()
    }
}

impl Site {
    /// Answers the requests of one connection. A client that goes away is no error here.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut writer = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream).lines();
        loop {
            let request = lines.next()?.ok()?;
            // Headers: none of them matters to a boot loader's GET.
            while !lines.next()?.ok()?.is_empty() {}
            let mut words = request.split(' ');
            let (method, path) = (words.next()?, words.next()?.split('?').next()?);
            let found = self.find(path);
            let (status, body) =
                found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            writer.write_all(head.as_bytes()).ok()?;
            if method != "HEAD" {
                writer.write_all(&body).ok()?;
            }
        }
    }

    fn find(&self, path: &str) -> Option<Vec<u8>> {
        let before = {
            let mut asked = self.asked.lock().expect("no panic while held");
            asked.push(path.to_owned());
            asked.iter().filter(|known| *known == path).count() - 1
        };
        if let Some(page) = self.pages.get(path) {
            return Some(page(before));
        }
        let relative = Path::new(path.trim_start_matches('/'));
        let plain =
            relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if plain { std::fs::read(self.folder.join(relative)).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn pages_then_files_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pxe")).unwrap();
        std::fs::write(dir.path().join("pxe/vmlinuz"), "kernel").unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        let page: Page = Box::new(|before| format!("time {before}").into_bytes());
        let web =
            Web::serve(&dir.path().join("pxe"), [("/start".to_owned(), page)].into()).unwrap();
        let get = |path: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", web.port())).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text.rsplit("\r\n").next().unwrap().to_owned() + &text[8..12]
        };
        assert_eq!(get("/start"), "time 0 200");
        assert_eq!(get("/start"), "time 1 200");
        assert_eq!(get("/vmlinuz?x=1"), "kernel 200");
        assert_eq!(get("/../secret"), " 404");
        assert_eq!(web.asked(), ["/start", "/start", "/vmlinuz", "/../secret"]);
    }
}

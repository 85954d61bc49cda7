//! A server for raw exchanges: it records to the byte what it gets, and answers with the bytes that it is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::wait::DEADLINE;

/// What shows that a connection is in step.
pub const LAST: &[u8] = b"GET /end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n";

/// How the server answers.
#[derive(Clone, Default)]
pub struct Answer {
    pub bytes: Vec<u8>,
    /// Whether it closes its sending side then.
    pub closes: bool,
    /// Whether it answers before the body, and closes.
    pub early: bool,
}

/// A request as it came: the head to the byte, and the body without its chunks.
#[derive(Clone, Default)]
pub struct Seen {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub chunked: bool,
    pub trailers: Vec<u8>,
}

impl Seen {
    /// Method and target.
    pub fn line(&self) -> &[u8] {
        let end = self.head.windows(6).position(|window| window == b" HTTP/");
        &self.head[..end.unwrap_or_default()]
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (open, close): (&[u8], &[u8]) = if self.chunked {
            (b"[", b"]")
        } else {
            (b"", b"")
        };
        [&self.head, open, &self.body, close, &self.trailers].concat()
    }
}

/// What the server does, and what it got.
#[derive(Default)]
pub struct Script {
    pub answer: Answer,
    pub seen: Vec<Seen>,
}

/// A server that records what it gets and answers as the row says.
pub fn server() -> (SocketAddr, Arc<Mutex<Script>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let script = Arc::new(Mutex::new(Script::default()));
    let shared = Arc::clone(&script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&shared);
            std::thread::spawn(move || drop(serve(Wire::new(stream), &script)));
        }
    });
    (addr, script)
}

fn serve(mut wire: Wire, script: &Mutex<Script>) -> std::io::Result<()> {
    loop {
        let mut seen = Seen {
            head: wire.through(b"\r\n\r\n")?,
            ..Seen::default()
        };
        let answer = script.lock().unwrap().answer.clone();
        if seen.head.starts_with(b"GET /end ") {
            wire.stream.write_all(LAST_ANSWER)?;
            continue;
        }
        let at = {
            let mut script = script.lock().unwrap();
            script.seen.push(seen.clone());
            script.seen.len() - 1
        };
        if !answer.early {
            wire.body_of(&mut seen)?;
            if let Some(place) = script.lock().unwrap().seen.get_mut(at) {
                *place = seen;
            }
        }
        wire.stream.write_all(&answer.bytes)?;
        if answer.closes || answer.early {
            return wire.stream.shutdown(Shutdown::Write);
        }
    }
}

/// A connection, with what was read too far.
pub struct Wire {
    pub stream: TcpStream,
    pub read: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub fn more(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    pub fn take(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.read.len() < count {
            self.more()?;
        }
        Ok(self.read.drain(..count).collect())
    }

    /// Up to this end, and with it.
    pub fn through(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            match self
                .read
                .windows(end.len())
                .position(|window| window == end)
            {
                Some(at) => return self.take(at + end.len()),
                None => self.more()?,
            }
        }
    }

    fn body_of(&mut self, seen: &mut Seen) -> std::io::Result<()> {
        if let Some(length) = field(&seen.head, "content-length") {
            seen.body = self.take(length.parse().unwrap())?;
        }
        seen.chunked = field(&seen.head, "transfer-encoding").is_some();
        if seen.chunked {
            (seen.body, seen.trailers) = self.chunks()?;
        }
        Ok(())
    }

    fn chunks(&mut self) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.through(b"\r\n")?).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            if size == 0 {
                break;
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
        let mut trailers = Vec::new();
        loop {
            match self.through(b"\r\n")? {
                line if line == b"\r\n" => return Ok((body, trailers)),
                line => trailers.extend(line),
            }
        }
    }
}

/// The value of the first field of this name in a head.
pub fn field(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).into_owned();
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

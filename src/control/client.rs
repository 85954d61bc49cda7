//! gatewayctl's end of the control socket.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::frames::{self, ReadFrame};
use super::protocol::{EventName, FRAME_MAX, Failure, Frame, GatewayEvent, Method, Progress};
use crate::os::mapped_owner;
use crate::os::process::{PidFd, ProcessKey};
use crate::os::unix_socket;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the connection to the gateway broke: {0}")]
    Io(#[from] io::Error),
    #[error("the gateway closed the connection before it answered")]
    Closed,
    #[error("{}", .0.message)]
    Refused(Failure),
    #[error("the gateway's answer cannot be understood (is it of another version?): {0}")]
    Protocol(String),
}

/// Who serves a control socket: the process that began to listen, as the kernel recorded it. It is
/// the only thing about a gateway that is known for certain; everything else is its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPeer {
    pub uid: u32,
    /// None where that cannot be known: the process is in another pid namespace, hidden, or has ended
    /// and left its socket to another one.
    pub process: Option<ProcessKey>,
}

impl SocketPeer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid != 0);
        Ok(Self {
            uid: credentials.uid(),
            process: pid.and_then(|pid| process_of(stream, pid)),
        })
    }

    /// Its pid when the connection was made.
    pub fn pid(self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    /// Whether it is this process, which somebody has named by its pid since the connection was made:
    /// the pid can belong to no other process, as long as this one lives.
    pub fn is(self, pid: u32) -> bool {
        self.process
            .is_some_and(|process| process.pid == pid && process.lives())
    }

    /// Whether it runs as the user who asks: then its word can give it nothing that it lacks.
    pub fn is_this_user(self) -> bool {
        self.uid == geteuid().as_raw()
    }

    /// Whether it may serve this socket: root and the caller may, and for root the owner of the
    /// socket's directory. Nobody else can be meant.
    fn may_serve(self, path: &Path) -> bool {
        let owns_directory = || {
            let directory = path.parent().unwrap_or(Path::new("/"));
            mapped_owner::is_owner(directory, self.uid)
        };
        self.uid == 0 || self.is_this_user() || (geteuid().is_root() && owns_directory())
    }
}

/// The process at the other side, which had this pid when it began to listen. The kernel may have
/// given the pid again since then.
fn process_of(stream: &UnixStream, pid: u32) -> Option<ProcessKey> {
    let peer = PidFd::of_peer(stream);
    let process = ProcessKey::read(pid);
    match peer {
        // It lived when its start time was read, so its pid was its own.
        Ok(peer) => process.filter(|_| !peer.has_ended()),
        Err(Errno::ENOPROTOOPT) => process,
        Err(_) => None,
    }
}

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedEvent {
    /// Counts from 1.
    pub seq: u64,
    pub event: GatewayEvent,
}

/// A connection to a gateway.
#[derive(Debug)]
pub struct Client {
    peer: SocketPeer,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    calls: u64,
}

impl Client {
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] mean that no gateway
    /// runs there; [`io::ErrorKind::InvalidData`], that a user serves it who cannot be meant.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::from_std(unix_socket::connect(path)?)?;
        let peer = SocketPeer::of(&stream)?;
        if !peer.may_serve(path) {
            let message = format!(
                "{} is served by uid {}, which is neither its owner nor root",
                path.display(),
                peer.uid
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let (reader, writer) = stream.into_split();
        Ok(Self {
            peer,
            reader: BufReader::new(reader),
            writer,
            calls: 0,
        })
    }

    /// Who serves the socket.
    pub fn peer(&self) -> SocketPeer {
        self.peer
    }

    /// Asks and waits for the answer; `progress` gets every step before it.
    ///
    /// # Errors
    /// [`CallError`]; after all but [`CallError::Refused`] the connection is of no more use.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: &Method,
        mut progress: impl FnMut(Progress),
    ) -> Result<T, CallError> {
        self.calls += 1;
        let mine = self.calls.to_string();
        let (name, params) = method.encode();
        let request = Frame::Req {
            id: mine.clone(),
            method: name.to_owned(),
            params,
        };
        frames::write(&mut self.writer, &request).await?;
        loop {
            match frames::read(&mut self.reader).await? {
                ReadFrame::Frame(Frame::Event { event, payload, .. })
                    if event.parse() == Ok(EventName::Progress) =>
                {
                    // A step of a later version may have another form: only the answer counts.
                    if let Ok(step) = serde_json::from_value(payload) {
                        progress(step);
                    }
                }
                ReadFrame::Frame(Frame::Res {
                    id,
                    ok,
                    payload,
                    error,
                }) if id == mine => {
                    return match error {
                        Some(failure) if !ok => Err(CallError::Refused(failure)),
                        _ if !ok => Err(CallError::Protocol("a failure without a reason".into())),
                        _ => serde_json::from_value(payload)
                            .map_err(|error| CallError::Protocol(error.to_string())),
                    };
                }
                ReadFrame::Frame(_) => {}
                ReadFrame::Garbage(error) => return Err(CallError::Protocol(error)),
                ReadFrame::TooLong => return Err(too_long()),
                ReadFrame::End => return Err(CallError::Closed),
            }
        }
    }

    /// Waits for the next event and its payload; none when the gateway closed the connection. Events
    /// of a later version are skipped.
    pub async fn event(&mut self) -> io::Result<Option<(EventName, Value)>> {
        loop {
            match frames::read(&mut self.reader).await? {
                ReadFrame::Frame(Frame::Event { event, payload, .. }) => {
                    if let Ok(event) = event.parse() {
                        return Ok(Some((event, payload)));
                    }
                }
                ReadFrame::Frame(_) | ReadFrame::Garbage(_) => {}
                ReadFrame::End | ReadFrame::TooLong => return Ok(None),
            }
        }
    }

    /// Waits for the next event of a subscription; none when the gateway closed the connection. Events
    /// of a later version are skipped.
    pub async fn next_event(&mut self) -> io::Result<Option<NumberedEvent>> {
        loop {
            match frames::read(&mut self.reader).await? {
                ReadFrame::Frame(Frame::Event {
                    event,
                    payload,
                    seq: Some(seq),
                }) => {
                    let name = event.parse().ok();
                    if let Some(event) = name.and_then(|name| GatewayEvent::of(name, payload)) {
                        return Ok(Some(NumberedEvent { seq, event }));
                    }
                }
                ReadFrame::Frame(_) | ReadFrame::Garbage(_) => {}
                ReadFrame::End | ReadFrame::TooLong => return Ok(None),
            }
        }
    }

    /// Waits until the gateway closes the connection, which it does when it ends.
    ///
    /// # Errors
    /// [`CallError::Protocol`] when what comes instead is none of its frames, and may never end.
    pub async fn closed(&mut self) -> Result<(), CallError> {
        loop {
            match frames::read(&mut self.reader).await {
                Ok(ReadFrame::Frame(_)) => {}
                Ok(ReadFrame::Garbage(error)) => return Err(CallError::Protocol(error)),
                Ok(ReadFrame::TooLong) => return Err(too_long()),
                Ok(ReadFrame::End) | Err(_) => return Ok(()),
            }
        }
    }
}

fn too_long() -> CallError {
    CallError::Protocol(format!("a frame over {FRAME_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Listens, leaves the listener to a child, and ends.
    const LEAVES_IT: &str = "
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.setsid()
    while True:
        listener.accept()
";

    #[tokio::test]
    async fn a_socket_whose_first_process_has_ended_is_served_by_an_unknown_process() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let _listener = std::os::unix::net::UnixListener::bind(&own).unwrap();
        let peer = Client::connect(&own).await.unwrap().peer();
        assert!(peer.is(std::process::id()) && !peer.is(1));

        let left = dir.path().join("left");
        let mut command = Command::new("python3");
        command.args(["-c", LEAVES_IT]).arg(&left);
        let Ok(mut first) = command.stdout(Stdio::piped()).spawn() else {
            return;
        };
        let mut heir = String::new();
        let mut said = BufReader::new(first.stdout.take().unwrap());
        said.read_line(&mut heir).unwrap();
        first.wait().unwrap();
        let peer = Client::connect(&left).await.unwrap().peer();
        assert_eq!((peer.pid(), peer.is(first.id())), (None, false));
        let heir = nix::unistd::Pid::from_raw(heir.trim().parse().unwrap());
        nix::sys::signal::kill(heir, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

//! The gateway's end of the control socket.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::{self, Incoming};
use super::protocol::{FRAME_MAX, Failure, FailureCode, Frame, Method, Progress};

/// Connections at once. Each waiting gatewayctl holds one; more than this is a script gone wrong.
const CONNECTIONS_MAX: usize = 128;

/// How long a client may take to read an answer; they fit the socket's buffer, so this ends only
/// clients that stopped reading.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long to wait when the process has no descriptor left: nothing tells when one is free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// The process; 0 where the system does not tell.
    pub pid: i32,
}

#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub caller: Caller,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where the answer to one request goes. The answer is lost when the client went away; that is not
/// the request's business. Dropped without an answer it says that the gateway ended first.
#[derive(Debug)]
pub struct Reply {
    id: String,
    out: Option<mpsc::UnboundedSender<Frame>>,
    gone: CancellationToken,
}

/// The connection of a request that was answered, for what goes on beyond the answer. It keeps
/// [`serve`] like a [`Reply`].
#[derive(Debug)]
pub struct Held {
    out: mpsc::UnboundedSender<Frame>,
    gone: CancellationToken,
}

impl Held {
    /// Sends an event; lost when the client went away.
    pub fn event(&self, event: &str, payload: serde_json::Value) {
        let _ = self.out.send(Frame::Event {
            event: event.to_owned(),
            payload,
        });
    }

    /// Cancelled when the client closes the connection, or nothing is read from it any more.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

impl Reply {
    fn new(id: String, out: mpsc::UnboundedSender<Frame>, gone: CancellationToken) -> Self {
        Self {
            id,
            out: Some(out),
            gone,
        }
    }

    /// Answers: done, and keeps the connection for events; none when the answer could not be given.
    pub fn hold(self, payload: &impl Serialize) -> Option<Held> {
        let held = self.out.clone().map(|out| Held {
            out,
            gone: self.gone.clone(),
        });
        self.done(payload);
        held
    }

    pub fn progress(&self, progress: &Progress) {
        let payload = serde_json::to_value(progress).unwrap_or_default();
        if let Some(out) = &self.out {
            let _ = out.send(Frame::Event {
                event: "progress".into(),
                payload,
            });
        }
    }

    pub fn done(mut self, payload: &impl Serialize) {
        match serde_json::to_value(payload) {
            Ok(payload) => self.send(true, payload, None),
            Err(error) => self.refuse(
                FailureCode::Failed,
                format!("the answer has no JSON form: {error}"),
            ),
        }
    }

    pub fn fail(mut self, failure: Failure) {
        self.refuse(failure.code, failure.message);
    }

    fn refuse(&mut self, code: FailureCode, message: String) {
        self.send(
            false,
            serde_json::Value::Null,
            Some(Failure { code, message }),
        );
    }

    fn send(&mut self, ok: bool, payload: serde_json::Value, error: Option<Failure>) {
        if let Some(out) = self.out.take() {
            let _ = out.send(Frame::Res {
                id: std::mem::take(&mut self.id),
                ok,
                payload,
                error,
            });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.out.is_some() {
            self.refuse(
                FailureCode::Failed,
                "the gateway ended before it could answer".into(),
            );
        }
    }
}

/// Binds the control socket, 0600, its folder 0700 when it has to be made. A socket that lies there
/// is replaced: the caller holds the lock, so nobody serves it.
///
/// # Errors
/// Whatever the file system says; [`io::ErrorKind::AlreadyExists`] when something that is not a
/// socket lies there.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let message = format!(
                "{} is not a socket: remove it or choose another --state-dir",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Put in place whole: whoever connects meanwhile reaches the one before or this one.
    let own = path.with_extension(std::process::id().to_string());
    let _ = std::fs::remove_file(&own);
    let listener = StdListener::bind(&own)?;
    std::fs::set_permissions(&own, Permissions::from_mode(0o600))?;
    std::fs::rename(&own, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The names that a socket of [`bind`] may have: the kernel goes on calling it by the one that it
/// was bound with.
pub fn names(bound: &Path) -> [PathBuf; 2] {
    [bound.with_extension("sock"), bound.to_owned()]
}

/// Serves the control socket until `stop`, then takes no more requests and returns when every
/// request has its answer.
///
/// A [`Reply`] that is kept keeps this function; a closed `calls` answers every request with a
/// failure.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("[gateway] control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(caller) = admit(&stream) else {
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(
                "[gateway] control socket: more than {CONNECTIONS_MAX} connections at once, pid {} was turned away",
                caller.pid
            );
            continue;
        };
        let (calls, stop) = (calls.clone(), stop.clone());
        connections.spawn(async move {
            converse(stream, caller, calls, stop).await;
            drop(slot);
        });
    }
    drop((listener, calls));
    connections.close();
    connections.wait().await;
}

/// Lets in root and our own user; the file's mode already keeps others out, unless somebody changed
/// it.
fn admit(stream: &UnixStream) -> Option<Caller> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() => {
            Some(Caller {
                uid: peer.uid(),
                pid: peer.pid().unwrap_or(0),
            })
        }
        Ok(peer) => {
            tracing::warn!(
                "[gateway] control socket: refused uid {} (pid {})",
                peer.uid(),
                peer.pid().unwrap_or(0)
            );
            None
        }
        Err(error) => {
            tracing::warn!(
                "[gateway] control socket: refused a peer that cannot be known: {error}"
            );
            None
        }
    }
}

async fn converse(
    stream: UnixStream,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    stop: CancellationToken,
) {
    let (reader, writer) = stream.into_split();
    let (out, frames) = mpsc::unbounded_channel();
    // The writer ends when the last reply is gone, so answers survive both the end of the requests
    // and `stop`.
    let writing = write_all(writer, frames);
    let gone = CancellationToken::new();
    let reading = async move {
        let _told = gone.clone().drop_guard();
        tokio::select! {
            () = stop.cancelled() => {}
            () = read_all(reader, caller, calls, out, gone) => {}
        }
    };
    tokio::join!(writing, reading);
}

async fn read_all(
    reader: OwnedReadHalf,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    out: mpsc::UnboundedSender<Frame>,
    gone: CancellationToken,
) {
    let mut reader = BufReader::new(reader);
    let refuse = |id: &str, message: String| {
        Reply::new(id.to_owned(), out.clone(), gone.clone()).fail(Failure {
            code: FailureCode::BadRequest,
            message,
        });
    };
    loop {
        let (id, method, params) = match frames::read(&mut reader).await {
            Ok(Incoming::Frame(Frame::Req { id, method, params })) => (id, method, params),
            Ok(Incoming::Frame(_)) => {
                refuse("", "only `req` frames are read here".into());
                continue;
            }
            Ok(Incoming::Garbage(error)) => {
                refuse("", format!("not a frame: {error}"));
                continue;
            }
            Ok(Incoming::TooLong) => {
                return refuse("", format!("a frame may have {FRAME_MAX} bytes"));
            }
            Ok(Incoming::End) | Err(_) => return,
        };
        let reply = Reply::new(id, out.clone(), gone.clone());
        match Method::parse(&method, params) {
            Ok(method) => {
                // A failed send drops the call and with it the reply, which then says so.
                let _ = calls
                    .send(Call {
                        method,
                        caller,
                        reply,
                    })
                    .await;
            }
            Err(failure) => reply.fail(failure),
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        match tokio::time::timeout(WRITE_TIME, frames::write(&mut writer, &frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::control::client::{CallError, Client};
    use crate::control::protocol::{InhibitParams, Lease, Outcome, RestartParams, Status};
    use crate::state::terms::{ProgressStage, RequestOutcome};

    struct Fixture {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        stop: CancellationToken,
        server: tokio::task::JoinHandle<()>,
        calls: mpsc::Receiver<Call>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let listener = UnixListener::from_std(bind(&path).unwrap()).unwrap();
        let (sender, calls) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, sender, stop.clone()));
        Fixture {
            _dir: dir,
            path,
            stop,
            server,
            calls,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            request: "r1".into(),
            outcome: RequestOutcome::Done,
            into: None,
            before: Default::default(),
            after: Default::default(),
            pid: None,
            took_ms: 7,
            drained: false,
            notes: vec![],
        }
    }

    #[test]
    fn the_socket_is_private_and_a_stale_one_is_replaced_but_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let file = dir.path().join("run/file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(
            bind(&file).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(file.exists());
    }

    #[tokio::test]
    async fn a_call_has_progress_and_an_answer_and_its_caller_is_known() {
        let mut fixture = fixture();
        let mut client = Client::connect(&fixture.path).await.unwrap();
        let answering = async {
            let call = fixture.calls.recv().await.unwrap();
            assert_eq!(
                call.method,
                Method::Restart(RestartParams {
                    force: true,
                    ..Default::default()
                })
            );
            assert_eq!(call.caller.uid, nix::unistd::geteuid().as_raw());
            assert_eq!(call.caller.pid, i32::try_from(std::process::id()).unwrap());
            call.reply.progress(&Progress {
                request: "r1".into(),
                stage: ProgressStage::Starting,
                text: "t".into(),
            });
            call.reply.done(&outcome());
        };
        let mut stages = Vec::new();
        let method = Method::Restart(RestartParams {
            force: true,
            ..Default::default()
        });
        let calling = client.call::<Outcome>(&method, |progress| stages.push(progress.stage));
        let (answer, ()) = tokio::join!(calling, answering);
        assert_eq!(answer.unwrap(), outcome());
        assert_eq!(stages, [ProgressStage::Starting]);
    }

    #[tokio::test]
    async fn failures_and_dropped_replies_reach_the_client() {
        let mut fixture = fixture();
        let mut client = Client::connect(&fixture.path).await.unwrap();
        let failure = Failure {
            code: FailureCode::ConfigInvalid,
            message: "g.toml:1:1: bad".into(),
        };
        let sent = failure.clone();
        let answering = async {
            fixture.calls.recv().await.unwrap().reply.fail(sent);
            drop(fixture.calls.recv().await.unwrap());
        };
        let calling = async {
            (
                client.call::<Outcome>(&Method::Reload, |_| ()).await,
                client.call::<Status>(&Method::Status, |_| ()).await,
            )
        };
        let ((refused, dropped), ()) = tokio::join!(calling, answering);
        assert!(matches!(refused, Err(CallError::Refused(got)) if got == failure));
        assert!(
            matches!(dropped, Err(CallError::Refused(got)) if got.message == "the gateway ended before it could answer")
        );
    }

    #[tokio::test]
    async fn a_request_survives_its_client_and_answers_survive_the_stop() {
        let mut fixture = fixture();
        let mut gone = UnixStream::connect(&fixture.path).await.unwrap();
        gone.write_all(b"{\"type\":\"req\",\"id\":\"1\",\"method\":\"reload\"}\n")
            .await
            .unwrap();
        let orphan = fixture.calls.recv().await.unwrap();
        drop(gone);
        let mut client = Client::connect(&fixture.path).await.unwrap();
        let calling =
            tokio::spawn(async move { client.call::<Outcome>(&Method::Reload, |_| ()).await });
        let call = fixture.calls.recv().await.unwrap();
        fixture.stop.cancel();
        orphan.reply.progress(&Progress {
            request: "r1".into(),
            stage: ProgressStage::Ready,
            text: "t".into(),
        });
        orphan.reply.done(&outcome());
        call.reply.done(&outcome());
        assert_eq!(calling.await.unwrap().unwrap(), outcome());
        fixture.server.await.unwrap();
        assert!(
            Client::connect(&fixture.path).await.is_err(),
            "nobody listens any more"
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_held_gets_events_and_its_end_is_known() {
        let mut fixture = fixture();
        let mut client = Client::connect(&fixture.path).await.unwrap();
        let method = Method::Inhibit(InhibitParams {
            why: "backup".into(),
            ttl_ms: None,
        });
        let (answer, held) = tokio::join!(client.call::<Lease>(&method, |_| ()), async {
            fixture
                .calls
                .recv()
                .await
                .unwrap()
                .reply
                .hold(&Lease { lease: 1, pid: 7 })
                .unwrap()
        });
        assert_eq!(answer.unwrap(), Lease { lease: 1, pid: 7 });
        held.event("deadline", serde_json::Value::Null);
        assert_eq!(
            client
                .event()
                .await
                .unwrap()
                .map(|(event, _)| event)
                .as_deref(),
            Some("deadline")
        );
        let gone = held.gone();
        assert!(!gone.is_cancelled());
        drop(client);
        gone.cancelled().await;
    }

    #[tokio::test]
    async fn garbage_is_answered_and_a_frame_without_end_is_refused() {
        let fixture = fixture();
        let mut stream = UnixStream::connect(&fixture.path).await.unwrap();
        stream
            .write_all(b"{\n\n{\"type\":\"req\",\"id\":\"9\",\"method\":\"fly\"}\n")
            .await
            .unwrap();
        let (reader, mut writer) = stream.into_split();
        let flood =
            tokio::spawn(async move { while writer.write_all(&[b'x'; 65536]).await.is_ok() {} });
        // The end is a reset, because the flood was not read; what was answered before it has
        // arrived.
        let mut answers = Vec::new();
        let _ = BufReader::new(reader).read_to_end(&mut answers).await;
        let answers = String::from_utf8(answers).unwrap();
        flood.await.unwrap();
        let codes: Vec<serde_json::Value> = answers
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["error"]["code"].clone()
            })
            .collect();
        assert_eq!(
            codes,
            ["bad_request", "unknown_method", "bad_request"],
            "{answers}"
        );
    }
}

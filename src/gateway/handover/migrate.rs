//! Moves idle clients from a process that drains to the owner of the service, whichever process
//! that is, through a socket beside the control socket. The clients do not notice.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::channel;
use crate::control::server;
use crate::os::descriptors;
use crate::os::unix_socket;
use crate::proxy::{Announcement, MovedClient, Workers};

/// The time between two attempts to reach the owner: no event tells when the owner has changed.
const AGAIN: Duration = Duration::from_millis(20);

/// How long a client waits for an owner. After that its connection is closed, as any server may
/// close an idle connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processes that send clients at once: those that drain, and a few that do not belong there.
const SENDERS_MAX: usize = 32;

/// What goes with a client's socket.
const PLAIN: u8 = b'm';

/// The same for a client that a proxy announced: a length follows, and so many bytes of text.
const ANNOUNCED: u8 = b'a';

/// The socket at which the owner takes clients.
pub fn place(control: &Path) -> PathBuf {
    control.with_extension("move")
}

/// Takes clients at `place` and passes them to `workers`, until `end`. Whoever sends some waits until the
/// socket is there.
pub fn take(place: &Path, workers: Arc<Workers>, end: CancellationToken) {
    let (bound, _) = server::bind_aside(place);
    let senders = Arc::new(Semaphore::new(SENDERS_MAX));
    tokio::spawn(async move {
        let bound = tokio::select! {
            () = end.cancelled() => return,
            bound = bound => bound,
        };
        let listener = match bound {
            Ok(listener) => listener,
            Err(error) => {
                return warn!(
                    "[gateway] kept connections of predecessors cannot be taken over: {error}"
                );
            }
        };
        loop {
            // The semaphore is never closed.
            let Ok(sender) = Arc::clone(&senders).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = end.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if ours(&stream) => {
                    let taking = take_from(stream, Arc::clone(&workers), end.clone());
                    tokio::spawn(async move {
                        taking.await;
                        drop(sender);
                    });
                }
                Ok(_) => {}
                // No descriptor is left for the moment.
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    });
}

fn ours(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
}

async fn take_from(mut stream: UnixStream, workers: Arc<Workers>, end: CancellationToken) {
    loop {
        // Do not stop between a client and its receipt: the client would be passed on twice.
        let received = tokio::select! {
            () = end.cancelled() => return,
            received = async {
                descriptors::room().await;
                channel::receive_byte(&stream).await
            } => received,
        };
        let Ok(Some((byte, clients))) = received else {
            return;
        };
        let announced = match byte {
            ANNOUNCED => match announcement(&mut stream).await {
                Ok(announced) => announced,
                Err(_) => return,
            },
            _ => Announcement::None,
        };
        for socket in clients {
            workers.adopt(MovedClient { socket, announced }).await;
        }
        // From now on the sender may close its copy.
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

async fn announcement(stream: &mut UnixStream) -> io::Result<Announcement> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(Announcement::from_text(&String::from_utf8_lossy(&text)))
}

/// Sends clients to the owner at `place`. Ends when the sender of `clients` is gone and all have
/// been sent.
pub async fn send(place: PathBuf, mut clients: mpsc::UnboundedReceiver<MovedClient>) {
    let mut way: Option<UnixStream> = None;
    while let Some(client) = clients.recv().await {
        let sent = tokio::time::timeout(PATIENCE, async {
            loop {
                match send_one(&place, &mut way, &client).await {
                    Ok(()) => return,
                    Err(error) => {
                        debug!("the owner takes no client for the moment: {error}");
                        way = None;
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
        if sent.await.is_err() {
            warn!(
                "[gateway] nobody takes clients over at {}; a silent connection is closed",
                place.display()
            );
        }
    }
}

fn connect(place: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::from_std(unix_socket::connect(place)?)?;
    if ours(&stream) {
        Ok(stream)
    } else {
        Err(io::Error::other("another user's process listens there"))
    }
}

async fn send_one(
    place: &Path,
    way: &mut Option<UnixStream>,
    client: &MovedClient,
) -> io::Result<()> {
    let stream = match way.take() {
        Some(stream) => stream,
        None => connect(place)?,
    };
    let stream = way.insert(stream);
    let text = client.announced.to_text();
    let kind = if text.is_empty() { PLAIN } else { ANNOUNCED };
    stream
        .async_io(Interest::WRITABLE, || {
            channel::send_with(stream, &[kind], &[client.socket.as_fd()])
        })
        .await?;
    if let (ANNOUNCED, Ok(length)) = (kind, u8::try_from(text.len())) {
        stream.write_u8(length).await?;
        stream.write_all(text.as_bytes()).await?;
    }
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(drop)
}

//! A stream of JSON lines between two processes.

use std::io::{self, Cursor};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Chain, Interest, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::os::platform;

/// The most descriptors in one message (unix(7), SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// The most time in which the last messages are written; a reader that hangs is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The sending end. A task writes the messages in order. Messages that cannot be written are lost:
/// then the other process is gone.
#[derive(Clone, Debug)]
pub struct Sender<T>(mpsc::UnboundedSender<Item<T>>);

enum Item<T> {
    Message(T),
    /// What follows is written after this.
    After(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Everything before this is written.
    Mark(oneshot::Sender<()>),
}

impl<T> Sender<T> {
    pub fn send(&self, message: T) {
        // When the other end is gone, the reading end notices it.
        let _ = self.0.send(Item::Message(message));
    }

    /// Holds back what is sent from here on until `event`.
    pub fn hold(&self, event: impl Future<Output = ()> + Send + 'static) {
        let _ = self.0.send(Item::After(Box::pin(event)));
    }

    /// Waits until everything sent so far is written, for a process that is about to end.
    pub async fn flushed(&self) {
        let (mark, written) = oneshot::channel();
        let _ = self.0.send(Item::Mark(mark));
        // The mark is dropped when the other end is gone: then nothing is left to wait for.
        let _ = timeout(LAST_WORDS, written).await;
    }
}

#[derive(Debug)]
pub struct Receiver(Lines<BufReader<Chain<Cursor<Vec<u8>>, OwnedReadHalf>>>);

impl Receiver {
    /// The next message; none when the other end is gone.
    ///
    /// # Errors
    /// When something else than a message of this protocol arrives.
    pub async fn next<T: DeserializeOwned>(&mut self) -> serde_json::Result<Option<T>> {
        match self.0.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map(Some),
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

/// Speaks over `stream`; `received` was read from it already.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn open<T: Serialize + Send + 'static>(
    stream: StdStream,
    received: Vec<u8>,
) -> io::Result<(Sender<T>, Receiver)> {
    stream.set_nonblocking(true)?;
    let (read, mut write) = UnixStream::from_std(stream)?.into_split();
    let (sender, mut items) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(item) = items.recv().await {
            match item {
                Item::Mark(mark) => drop(mark.send(())),
                Item::After(event) => event.await,
                Item::Message(message) => {
                    let Ok(line) = line(&message) else { continue };
                    if write.write_all(&line).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let read = Cursor::new(received).chain(read);
    Ok((Sender(sender), Receiver(BufReader::new(read).lines())))
}

/// A message as it is sent.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes as much as the socket takes at once, with descriptors. Returns the number of bytes.
///
/// # Errors
/// When it takes nothing.
pub fn send_with(
    stream: &impl AsRawFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    Ok(sendmsg::<()>(
        stream.as_raw_fd(),
        &[io::IoSlice::new(bytes)],
        control,
        platform::send_flags(stream),
        None,
    )?)
}

/// Reads up to `buffer.len()` bytes and the descriptors that come with them, close-on-exec.
///
/// # Errors
/// When nothing can be read.
#[allow(
    unsafe_code,
    reason = "descriptors come as bare numbers in a control message"
)]
pub fn receive_with(stream: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; DESCRIPTORS_MAX]);
    let mut slices = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        platform::receive_flags(),
    )?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these for us, and each is taken once.
            descriptors.extend(unsafe { platform::descriptors_from(raw) });
        }
    }
    Ok((message.bytes, descriptors))
}

/// The next byte and the descriptors that come with it; none when the other end is gone.
///
/// # Errors
/// When nothing can be read.
pub async fn receive_byte(stream: &UnixStream) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut byte = [0];
    let (length, descriptors) = stream
        .async_io(Interest::READABLE, || receive_with(stream, &mut byte))
        .await?;
    Ok((length == 1).then_some((byte[0], descriptors)))
}

//! A stream of JSON lines between two processes.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use crate::os::platform;

/// The most descriptors in one message (unix(7), SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// The sending end. A task writes the messages in order. Messages that cannot be written are lost:
/// then the other process is gone.
#[derive(Clone, Debug)]
pub struct Sender<T>(mpsc::UnboundedSender<Item>, PhantomData<fn(T)>);

#[derive(Debug)]
enum Item {
    Line(String),
    /// Everything before this is written.
    Mark(oneshot::Sender<()>),
}

impl<T: Serialize> Sender<T> {
    pub fn send(&self, message: &T) {
        if let Ok(text) = serde_json::to_string(message) {
            // When the other end is gone, the reading end notices it.
            let _ = self.0.send(Item::Line(text));
        }
    }

    /// Waits until everything sent so far is written, for a process that is about to end. If the
    /// reader hangs, so does this.
    pub async fn flushed(&self) {
        let (mark, written) = oneshot::channel();
        let _ = self.0.send(Item::Mark(mark));
        // The sender is dropped when the other end is gone: then nothing is left to wait for.
        let _ = written.await;
    }
}

#[derive(Debug)]
pub struct Receiver<T>(Lines<BufReader<OwnedReadHalf>>, PhantomData<fn() -> T>);

impl<T: DeserializeOwned> Receiver<T> {
    /// The next message; none when the other end is gone.
    ///
    /// # Errors
    /// When something else than a message of this protocol arrives.
    pub async fn next(&mut self) -> Result<Option<T>, String> {
        match self.0.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|error| error.to_string()),
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

/// Speaks over `stream`.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn open<Out: Serialize, In: DeserializeOwned>(
    stream: StdStream,
) -> io::Result<(Sender<Out>, Receiver<In>)> {
    stream.set_nonblocking(true)?;
    let (read, mut write) = UnixStream::from_std(stream)?.into_split();
    let (sender, mut items) = mpsc::unbounded_channel::<Item>();
    tokio::spawn(async move {
        while let Some(item) = items.recv().await {
            let mut line = match item {
                Item::Line(line) => line,
                Item::Mark(mark) => {
                    let _ = mark.send(());
                    continue;
                }
            };
            line.push('\n');
            if write.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    Ok((
        Sender(sender, PhantomData),
        Receiver(BufReader::new(read).lines(), PhantomData),
    ))
}

/// Writes `bytes` with descriptors, all at once.
///
/// # Errors
/// When the socket does not take them.
pub fn send_with(
    stream: &StdStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sent = send_raw(stream, bytes, descriptors)?;
    // The descriptors went with the first bytes.
    io::Write::write_all(&mut &*stream, &bytes[sent..])
}

/// Writes as much as the socket takes at once, with descriptors. Returns the number of bytes.
///
/// # Errors
/// When it takes nothing.
pub fn send_raw(
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

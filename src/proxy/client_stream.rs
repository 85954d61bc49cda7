//! A client's socket, TCP or unix.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Both kinds of socket have the same methods, but no trait for them.
macro_rules! with_socket {
    ($stream:expr, $socket:ident => $body:expr) => {
        match $stream {
            ClientStream::Tcp($socket) => $body,
            ClientStream::Unix($socket) => $body,
        }
    };
}

#[derive(Debug)]
pub enum ClientStream {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
}

/// A client's socket, without keeping it open: see [`ClientStream::downgrade`].
#[derive(Debug)]
pub struct WeakStream(Weak<TcpStream>, Weak<UnixStream>);

impl WeakStream {
    /// A second descriptor of the socket.
    ///
    /// # Errors
    /// When it is closed, or no descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match (self.0.upgrade(), self.1.upgrade()) {
            (Some(tcp), _) => tcp.as_fd().try_clone_to_owned(),
            (None, Some(unix)) => unix.as_fd().try_clone_to_owned(),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl ClientStream {
    /// Waits until the connection is reset: by the client, or because the client does not answer the
    /// kernel's keep-alive probes. A client that closed only its sending side is still there.
    pub fn reset(&self) -> impl Future<Output = ()> + use<> {
        let tcp = match self {
            Self::Tcp(stream) => Some(Arc::clone(stream)),
            // A unix peer that is gone is noticed at the next write.
            Self::Unix(_) => None,
        };
        async move {
            match tcp {
                // An error means that the runtime ends.
                Some(stream) => drop(stream.ready(Interest::ERROR).await),
                None => std::future::pending().await,
            }
        }
    }

    /// A reference to the socket that does not keep it open.
    pub fn downgrade(&self) -> WeakStream {
        match self {
            Self::Tcp(stream) => WeakStream(Arc::downgrade(stream), Weak::new()),
            Self::Unix(stream) => WeakStream(Weak::new(), Arc::downgrade(stream)),
        }
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let result = with_socket!(self, socket => {
                ready!(socket.poll_read_ready(cx))?;
                read_then(
                    buf,
                    |buf| socket.try_read_buf(buf),
                    |read| socket.try_io(Interest::READABLE, read),
                )
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let result = with_socket!(self, socket => {
                ready!(socket.poll_write_ready(cx))?;
                socket.try_write_vectored(bufs)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Writes what fits into the socket's buffer, without waiting.
    ///
    /// # Errors
    /// When nothing fits, or the connection is broken.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        with_socket!(self, socket => socket.try_write(bytes))
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// When the connection is closed already.
    pub fn shutdown(&self) -> io::Result<()> {
        let fd = with_socket!(self, socket => socket.as_raw_fd());
        Ok(nix::sys::socket::shutdown(
            fd,
            nix::sys::socket::Shutdown::Write,
        )?)
    }
}

/// Reads within `io`. When fewer bytes come than there is room for, the socket is empty: the runtime
/// is told that a further read would block, which saves that read. Bytes that arrive in the meantime
/// still wake the task, because their readiness event is newer.
fn read_then(
    buf: &mut ReadBuf<'_>,
    mut read: impl FnMut(&mut ReadBuf<'_>) -> io::Result<usize>,
    io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let room = buf.remaining();
    let mut came = false;
    let told = io(&mut || {
        let count = read(buf)?;
        came = true;
        if count > 0 && count < room {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    });
    if came { Ok(()) } else { told }
}

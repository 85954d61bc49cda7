//! Reading from a socket into hyper's buffers.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of a response that wait for its client.
pub const BUFFER_MAX: usize = 64 * 1024;

/// Bytes of a request that wait for its upstream, and the longest head of a response: several times
/// what servers send. A stalled upload has both buffers of its connections full.
pub const UPSTREAM_BUFFER_MAX: usize = 48 * 1024;

/// Bytes that are read in one go. hyper doubles its buffer after a read that fills it, so it stays
/// at 16 KiB; a piece that waits for its reader takes no more memory than that.
const MOST: usize = 16 * 1024 - 1;

/// Reads once. When fewer bytes come than there is room for, the socket is empty: WouldBlock tells
/// the runtime so and saves a further read. Bytes that arrive in the meantime still wake the task,
/// because their readiness event is newer.
pub fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = buf.remaining().min(MOST);
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut came = false;
        let result = stream.try_io(Interest::READABLE, || {
            let count = stream.try_read_buf(&mut (&mut *buf).limit(room))?;
            came = true;
            if count > 0 && count < room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match result {
            _ if came => return Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

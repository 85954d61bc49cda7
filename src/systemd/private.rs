//! The manager's private socket, in a form that the D-Bus library understands.
//!
//! On that socket systemd signs its messages with its well-known name, `org.freedesktop.systemd1`,
//! where the specification wants a unique one; zbus takes that for a broken message and ends the
//! connection. So the first letter of that name is made a colon on its way in, which makes it a
//! unique name of the same length.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// The header field SENDER (7) of type string, and the length of the name: no other field begins
/// like this.
const SENDER: [u8; 8] = {
    let length = (b"org.freedesktop.systemd1".len() as u32).to_ne_bytes();
    [7, 1, b's', 0, length[0], length[1], length[2], length[3]]
};

/// A connection to the private socket.
#[derive(Debug)]
pub(super) struct PrivateSocket(pub UnixStream);

impl Socket for PrivateSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.0.into_split();
        Split::new(
            Reader {
                stream: read,
                seen: 0,
            },
            Writer(write),
        )
    }
}

/// Reads, and mends the sender.
#[derive(Debug)]
pub(super) struct Reader {
    stream: OwnedReadHalf,
    /// How much of [`SENDER`] the last bytes were: a message may come in any pieces.
    seen: usize,
}

impl Reader {
    fn mend(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.seen = if self.seen == SENDER.len() {
                if *byte == b'o' {
                    *byte = b':';
                }
                0
            } else if *byte == SENDER[self.seen] {
                self.seen + 1
            } else {
                usize::from(*byte == SENDER[0])
            };
        }
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let read = self.stream.read(buffer).await?;
        self.mend(&mut buffer[..read]);
        Ok((read, Vec::new()))
    }
}

#[derive(Debug)]
pub(super) struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sender_is_mended_in_whatever_pieces_it_comes() {
        let message = [
            &[1, 7, 7, 1, b's'][..],
            &SENDER[..],
            b"org.freedesktop.systemd1\0 org.",
            &SENDER[..4],
            b"o",
        ]
        .concat();
        let expected = [
            &[1, 7, 7, 1, b's'][..],
            &SENDER[..],
            b":rg.freedesktop.systemd1\0 org.",
            &SENDER[..4],
            b"o",
        ]
        .concat();
        for size in 1..message.len() {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut reader = PrivateSocket(ours).split().take().0;
            let mut mended = message.clone();
            mended.chunks_mut(size).for_each(|piece| reader.mend(piece));
            assert_eq!(mended, expected, "pieces of {size}");
        }
    }
}

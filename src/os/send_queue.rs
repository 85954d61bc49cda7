//! How much of what was written to a socket its peer has not taken yet.
#![allow(unsafe_code, reason = "nix has no wrapper for these two calls")]

use std::os::fd::{AsFd, AsRawFd};

/// The bytes in the socket's send queue; none where the kernel does not say.
#[cfg(target_os = "linux")]
pub fn length(socket: impl AsFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, and `bytes` is one.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then(|| usize::try_from(bytes).unwrap_or(0))
}

/// The bytes in the socket's send queue; none where the kernel does not say.
#[cfg(target_os = "macos")]
pub fn length(socket: impl AsFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: SO_NWRITE writes one int, `bytes` is one, and `size` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NWRITE,
            (&raw mut bytes).cast(),
            &raw mut size,
        )
    };
    (result == 0).then(|| usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_not_read_is_in_the_queue() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(length(&ours), Some(0));
        ours.write_all(&[0; 1000]).unwrap();
        let queued = length(&ours).unwrap();
        assert!(queued >= 1000, "{queued}");
        theirs.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(length(&ours), Some(0));
    }
}

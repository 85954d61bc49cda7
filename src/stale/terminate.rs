//! A signal to one process, through a descriptor that cannot mean another one.

use std::io;

use nix::sys::signal::Signal;

use crate::os::process::{Ended, PidFd};

/// Sends a signal, and waits until the process has ended or `limit` is over. Returns whether the
/// process has ended; `end` must be its end.
///
/// # Errors
/// When the kernel does not permit the signal.
pub async fn signal_and_wait(
    process: &PidFd,
    end: &Ended,
    signal: Signal,
    limit: impl Future<Output = ()>,
) -> io::Result<bool> {
    match process.signal(signal) {
        Err(error) if !is_gone(&error) => return Err(error),
        _ => {}
    }
    Ok(tokio::select! {
        biased;
        () = end.wait() => true,
        () = limit => false,
    })
}

/// Whether a call failed because there is no such process.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

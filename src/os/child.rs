//! Children that do not outlive this process.
#![allow(unsafe_code, reason = "pre_exec runs between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

use super::platform;

/// A child in a process group of its own, so that Ctrl-C at the terminal is this process's alone, that is
/// asked to end when this process has ended without asking it, where the kernel does that.
pub fn ends_with_parent(command: &mut Command) -> &mut Command {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        platform::die_with_parent(Signal::SIGTERM)?;
        // It ended before the call.
        match nix::unistd::getppid() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::Interrupted.into()),
        }
    };
    command.process_group(0);
    // SAFETY: system calls only, which are async-signal-safe, and no allocation.
    unsafe { command.pre_exec(prepare) }
}

//! What a command's exit code says, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Done = 0,
    /// It was tried and failed. `status`: failed or degraded.
    Failed = 1,
    /// The command line is wrong, or does not say which instance is meant.
    Usage = 2,
    /// The gateway is not running or not installed.
    NotRunning = 3,
    /// It was still starting or draining when the limit ended; not a failure.
    StillBusy = 4,
    /// Refused, because it could harm something healthy.
    Refused = 5,
    /// Missing permission (EX_NOPERM of sysexits.h).
    Permission = 77,
    /// The configuration is invalid (EX_CONFIG of sysexits.h).
    Config = 78,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

//! What a command's exit code says, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// It was tried and failed. `status`: failed, degraded, throttled or in safe mode.
    Failed,
    /// The command line is wrong, or does not say which instance is meant.
    Usage,
    /// The gateway is not running or not installed.
    NotRunning,
    /// It was still starting or draining when the limit ended; not a failure.
    StillBusy,
    /// Refused, because it could harm something healthy.
    Refused,
    /// Missing permission (EX_NOPERM of sysexits.h).
    Permission,
    /// The configuration is invalid (EX_CONFIG of sysexits.h).
    Config,
    /// That of a command that was run on behalf of the user.
    Command(u8),
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::StillBusy => 4,
            Self::Refused => 5,
            Self::Permission => 77,
            Self::Config => 78,
            Self::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

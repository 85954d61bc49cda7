//! What becomes of the listeners of a service while its manager restarts it.

use std::fmt;

use crate::service::{self, Installed, ServiceManagerKind, UnitState};

/// What becomes of new connections between the end of one process and the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenersMeanwhile {
    /// The manager holds the listeners.
    Held,
    /// launchd holds them, and closes them when it loads the job anew: its property list or program changed.
    Reopened {
        /// Whether launchd may start only the program that was there before.
        is_refused: bool,
    },
    /// The property list has no Sockets, so the listeners end with the process.
    Closed,
    /// launchd cannot be asked, or the property list cannot be read.
    Unknown,
}

impl ListenersMeanwhile {
    pub async fn of(unit: &Installed, now: &UnitState) -> Self {
        if unit.manager == ServiceManagerKind::Systemd || now.main_pid == 0 {
            return Self::Held;
        }
        match service::survey_job(unit).await {
            Ok(job) if job.unreadable.is_some() => Self::Unknown,
            Ok(job) if job.sockets.is_empty() => Self::Closed,
            Ok(job) if job.is_changed || job.is_refused => Self::Reopened {
                is_refused: job.is_refused,
            },
            Ok(_) => Self::Held,
            Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for ListenersMeanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "new connections wait meanwhile",
            Self::Reopened { is_refused: true } => {
                "the program was replaced, and launchd may start only the one that it has noted, so the job is loaded anew: new connections are refused for that moment"
            }
            Self::Reopened { is_refused: false } => {
                "the job has changed, so it is loaded anew: new connections are refused for that moment"
            }
            Self::Closed => {
                "launchd does not hold the listeners (the property list has no Sockets), so new connections are refused until the next process listens"
            }
            Self::Unknown => "whether new connections wait meanwhile is not known",
        })
    }
}

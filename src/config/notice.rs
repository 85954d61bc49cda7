//! What a sidecar tells and is told: that it is ready, and that its work comes to an end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::words::words;

/// How a sidecar shows that it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// It listens on its port and answers HEAD / with any status; or it shows that it does not
    /// speak HTTP.
    #[default]
    Answers,
    /// It listens on its port.
    Tcp,
    /// It answers this path with a status below 400.
    Http(String),
    /// It sends `READY=1` to `$NOTIFY_SOCKET`.
    Notify,
}

/// How a sidecar is told to finish its work, at the beginning of a drain and of a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrainNotice {
    /// This signal is sent to its process.
    Signal(NoticeSignal),
    /// This path gets a POST request.
    Path(String),
}

words! {
    /// A signal for a notice or a restart. SIGTERM is not one of them: it is sent when the work is done.
    pub enum NoticeSignal {
        /// SIGHUP
        Hup = "HUP",
        /// SIGUSR1
        Usr1 = "USR1",
        /// SIGUSR2
        Usr2 = "USR2",
        /// SIGWINCH
        Winch = "WINCH",
    }
}

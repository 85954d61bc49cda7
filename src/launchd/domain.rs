//! Where jobs of launchd run.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LaunchdDomain {
    /// That of the machine: daemons.
    System,
    /// Agents, as long as that user is logged in at the screen.
    Gui(u32),
    /// Agents, with any login, one by ssh, too; nothing is loaded into it by itself after a boot.
    User(u32),
}

impl LaunchdDomain {
    /// All in which a process of this user may be a job.
    pub fn of_process(uid: u32) -> [Self; 3] {
        [Self::Gui(uid), Self::System, Self::User(uid)]
    }
}

impl fmt::Display for LaunchdDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Gui(uid) => write!(f, "gui/{uid}"),
            Self::User(uid) => write!(f, "user/{uid}"),
        }
    }
}

//! Who supervises this process.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::words::{Words, as_text, words};

/// Who supervises this process, and how that is known. It travels to a successor, whose own
/// environment speaks of its ancestor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorVerdict {
    pub supervisor: Supervisor,
    /// How that is known, in plain words.
    pub reason: String,
}

/// For `status`: "systemd gateway.service (SYSTEMD_EXEC_PID is this process)".
impl fmt::Display for SupervisorVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.supervisor, self.reason)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Supervisor {
    /// systemd, as the main process of a unit.
    Systemd {
        /// The unit's name, where it is known.
        unit: Option<String>,
        /// Whether it belongs to a user's manager.
        user: bool,
    },
    /// launchd, as a job.
    Launchd {
        label: String,
    },
    /// A container of a Kubernetes pod.
    Kubernetes {
        /// The container ends with this process: it is the first one, or the child of a small init.
        main: bool,
    },
    Container {
        main: bool,
    },
    /// s6-supervise.
    S6,
    /// runsv.
    Runit,
    /// dinit.
    Dinit,
    /// OpenRC.
    OpenRc {
        /// Whether supervise-daemon(8) watches over it; start-stop-daemon(8) only starts it.
        watched: bool,
    },
    /// supervisord.
    Supervisord,
    /// pm2.
    Pm2,
    /// One that only `$GATEWAY_SUPERVISOR` knows.
    Declared {
        name: String,
    },
    /// A person at a terminal, or a shell's job there.
    Terminal,
    /// Nobody: the parent is init or a plain subreaper, and there is no terminal.
    Init,
    /// A parent of which nothing is known.
    Unknown {
        /// Its name; empty where it cannot be read.
        parent: String,
    },
}

impl Supervisor {
    /// None for one that only `$GATEWAY_SUPERVISOR` knows.
    pub fn kind(&self) -> Option<SupervisorKind> {
        Some(match self {
            Self::Systemd { .. } => SupervisorKind::Systemd,
            Self::Launchd { .. } => SupervisorKind::Launchd,
            Self::Kubernetes { .. } => SupervisorKind::Kubernetes,
            Self::Container { .. } => SupervisorKind::Container,
            Self::S6 => SupervisorKind::S6,
            Self::Runit => SupervisorKind::Runit,
            Self::Dinit => SupervisorKind::Dinit,
            Self::OpenRc { .. } => SupervisorKind::OpenRc,
            Self::Supervisord => SupervisorKind::Supervisord,
            Self::Pm2 => SupervisorKind::Pm2,
            Self::Declared { .. } => return None,
            Self::Terminal => SupervisorKind::Terminal,
            Self::Init => SupervisorKind::None,
            Self::Unknown { .. } => SupervisorKind::Unknown,
        })
    }

    /// Whether somebody starts us again when we die. It says nothing of a clean exit: under systemd
    /// and launchd the unit or the plist tells. A container's answer lies outside of it (only a pod
    /// is known to restart its containers by default).
    pub fn restarts(&self) -> bool {
        match self {
            Self::Systemd { .. } | Self::Launchd { .. } | Self::S6 | Self::Runit | Self::Dinit => {
                true
            }
            Self::Supervisord | Self::Pm2 | Self::Declared { .. } => true,
            Self::Kubernetes { main } => *main,
            Self::OpenRc { watched } => *watched,
            Self::Container { .. } | Self::Terminal | Self::Init | Self::Unknown { .. } => false,
        }
    }

    /// Whether somebody follows our pid, so that it must live as long as the service does. systemd
    /// can be told of another one.
    pub fn tracks_pid(&self) -> bool {
        !matches!(self, Self::Systemd { .. } | Self::Init)
    }

    /// Whether this is more than a person or nobody: an exit would be answered by somebody, so a
    /// duplicate waits for its turn.
    pub fn is_service(&self) -> bool {
        self.restarts() || matches!(self, Self::Container { main: true } | Self::OpenRc { .. })
    }
}

impl fmt::Display for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Systemd { unit, user } => {
                f.write_str(if *user { "systemd --user" } else { "systemd" })?;
                unit.iter().try_for_each(|unit| write!(f, " {unit}"))
            }
            Self::Launchd { label } => write!(f, "launchd {label}"),
            Self::Declared { name } => f.write_str(name),
            Self::Unknown { parent } if !parent.is_empty() => write!(f, "unknown: {parent}"),
            _ => self.kind().iter().try_for_each(|kind| write!(f, "{kind}")),
        }
    }
}

words! {
    /// A supervisor that [`detect`](super::detect()) knows.
    pub enum SupervisorKind {
        /// systemd, as the main process of a unit.
        Systemd = "systemd",
        /// launchd, as a job.
        Launchd = "launchd",
        /// A container of a Kubernetes pod.
        Kubernetes = "kubernetes",
        /// Another container.
        Container = "container",
        /// s6-supervise.
        S6 = "s6",
        /// runsv.
        Runit = "runit",
        /// dinit.
        Dinit = "dinit",
        /// OpenRC.
        OpenRc = "openrc",
        /// supervisord.
        Supervisord = "supervisord",
        /// pm2.
        Pm2 = "pm2",
        /// A person at a terminal, or a shell's job there.
        Terminal = "terminal",
        /// Nobody.
        None = "none",
        /// A parent of which nothing is known.
        Unknown = "unknown",
    }
}

/// A [`SupervisorVerdict`] as `status` sends it: a text whose first word is the supervisor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorText {
    /// None for a supervisor that only `$GATEWAY_SUPERVISOR` knows.
    pub kind: Option<SupervisorKind>,
    text: String,
}

impl SupervisorText {
    pub fn is_systemd(&self) -> bool {
        self.kind == Some(SupervisorKind::Systemd)
    }
}

impl From<&SupervisorVerdict> for SupervisorText {
    fn from(verdict: &SupervisorVerdict) -> Self {
        let text = verdict.to_string();
        Self {
            kind: verdict.supervisor.kind(),
            text,
        }
    }
}

impl fmt::Display for SupervisorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SupervisorText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.split([' ', ':']).next().unwrap_or_default();
        Ok(Self {
            kind: SupervisorKind::from_word(word),
            text: text.to_owned(),
        })
    }
}

as_text!(
    SupervisorText,
    format!(
        "Who restarts the gateway when it dies, and in parentheses how that is known. The first word is {}, or the name that GATEWAY_SUPERVISOR declares.",
        SupervisorKind::alternatives().replace('|', ", ")
    ),
    "^[^ ]+ .*".to_owned(),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_travels_and_reads_well() {
        let supervisor = Supervisor::Systemd {
            unit: Some("gateway.service".into()),
            user: true,
        };
        let verdict = SupervisorVerdict {
            supervisor,
            reason: "the manager says so".into(),
        };
        let text = serde_json::to_string(&verdict).unwrap();
        assert_eq!(
            serde_json::from_str::<SupervisorVerdict>(&text).unwrap(),
            verdict
        );
        assert_eq!(
            verdict.to_string(),
            "systemd --user gateway.service (the manager says so)"
        );
        let sent = SupervisorText::from(&verdict);
        assert_eq!(sent.to_string().parse(), Ok(sent.clone()));
        assert!(sent.is_systemd());
        assert_eq!(
            "unknown: bash (x)".parse::<SupervisorText>().unwrap().kind,
            Some(SupervisorKind::Unknown)
        );
        assert_eq!("monit (x)".parse::<SupervisorText>().unwrap().kind, None);
    }

    #[test]
    fn who_follows_a_pid_and_who_relaunches() {
        use Supervisor::*;
        let systemd = Systemd {
            unit: None,
            user: false,
        };
        let unknown = Unknown {
            parent: "bash".into(),
        };
        // (supervisor, restarts, tracks the pid, is a service)
        for (supervisor, restarts, tracks, service) in [
            (systemd, true, false, true),
            (Launchd { label: "x".into() }, true, true, true),
            (Kubernetes { main: true }, true, true, true),
            (Kubernetes { main: false }, false, true, false),
            (Container { main: true }, false, true, true),
            (Container { main: false }, false, true, false),
            (S6, true, true, true),
            (OpenRc { watched: false }, false, true, true),
            (OpenRc { watched: true }, true, true, true),
            (
                Declared {
                    name: "monit".into(),
                },
                true,
                true,
                true,
            ),
            (Terminal, false, true, false),
            (Init, false, false, false),
            (unknown, false, true, false),
        ] {
            assert_eq!(
                (
                    supervisor.restarts(),
                    supervisor.tracks_pid(),
                    supervisor.is_service()
                ),
                (restarts, tracks, service),
                "{supervisor}"
            );
        }
    }
}

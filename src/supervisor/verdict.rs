//! Who supervises this process.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::words::{Words, as_text, words};

/// Who supervises this process, and how that is known. A successor gets it from its predecessor: its
/// own environment is inherited.
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
    S6,
    Runit,
    Dinit,
    OpenRc {
        /// Whether supervise-daemon(8) watches over it; start-stop-daemon(8) only starts it.
        watched: bool,
    },
    Supervisord,
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

    /// Whether it restarts the gateway after an unplanned end. A clean exit depends on the unit or
    /// the plist. The restart policy of a container is not visible from inside; only a pod restarts
    /// its containers by default.
    pub fn restarts(&self) -> bool {
        match self {
            Self::Systemd { .. } | Self::Launchd { .. } | Self::Declared { .. } => true,
            Self::S6 | Self::Runit | Self::Dinit | Self::Supervisord | Self::Pm2 => true,
            Self::Kubernetes { main } => *main,
            Self::OpenRc { watched } => *watched,
            Self::Container { .. } | Self::Terminal | Self::Init | Self::Unknown { .. } => false,
        }
    }

    /// Whether it follows our pid, so that this process must live as long as the service. systemd
    /// accepts another main process.
    pub fn tracks_pid(&self) -> bool {
        !matches!(self, Self::Systemd { .. } | Self::Init)
    }

    /// Whether it may answer an exit with a new start: then a duplicate gateway stands by instead of
    /// exiting.
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
    /// A supervisor that [`detect`](super::detect()) knows; see [`Supervisor`].
    pub enum SupervisorKind {
        Systemd = "systemd",
        Launchd = "launchd",
        Kubernetes = "kubernetes",
        Container = "container",
        S6 = "s6",
        Runit = "runit",
        Dinit = "dinit",
        OpenRc = "openrc",
        Supervisord = "supervisord",
        Pm2 = "pm2",
        Terminal = "terminal",
        None = "none",
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

    /// Whether `gatewayctl install` may have made it a service.
    pub fn is_service_manager(&self) -> bool {
        self.is_systemd() || self.kind == Some(SupervisorKind::Launchd)
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

as_text!(SupervisorText as "SupervisorText", {
    "type": "string",
    "description": format!(
        "Who restarts the gateway when it dies, and in parentheses how that is known. The first word is {}, or the name that GATEWAY_SUPERVISOR declares.",
        SupervisorKind::alternatives().replace('|', ", ")
    ),
    "pattern": "^[^ ]+ .*",
});

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
        let (unit, user, name) = (None, false, "monit".to_owned());
        let (systemd, declared) = (Systemd { unit, user }, Declared { name });
        let parent = "bash".to_owned();
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
            (declared, true, true, true),
            (Terminal, false, true, false),
            (Init, false, false, false),
            (Unknown { parent }, false, true, false),
        ] {
            assert_eq!(supervisor.restarts(), restarts, "{supervisor}");
            assert_eq!(supervisor.tracks_pid(), tracks, "{supervisor}");
            assert_eq!(supervisor.is_service(), service, "{supervisor}");
        }
    }
}

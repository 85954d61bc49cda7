//! The next commands for a cause.

use super::cause::EndCause;
use super::evidence::EndEvidence;
use crate::state::terms::RequestKindName;
use crate::text::words::Words;

/// A command that helps on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextCommand {
    /// A command of gatewayctl, and what it is good for.
    Ctl(String, &'static str),
    /// `gateway run`, as it was started by hand.
    Run,
}

impl NextCommand {
    /// As it is typed for the gateway that these flags name.
    pub fn line(&self, flags: &str) -> String {
        match self {
            Self::Ctl(command, "") => format!("gatewayctl {command}{flags}"),
            Self::Ctl(command, what_for) => format!("gatewayctl {command}{flags}   ({what_for})"),
            Self::Run => "gateway run … -- COMMAND   (as it was started)".to_owned(),
        }
    }
}

/// What helps on; nothing where all is well.
pub fn next_commands(evidence: &EndEvidence, cause: &EndCause) -> Vec<NextCommand> {
    let ctl = |command: &str, what_for| NextCommand::Ctl(command.to_owned(), what_for);
    let logs = || ctl("logs", "");
    let again = |what_for| match evidence.installed_as() {
        Some(_) => ctl("start", what_for),
        None => NextCommand::Run,
    };
    let running = evidence.is_running();
    match cause {
        EndCause::Sidecar { name, back, .. } => {
            let logs = ctl(&format!("logs --sidecar {name}"), "");
            let restart = ctl("restart", "starts it now, when it is mended");
            [logs]
                .into_iter()
                .chain((!back).then_some(restart))
                .collect()
        }
        EndCause::RequestFailed { what, sidecar, .. } if running => {
            let again = match what {
                RequestKindName::SidecarRestart => {
                    let name = sidecar.as_deref().unwrap_or("NAME");
                    ctl(&format!("sidecars restart {name}"), "when it is mended")
                }
                RequestKindName::Reload => {
                    ctl("config check", "what is wrong with the configuration")
                }
                what => ctl(what.word(), "when it is mended"),
            };
            vec![logs(), again]
        }
        EndCause::Throttled { .. } | EndCause::SafeMode { .. } => {
            vec![logs(), ctl("recover", "tries again now")]
        }
        EndCause::LastGood { .. } => {
            let apply = ctl("reload", "when it is mended");
            vec![ctl("config check", "what is wrong"), apply]
        }
        EndCause::InvalidConfiguration { .. } if !running => {
            let again = again("when it is mended");
            vec![ctl("config check", "what is wrong"), again]
        }
        EndCause::NotReady { .. } => vec![logs()],
        EndCause::NotStarted { .. } | EndCause::ByKernel { .. } if !running => {
            let anew = ctl("restart --force", "has launchd load the job anew");
            vec![ctl("doctor", "what is in its way"), logs(), anew]
        }
        _ if running => Vec::new(),
        EndCause::NeverRan | EndCause::Stopped { .. } | EndCause::Signalled { .. } => {
            vec![again("")]
        }
        _ => vec![logs(), again("when the cause is fixed")],
    }
}

/// What the server printed last that the cause is about, the oldest line first.
pub fn last_words(evidence: &EndEvidence, cause: &EndCause) -> Vec<String> {
    match cause {
        EndCause::Sidecar { name, .. } => {
            let sidecars = evidence.status.iter().flat_map(|status| &status.sidecars);
            let about = sidecars.filter(|one| one.name == *name);
            about.flat_map(|one| one.last_words.clone()).collect()
        }
        EndCause::RequestFailed {
            said: Some(said), ..
        } => {
            // What may help stands behind the last of them.
            let said = said.split("; ").next().unwrap_or(said);
            let words = said.split(" | ").skip(1);
            words.map(|line| line.trim().to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

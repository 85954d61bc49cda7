//! Chooses where the next generation lives: in this process, in a fresh process that takes over, or
//! in the process that the service manager starts next.

use std::fmt;

use crate::config::RestartMode;
use crate::supervisor::{Supervisor, SupervisorVerdict};

/// The most older processes that drain at once. Each uses the memory of its sidecars, and ends only
/// after its last client.
pub const MAX_DRAINERS: usize = 8;

/// Why there is no exit where launchd might not start the next process.
const OTHER_IDENTITY: &str = "the program was replaced, and launchd may start no other one than it has noted until the job is loaded anew";

/// Where the next generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In this process, beside the old one.
    InProcess,
    /// In a fresh process that takes over listeners and lock.
    Respawn {
        /// Whether this process stays until its successors end, because the outside knows its pid.
        waiter: bool,
    },
    /// In the process that the supervisor starts when this one has ended.
    Exit,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::Respawn { waiter: false } => "respawn",
            Self::Respawn { waiter: true } => "respawn, this process stays as a waiter",
            Self::Exit => "exit",
        })
    }
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct StrategyFacts<'a> {
    /// `[restart] mode`
    pub mode: RestartMode,
    pub verdict: &'a SupervisorVerdict,
    /// Whether the request asks for a fresh process (`--fresh`, SIGUSR2).
    pub fresh: bool,
    /// Whether the program on disk was replaced: only a fresh process runs the new one.
    pub update: bool,
    /// `$GATEWAY_NO_RESPAWN`
    pub no_respawn: bool,
    /// Whether systemd accepts messages (`$NOTIFY_SOCKET`) and the unit's NotifyAccess lets the
    /// main process name another one.
    pub can_speak_mainpid: bool,
    /// Whether the supervisor holds every listener and starts the gateway again after an exit with
    /// 0; none where it does not say that to this user.
    pub holder: Option<bool>,
    /// Whether launchd may refuse the program that is on disk now: it has noted the identity of another one
    /// when it loaded the job. It would hold the listeners and start nothing behind them.
    pub other_identity: bool,
    /// How many older processes still drain.
    pub drainers: usize,
    /// Whether a sidecar restarts by its own means, which keeps its processes.
    pub by_own_means: bool,
    /// Whether the sidecars wait to be started, as after crashes: nothing serves that could hand over.
    pub waits: bool,
    /// Whether a sidecar has sessions that stay with the copy that made them.
    pub sticky: bool,
}

impl StrategyFacts<'_> {
    fn holds(&self) -> bool {
        self.holder == Some(true)
    }
}

/// Where, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyChoice {
    pub strategy: Strategy,
    /// Why, in plain words.
    pub why: String,
    /// The oldest drainer must end first, because there are [`MAX_DRAINERS`].
    pub cut_oldest: bool,
}

/// For `status`: "respawn: systemd can be told of a fresh main process".
impl fmt::Display for StrategyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.strategy, self.why)
    }
}

/// Why what was asked cannot be done; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct StrategyRefusal {
    /// The cause and what to do, in plain words.
    pub why: String,
}

/// Chooses where the next generation lives.
///
/// # Errors
/// [`StrategyRefusal`] when a fresh process was asked for and there is no way to one that loses
/// nothing.
pub fn choose(facts: &StrategyFacts<'_>) -> Result<StrategyChoice, StrategyRefusal> {
    let wanted = if facts.waits {
        waiting(facts)?
    } else if facts.fresh || facts.update {
        fresh(facts)?
    } else {
        plain(facts)
    };
    Ok(within_bounds(facts, wanted))
}

type WantedStrategy = (Strategy, String);

/// A restart of a gateway that waits before it starts its sidecars.
fn waiting(facts: &StrategyFacts<'_>) -> Result<WantedStrategy, StrategyRefusal> {
    let what = "its sidecars wait to be started";
    if facts.fresh || facts.update {
        return Err(StrategyRefusal {
            why: format!(
                "{what}, and only a gateway that serves hands over to a fresh process: `gatewayctl restart` starts them now; or stop and start it, which takes a fresh process, too"
            ),
        });
    }
    Ok((
        Strategy::InProcess,
        format!("{what}, and a restart starts them now"),
    ))
}

/// A restart that does not need a fresh process.
fn plain(facts: &StrategyFacts<'_>) -> WantedStrategy {
    let (strategy, mode) = match facts.mode {
        RestartMode::Auto => return auto(facts),
        RestartMode::InProcess => (Ok(Strategy::InProcess), "in-process"),
        RestartMode::Respawn => (respawn(facts), "respawn"),
        RestartMode::Exit => (exit(facts), "exit"),
    };
    match strategy {
        Ok(strategy) => (strategy, format!("[restart] mode is {mode}")),
        Err(refusal) => {
            let (strategy, why) = auto(facts);
            let why = format!("{why}; [restart] mode is not followed: {refusal}");
            (strategy, why)
        }
    }
}

fn auto(facts: &StrategyFacts<'_>) -> WantedStrategy {
    let supervisor = &facts.verdict.supervisor;
    if facts.no_respawn {
        return (Strategy::InProcess, "GATEWAY_NO_RESPAWN is set".to_owned());
    }
    if facts.by_own_means {
        let why = "a sidecar restarts by its own means (`reload`), and keeps its processes";
        return (Strategy::InProcess, why.to_owned());
    }
    if facts.sticky {
        let why = "a sidecar has `sticky` sessions, and the copy that made them is reached only from its own process";
        return (Strategy::InProcess, why.to_owned());
    }
    match supervisor {
        Supervisor::Systemd { .. } if facts.can_speak_mainpid => {
            (Strategy::Respawn { waiter: false }, "systemd can be told of a fresh main process".to_owned())
        }
        Supervisor::Systemd { .. } if facts.holds() => {
            (Strategy::Exit, "systemd holds the listeners and starts the next one, and cannot be told of another main process".to_owned())
        }
        Supervisor::Systemd { .. } => (Strategy::InProcess, "systemd cannot be told of another main process".to_owned()),
        Supervisor::Launchd { .. } if facts.other_identity => (Strategy::InProcess, OTHER_IDENTITY.to_owned()),
        Supervisor::Launchd { .. } if facts.holds() => (Strategy::Exit, "launchd holds the listeners and starts the next one".to_owned()),
        Supervisor::Launchd { .. } => (Strategy::InProcess, "launchd does not hold the listeners".to_owned()),
        Supervisor::Init => (Strategy::Respawn { waiter: false }, format!("nobody follows this pid: {}", facts.verdict.reason)),
        Supervisor::Terminal => (Strategy::InProcess, "a terminal follows this pid".to_owned()),
        Supervisor::Unknown { .. } => (Strategy::InProcess, format!("this pid may be followed: {}", facts.verdict.reason)),
        supervisor => (Strategy::InProcess, format!("{supervisor} follows this pid")),
    }
}

/// A restart that only a fresh process can do.
fn fresh(facts: &StrategyFacts<'_>) -> Result<WantedStrategy, StrategyRefusal> {
    let what = if facts.update {
        "only a fresh process runs the new program"
    } else {
        "a fresh process was asked for"
    };
    // An exit gives a fresh process as well, where nothing is lost by it.
    let by_exit = facts.update && matches!(facts.verdict.supervisor, Supervisor::Launchd { .. })
        || facts.mode == RestartMode::Exit
        || facts.no_respawn
        || matches!(facts.verdict.supervisor, Supervisor::Systemd { .. })
            && !facts.can_speak_mainpid;
    let strategy = if by_exit && facts.holds() && !facts.other_identity {
        Strategy::Exit
    } else {
        respawn(facts)?
    };
    Ok((strategy, what.to_owned()))
}

fn respawn(facts: &StrategyFacts<'_>) -> Result<Strategy, StrategyRefusal> {
    if let Supervisor::Launchd { .. } = facts.verdict.supervisor {
        if facts.other_identity {
            return Err(StrategyRefusal {
                why: format!("{OTHER_IDENTITY}: gatewayctl restart --force"),
            });
        }
        let next = if facts.holds() {
            "a plain restart starts a fresh process here: gatewayctl restart"
        } else {
            "a plain restart stays in this process; for a fresh one stop and start the job: gatewayctl restart --force"
        };
        return Err(StrategyRefusal {
            why: format!(
                "launchd follows this pid and ends what it leaves behind, so there is no respawn; {next}"
            ),
        });
    }
    if facts.no_respawn {
        return Err(StrategyRefusal { why: "GATEWAY_NO_RESPAWN forbids a fresh process; unset it, or stop and start the gateway".to_owned() });
    }
    let told =
        matches!(facts.verdict.supervisor, Supervisor::Systemd { .. }) && facts.can_speak_mainpid;
    let waiter = !told && !matches!(facts.verdict.supervisor, Supervisor::Init);
    Ok(Strategy::Respawn { waiter })
}

fn exit(facts: &StrategyFacts<'_>) -> Result<Strategy, StrategyRefusal> {
    if facts.holds() && !facts.other_identity {
        return Ok(Strategy::Exit);
    }
    let supervisor = &facts.verdict.supervisor;
    let why = match (facts.holder, supervisor) {
        (None, Supervisor::Systemd { .. }) => "systemd does not tell this user whether it would hold the listeners and start the next one after an exit: dbus-daemon answers no temporary user (DynamicUser=); gatewayctl install --run-as USER chooses another".to_owned(),
        _ => format!(
            "nobody would hold the listeners and start the next one after an exit (supervisor: {supervisor})"
        ),
    };
    Err(StrategyRefusal { why })
}

/// No more than [`MAX_DRAINERS`] older processes at once.
fn within_bounds(facts: &StrategyFacts<'_>, (strategy, why): WantedStrategy) -> StrategyChoice {
    let drainers = facts.drainers;
    let full = matches!(strategy, Strategy::Respawn { .. }) && drainers >= MAX_DRAINERS;
    let cut_oldest = full && (facts.fresh || facts.update);
    let (strategy, why) = if cut_oldest {
        let cut = format!("{drainers} older processes still drain, so the oldest is cut");
        (strategy, format!("{why}; {cut}"))
    } else if full {
        let most = format!("no more than {MAX_DRAINERS} may");
        let why = format!("{drainers} older processes still drain, and {most}");
        (Strategy::InProcess, why)
    } else {
        (strategy, why)
    };
    StrategyChoice {
        strategy,
        why,
        cut_oldest,
    }
}

#[cfg(test)]
mod tests;

//! Where the next generation lives: in this process, in a fresh one that takes over, or in what the
//! service manager starts next.

use std::fmt;

use crate::config::Mode;
use crate::supervisor::{Supervisor, Verdict};

/// So many older processes may drain at once. Each holds its sidecars' memory, and none of them
/// ends before its last client.
pub const MAX_DRAINERS: usize = 8;

/// Where the next generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In this process, beside the old one.
    InProcess,
    /// In a fresh process that takes over listeners and lock.
    Respawn {
        /// This process stays until its successors end, because somebody follows its pid.
        waiter: bool,
    },
    /// In whatever the supervisor starts when this process has ended.
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
    pub mode: Mode,
    pub verdict: &'a Verdict,
    /// This restart asks for a fresh process (`--fresh`, SIGUSR2).
    pub fresh: bool,
    /// The program on disk was replaced: only a fresh process runs the new one.
    pub update: bool,
    /// `$GATEWAY_NO_RESPAWN`
    pub no_respawn: bool,
    /// systemd listens to us (`$NOTIFY_SOCKET`) and the unit's NotifyAccess lets the main process
    /// name another one.
    pub can_speak_mainpid: bool,
    /// The supervisor holds every listener and starts us again after an exit with 0.
    pub holder: bool,
    /// How many older processes still drain.
    pub drainers: usize,
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
/// [`StrategyRefusal`] when a fresh process was asked for and there is no way to one that loses nothing.
pub fn choose(facts: &StrategyFacts<'_>) -> Result<StrategyChoice, StrategyRefusal> {
    let wanted = if facts.fresh || facts.update {
        fresh(facts)?
    } else {
        plain(facts)
    };
    Ok(within_bounds(facts, wanted))
}

type WantedStrategy = (Strategy, String);

/// A restart that does not need a fresh process.
fn plain(facts: &StrategyFacts<'_>) -> WantedStrategy {
    let of_mode = match facts.mode {
        Mode::Auto => return auto(facts),
        Mode::InProcess => {
            return (
                Strategy::InProcess,
                "[restart] mode is in-process".to_owned(),
            );
        }
        Mode::Respawn => {
            respawn(facts).map(|strategy| (strategy, "[restart] mode is respawn".to_owned()))
        }
        Mode::Exit => exit(facts).map(|strategy| (strategy, "[restart] mode is exit".to_owned())),
    };
    of_mode.unwrap_or_else(|refusal| {
        let (strategy, why) = auto(facts);
        (
            strategy,
            format!("{why}; [restart] mode is not followed: {refusal}"),
        )
    })
}

fn auto(facts: &StrategyFacts<'_>) -> WantedStrategy {
    let supervisor = &facts.verdict.supervisor;
    if facts.no_respawn {
        return (Strategy::InProcess, "GATEWAY_NO_RESPAWN is set".to_owned());
    }
    match supervisor {
        Supervisor::Systemd { .. } if facts.can_speak_mainpid => {
            (Strategy::Respawn { waiter: false }, "systemd can be told of a fresh main process".to_owned())
        }
        Supervisor::Systemd { .. } if facts.holder => {
            (Strategy::Exit, "systemd holds the listeners and starts the next one, and cannot be told of another main process".to_owned())
        }
        Supervisor::Systemd { .. } => (Strategy::InProcess, "systemd cannot be told of another main process".to_owned()),
        Supervisor::Launchd { .. } if facts.holder => (Strategy::Exit, "launchd holds the listeners and starts the next one".to_owned()),
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
        || facts.mode == Mode::Exit
        || facts.no_respawn
        || matches!(facts.verdict.supervisor, Supervisor::Systemd { .. })
            && !facts.can_speak_mainpid;
    let strategy = if by_exit && facts.holder {
        Strategy::Exit
    } else {
        respawn(facts)?
    };
    Ok((strategy, what.to_owned()))
}

fn respawn(facts: &StrategyFacts<'_>) -> Result<Strategy, StrategyRefusal> {
    if let Supervisor::Launchd { .. } = facts.verdict.supervisor {
        let next = if facts.holder {
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
    if facts.holder {
        return Ok(Strategy::Exit);
    }
    let supervisor = &facts.verdict.supervisor;
    Err(StrategyRefusal {
        why: format!(
            "nobody would hold the listeners and start the next one after an exit (supervisor: {supervisor})"
        ),
    })
}

/// No more than [`MAX_DRAINERS`] older processes at once.
fn within_bounds(facts: &StrategyFacts<'_>, (strategy, why): WantedStrategy) -> StrategyChoice {
    let full = matches!(strategy, Strategy::Respawn { .. }) && facts.drainers >= MAX_DRAINERS;
    let drainers = facts.drainers;
    match full {
        false => StrategyChoice {
            strategy,
            why,
            cut_oldest: false,
        },
        true if facts.fresh || facts.update => StrategyChoice {
            strategy,
            why: format!("{why}; {drainers} older processes still drain, so the oldest is cut"),
            cut_oldest: true,
        },
        true => {
            let why = format!(
                "{drainers} older processes still drain, and no more than {MAX_DRAINERS} may"
            );
            StrategyChoice {
                strategy: Strategy::InProcess,
                why,
                cut_oldest: false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_PROCESS: Strategy = Strategy::InProcess;
    const RESPAWN: Strategy = Strategy::Respawn { waiter: false };
    const WAITER: Strategy = Strategy::Respawn { waiter: true };

    fn verdict(supervisor: Supervisor) -> Verdict {
        Verdict {
            supervisor,
            reason: "it looks so".into(),
        }
    }

    fn facts(verdict: &Verdict) -> StrategyFacts<'_> {
        StrategyFacts {
            mode: Mode::Auto,
            verdict,
            fresh: false,
            update: false,
            no_respawn: false,
            can_speak_mainpid: false,
            holder: false,
            drainers: 0,
        }
    }

    fn systemd() -> Verdict {
        verdict(Supervisor::Systemd {
            unit: None,
            user: false,
        })
    }

    fn launchd() -> Verdict {
        verdict(Supervisor::Launchd { label: "l".into() })
    }

    fn strategy(facts: StrategyFacts<'_>) -> Option<Strategy> {
        choose(&facts).ok().map(|choice| choice.strategy)
    }

    #[test]
    fn auto_and_a_fresh_process_by_supervisor() {
        use Supervisor::*;
        let followed = [
            Kubernetes { main: true },
            Container { main: true },
            Container { main: false },
            S6,
            Runit,
            Dinit,
            OpenRc { watched: true },
            OpenRc { watched: false },
            Supervisord,
            Pm2,
            Declared {
                name: "monit".into(),
            },
            Terminal,
            Unknown {
                parent: "bash".into(),
            },
        ];
        for supervisor in followed {
            let verdict = verdict(supervisor);
            let facts = facts(&verdict);
            assert_eq!(strategy(facts), Some(IN_PROCESS), "{verdict}");
            assert_eq!(
                strategy(StrategyFacts {
                    fresh: true,
                    ..facts
                }),
                Some(WAITER),
                "{verdict}"
            );
            assert_eq!(
                strategy(StrategyFacts {
                    update: true,
                    ..facts
                }),
                Some(WAITER),
                "{verdict}"
            );
            assert_eq!(
                strategy(StrategyFacts {
                    mode: Mode::Respawn,
                    ..facts
                }),
                Some(WAITER),
                "{verdict}"
            );
        }
        let nobody = verdict(Init);
        assert_eq!(strategy(facts(&nobody)), Some(RESPAWN));
        assert_eq!(
            strategy(StrategyFacts {
                update: true,
                ..facts(&nobody)
            }),
            Some(RESPAWN)
        );
    }

    #[test]
    fn systemd_is_told_of_a_fresh_process_or_starts_it() {
        let verdict = systemd();
        // (told, holder) -> (plain, fresh, update)
        for (told, holder, plain, fresh) in [
            (true, true, RESPAWN, RESPAWN),
            (true, false, RESPAWN, RESPAWN),
            (false, true, Strategy::Exit, Strategy::Exit),
            (false, false, IN_PROCESS, WAITER),
        ] {
            let facts = StrategyFacts {
                can_speak_mainpid: told,
                holder,
                ..facts(&verdict)
            };
            assert_eq!(strategy(facts), Some(plain), "{told} {holder}");
            assert_eq!(
                strategy(StrategyFacts {
                    fresh: true,
                    ..facts
                }),
                Some(fresh),
                "{told} {holder}"
            );
            assert_eq!(
                strategy(StrategyFacts {
                    update: true,
                    ..facts
                }),
                Some(fresh),
                "{told} {holder}"
            );
        }
    }

    #[test]
    fn launchd_starts_the_next_one_or_stays_in_process() {
        let verdict = launchd();
        let held = StrategyFacts {
            holder: true,
            ..facts(&verdict)
        };
        assert_eq!(strategy(held), Some(Strategy::Exit));
        assert_eq!(
            strategy(StrategyFacts {
                update: true,
                ..held
            }),
            Some(Strategy::Exit)
        );
        assert_eq!(strategy(facts(&verdict)), Some(IN_PROCESS));
        let refused = choose(&StrategyFacts {
            fresh: true,
            ..held
        })
        .unwrap_err();
        assert!(
            refused.why.contains("launchd")
                && refused
                    .why
                    .contains("a plain restart starts a fresh process"),
            "{refused}"
        );
        assert!(
            choose(&StrategyFacts {
                fresh: true,
                ..facts(&verdict)
            })
            .is_err()
        );
        assert!(
            choose(&StrategyFacts {
                update: true,
                ..facts(&verdict)
            })
            .is_err()
        );
    }

    #[test]
    fn the_mode_overrules_where_nothing_is_lost_by_it() {
        let systemd = systemd();
        let told = StrategyFacts {
            can_speak_mainpid: true,
            holder: true,
            ..facts(&systemd)
        };
        assert_eq!(
            strategy(StrategyFacts {
                mode: Mode::InProcess,
                ..told
            }),
            Some(IN_PROCESS)
        );
        assert_eq!(
            strategy(StrategyFacts {
                mode: Mode::Exit,
                ..told
            }),
            Some(Strategy::Exit)
        );
        assert_eq!(
            strategy(StrategyFacts {
                mode: Mode::Exit,
                fresh: true,
                ..told
            }),
            Some(Strategy::Exit)
        );
        assert_eq!(
            strategy(StrategyFacts {
                mode: Mode::InProcess,
                fresh: true,
                ..told
            }),
            Some(RESPAWN),
            "one restart may ask for it"
        );

        let nobody = verdict(Supervisor::Init);
        let choice = choose(&StrategyFacts {
            mode: Mode::Exit,
            ..facts(&nobody)
        })
        .unwrap();
        assert_eq!(choice.strategy, RESPAWN);
        assert!(
            choice
                .why
                .contains("mode is not followed: nobody would hold the listeners"),
            "{choice}"
        );
        let launchd = launchd();
        let choice = choose(&StrategyFacts {
            mode: Mode::Respawn,
            holder: true,
            ..facts(&launchd)
        })
        .unwrap();
        assert_eq!(choice.strategy, Strategy::Exit, "{choice}");
    }

    #[test]
    fn no_respawn_stays_in_process_and_refuses_what_it_cannot_give() {
        let nobody = verdict(Supervisor::Init);
        let forbidden = StrategyFacts {
            no_respawn: true,
            ..facts(&nobody)
        };
        assert_eq!(strategy(forbidden), Some(IN_PROCESS));
        assert_eq!(
            strategy(StrategyFacts {
                mode: Mode::Respawn,
                ..forbidden
            }),
            Some(IN_PROCESS)
        );
        for refused in [
            StrategyFacts {
                fresh: true,
                ..forbidden
            },
            StrategyFacts {
                update: true,
                ..forbidden
            },
        ] {
            assert!(
                choose(&refused)
                    .unwrap_err()
                    .why
                    .contains("GATEWAY_NO_RESPAWN")
            );
        }
        let verdict = systemd();
        let held = StrategyFacts {
            no_respawn: true,
            holder: true,
            can_speak_mainpid: true,
            ..facts(&verdict)
        };
        assert_eq!(strategy(held), Some(IN_PROCESS));
        assert_eq!(
            strategy(StrategyFacts {
                update: true,
                ..held
            }),
            Some(Strategy::Exit),
            "the supervisor starts the new program"
        );
    }

    #[test]
    fn no_more_than_eight_processes_drain() {
        let nobody = verdict(Supervisor::Init);
        let full = StrategyFacts {
            drainers: MAX_DRAINERS,
            ..facts(&nobody)
        };
        let choice = choose(&full).unwrap();
        assert_eq!(
            (choice.strategy, choice.cut_oldest),
            (IN_PROCESS, false),
            "{choice}"
        );
        assert!(
            choice.why.contains("8 older processes still drain"),
            "{choice}"
        );
        let choice = choose(&StrategyFacts {
            fresh: true,
            ..full
        })
        .unwrap();
        assert_eq!(
            (choice.strategy, choice.cut_oldest),
            (RESPAWN, true),
            "{choice}"
        );
        assert!(choice.why.contains("the oldest is cut"), "{choice}");
        assert_eq!(
            strategy(StrategyFacts {
                drainers: MAX_DRAINERS - 1,
                ..facts(&nobody)
            }),
            Some(RESPAWN)
        );
        let held = launchd();
        assert_eq!(
            strategy(StrategyFacts {
                holder: true,
                drainers: MAX_DRAINERS,
                ..facts(&held)
            }),
            Some(Strategy::Exit)
        );
    }
}

use super::*;

const IN_PROCESS: Strategy = Strategy::InProcess;
const RESPAWN: Strategy = Strategy::Respawn { waiter: false };
const WAITER: Strategy = Strategy::Respawn { waiter: true };

fn verdict(supervisor: Supervisor) -> SupervisorVerdict {
    SupervisorVerdict {
        supervisor,
        reason: "it looks so".into(),
    }
}

fn facts(verdict: &SupervisorVerdict) -> StrategyFacts<'_> {
    StrategyFacts {
        mode: RestartMode::Auto,
        verdict,
        fresh: false,
        update: false,
        no_respawn: false,
        can_speak_mainpid: false,
        holder: false,
        drainers: 0,
    }
}

fn systemd() -> SupervisorVerdict {
    verdict(Supervisor::Systemd {
        unit: None,
        user: false,
    })
}

fn launchd() -> SupervisorVerdict {
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
                mode: RestartMode::Respawn,
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
            mode: RestartMode::InProcess,
            ..told
        }),
        Some(IN_PROCESS)
    );
    assert_eq!(
        strategy(StrategyFacts {
            mode: RestartMode::Exit,
            ..told
        }),
        Some(Strategy::Exit)
    );
    assert_eq!(
        strategy(StrategyFacts {
            mode: RestartMode::Exit,
            fresh: true,
            ..told
        }),
        Some(Strategy::Exit)
    );
    assert_eq!(
        strategy(StrategyFacts {
            mode: RestartMode::InProcess,
            fresh: true,
            ..told
        }),
        Some(RESPAWN),
        "one restart may ask for it"
    );

    let nobody = verdict(Supervisor::Init);
    let choice = choose(&StrategyFacts {
        mode: RestartMode::Exit,
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
        mode: RestartMode::Respawn,
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
            mode: RestartMode::Respawn,
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

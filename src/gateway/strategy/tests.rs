use super::*;

const IN_PROCESS: Strategy = Strategy::InProcess;
const RESPAWN: Strategy = Strategy::Respawn { waiter: false };
const WAITER: Strategy = Strategy::Respawn { waiter: true };
const EXIT: Strategy = Strategy::Exit;

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
        holder: Some(false),
        other_identity: false,
        drainers: 0,
        by_own_means: false,
        waits: false,
        sticky: false,
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

fn held<'a>(verdict: &'a SupervisorVerdict) -> StrategyFacts<'a> {
    StrategyFacts {
        holder: Some(true),
        ..facts(verdict)
    }
}

fn fresh(facts: StrategyFacts<'_>) -> StrategyFacts<'_> {
    StrategyFacts {
        fresh: true,
        ..facts
    }
}

fn update(facts: StrategyFacts<'_>) -> StrategyFacts<'_> {
    StrategyFacts {
        update: true,
        ..facts
    }
}

fn with_mode(mode: RestartMode, facts: StrategyFacts<'_>) -> StrategyFacts<'_> {
    StrategyFacts { mode, ..facts }
}

fn strategy(facts: StrategyFacts<'_>) -> Option<Strategy> {
    choose(&facts).ok().map(|choice| choice.strategy)
}

fn refusal(facts: StrategyFacts<'_>) -> String {
    choose(&facts).unwrap_err().why
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
        let plain = facts(&verdict);
        let respawn = with_mode(RestartMode::Respawn, plain);
        assert_eq!(strategy(plain), Some(IN_PROCESS), "{verdict}");
        assert_eq!(strategy(fresh(plain)), Some(WAITER), "{verdict}");
        assert_eq!(strategy(update(plain)), Some(WAITER), "{verdict}");
        assert_eq!(strategy(respawn), Some(WAITER), "{verdict}");
    }
    let nobody = verdict(Init);
    assert_eq!(strategy(facts(&nobody)), Some(RESPAWN));
    assert_eq!(strategy(update(facts(&nobody))), Some(RESPAWN));
}

#[test]
fn systemd_is_told_of_a_fresh_process_or_starts_it() {
    let verdict = systemd();
    for (told, holder, plain, new) in [
        (true, true, RESPAWN, RESPAWN),
        (true, false, RESPAWN, RESPAWN),
        (false, true, EXIT, EXIT),
        (false, false, IN_PROCESS, WAITER),
    ] {
        let facts = StrategyFacts {
            can_speak_mainpid: told,
            holder: Some(holder),
            ..facts(&verdict)
        };
        assert_eq!(strategy(facts), Some(plain), "{told} {holder}");
        assert_eq!(strategy(fresh(facts)), Some(new), "{told} {holder}");
        assert_eq!(strategy(update(facts)), Some(new), "{told} {holder}");
    }
}

#[test]
fn launchd_starts_the_next_one_or_stays_in_process() {
    let verdict = launchd();
    let (alone, held) = (facts(&verdict), held(&verdict));
    assert_eq!(strategy(held), Some(EXIT));
    assert_eq!(strategy(update(held)), Some(EXIT));
    assert_eq!(strategy(alone), Some(IN_PROCESS));
    let why = refusal(fresh(held));
    assert!(
        why.contains("launchd") && why.contains("a plain restart starts a fresh process"),
        "{why}"
    );
    assert!(choose(&fresh(alone)).is_err());
    assert!(choose(&update(alone)).is_err());
}

#[test]
fn the_mode_overrules_where_nothing_is_lost_by_it() {
    let systemd = systemd();
    let told = StrategyFacts {
        can_speak_mainpid: true,
        ..held(&systemd)
    };
    let exit = with_mode(RestartMode::Exit, told);
    let in_process = with_mode(RestartMode::InProcess, told);
    assert_eq!(strategy(in_process), Some(IN_PROCESS));
    assert_eq!(strategy(exit), Some(EXIT));
    assert_eq!(strategy(fresh(exit)), Some(EXIT));
    assert_eq!(
        strategy(fresh(in_process)),
        Some(RESPAWN),
        "one restart may ask for it"
    );

    let nobody = verdict(Supervisor::Init);
    let choice = choose(&with_mode(RestartMode::Exit, facts(&nobody))).unwrap();
    assert_eq!(choice.strategy, RESPAWN);
    assert!(
        choice
            .why
            .contains("mode is not followed: nobody would hold the listeners"),
        "{choice}"
    );
    let silent = StrategyFacts {
        holder: None,
        ..exit
    };
    let choice = choose(&silent).unwrap();
    assert_eq!(choice.strategy, RESPAWN);
    assert!(choice.why.contains("--run-as USER"), "{choice}");
    let launchd = launchd();
    let respawn = with_mode(RestartMode::Respawn, held(&launchd));
    assert_eq!(strategy(respawn), Some(EXIT));
}

#[test]
fn no_respawn_stays_in_process_and_refuses_what_it_cannot_give() {
    let nobody = verdict(Supervisor::Init);
    let forbidden = StrategyFacts {
        no_respawn: true,
        ..facts(&nobody)
    };
    let respawn = with_mode(RestartMode::Respawn, forbidden);
    assert_eq!(strategy(forbidden), Some(IN_PROCESS));
    assert_eq!(strategy(respawn), Some(IN_PROCESS));
    for refused in [fresh(forbidden), update(forbidden)] {
        assert!(refusal(refused).contains("GATEWAY_NO_RESPAWN"));
    }
    let verdict = systemd();
    let held = StrategyFacts {
        no_respawn: true,
        can_speak_mainpid: true,
        ..held(&verdict)
    };
    assert_eq!(strategy(held), Some(IN_PROCESS));
    assert_eq!(
        strategy(update(held)),
        Some(EXIT),
        "the supervisor starts the new program"
    );
}

#[test]
fn no_more_than_eight_processes_drain() {
    let drained = |drainers, facts| StrategyFacts { drainers, ..facts };
    let nobody = verdict(Supervisor::Init);
    let full = drained(MAX_DRAINERS, facts(&nobody));
    let choice = choose(&full).unwrap();
    let got = (choice.strategy, choice.cut_oldest);
    assert_eq!(got, (IN_PROCESS, false), "{choice}");
    assert!(
        choice.why.contains("8 older processes still drain"),
        "{choice}"
    );
    let choice = choose(&fresh(full)).unwrap();
    let got = (choice.strategy, choice.cut_oldest);
    assert_eq!(got, (RESPAWN, true), "{choice}");
    assert!(choice.why.contains("the oldest is cut"), "{choice}");
    let one_less = drained(MAX_DRAINERS - 1, facts(&nobody));
    assert_eq!(strategy(one_less), Some(RESPAWN));
    let launchd = launchd();
    let by_exit = drained(MAX_DRAINERS, held(&launchd));
    assert_eq!(strategy(by_exit), Some(EXIT));
}

#[test]
fn a_sidecar_with_its_own_restart_or_sessions_keeps_the_process_unless_a_fresh_one_is_wanted() {
    let systemd = systemd();
    let spoken = StrategyFacts {
        can_speak_mainpid: true,
        ..facts(&systemd)
    };
    let by_own_means = StrategyFacts {
        by_own_means: true,
        ..spoken
    };
    let sticky = StrategyFacts {
        sticky: true,
        ..spoken
    };
    for kept in [by_own_means, sticky] {
        assert_eq!(strategy(kept), Some(IN_PROCESS));
        assert_eq!(strategy(fresh(kept)), Some(RESPAWN));
        assert_eq!(strategy(update(kept)), Some(RESPAWN));
        let respawn = with_mode(RestartMode::Respawn, kept);
        assert_eq!(strategy(respawn), Some(RESPAWN));
    }
}

#[test]
fn a_throttled_gateway_starts_its_sidecars_in_its_own_process_and_says_so() {
    let verdict = systemd();
    let waits = StrategyFacts {
        can_speak_mainpid: true,
        waits: true,
        ..facts(&verdict)
    };
    let choice = choose(&waits).unwrap();
    assert_eq!(
        choice.to_string(),
        "in-process: its sidecars wait to be started, and a restart starts them now"
    );
    for asked in [fresh(waits), update(waits)] {
        assert!(refusal(asked).contains("`gatewayctl restart` starts them now"));
    }
}

#[test]
fn launchd_is_not_trusted_to_start_a_program_that_it_has_not_noted() {
    let launchd = launchd();
    let replaced = || StrategyFacts {
        other_identity: true,
        ..held(&launchd)
    };
    assert_eq!(strategy(held(&launchd)), Some(EXIT));
    assert_eq!(strategy(replaced()), Some(IN_PROCESS));
    assert_eq!(
        strategy(with_mode(RestartMode::Exit, replaced())),
        Some(IN_PROCESS)
    );
    for asked in [fresh(replaced()), update(replaced())] {
        let refused = choose(&asked).unwrap_err();
        assert!(
            refused.why.contains("gatewayctl restart --force"),
            "{refused}"
        );
    }
}

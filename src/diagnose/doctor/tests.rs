//! The checks without a machine.

use super::finding::{Check, Fix, Problem, advice};
use super::*;
use crate::control::protocol::{SidecarStateName, SidecarStatus, Stage};

#[test]
fn every_check_has_a_unique_code_full_texts_and_a_section_of_the_manual() {
    let page = manual::page();
    let mut codes: Vec<&str> = checks::all().map(|check| check.code).collect();
    for check in checks::all() {
        let Check {
            code,
            title,
            why,
            cure,
            ..
        } = check;
        let allowed = |c: char| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit();
        assert!(!code.is_empty() && code.chars().all(allowed), "{code}");
        let section = format!(".SS {}\n", code.replace('-', "\\-"));
        assert!(page.contains(&section), "{code}");
        let sentences = why.ends_with('.') && cure.ends_with('.');
        assert!(
            sentences && !title.ends_with('.') && !title.is_empty(),
            "{code}"
        );
        assert_eq!(check.fixable, cure.starts_with("With --fix: "), "{code}");
    }
    let number = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), number);
}

fn found(facts: &DoctorFacts) -> Vec<&'static str> {
    judge(facts)
        .iter()
        .map(|finding| finding.check.code)
        .collect()
}

#[test]
fn no_facts_give_no_findings() {
    let found = found(&DoctorFacts::default());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn findings_that_no_box_can_produce() {
    let status = crate::control::protocol::Status {
        version: "99.0.0".into(),
        ..crate::control::fake_gateway::status()
    };
    let other_version = DoctorFacts {
        status: Some(status),
        ..DoctorFacts::default()
    };
    assert_eq!(found(&other_version), ["program-version"]);
    let mut died = crate::control::fake_gateway::status();
    died.stage = Stage::Degraded;
    died.version = env!("CARGO_PKG_VERSION").into();
    died.sidecars = vec![SidecarStatus {
        name: "main".into(),
        state: SidecarStateName::Ready,
        cause: None,
        pid: 805,
        port: 1,
        exposed: Vec::new(),
        generation: 1,
        since: None,
        deaths: 0,
        cpu_ms: None,
        restarts: 6,
        last_death: Some("it was ended by SIGKILL".into()),
        last_death_at: None,
        last_words: vec![],
        failing: true,
        refused_copies: 0,
        memory_bytes: None,
        command: String::new(),
    }];
    let died = DoctorFacts {
        status: Some(died),
        ..DoctorFacts::default()
    };
    assert_eq!(found(&died), ["sidecar-failing"], "it is up");
    let said = judge(&died).remove(0).problem.message;
    assert_eq!(said, "main was ended by SIGKILL");
    let mut no_watches = DoctorFacts::default();
    no_watches.machine.inotify = Some("nothing can be watched: EMFILE".into());
    assert_eq!(found(&no_watches), ["inotify-limit"]);
}

#[test]
fn only_errors_and_warnings_fail_and_only_what_is_gone_is_fixed() {
    let found = |code: &str, fixable: bool| {
        let remedy = if fixable {
            Remedy::Fix(Fix::DaemonReload, "x".into())
        } else {
            advice("x")
        };
        Finding {
            check: checks::all().find(|check| check.code == code).unwrap(),
            problem: Problem::at("/x", "it is so", remedy).unwrap(),
            fix: FixState::Open,
        }
    };
    assert!(is_healthy(&[found("unit-drop-in", false)]), "a note");
    let mut findings = vec![
        found("unit-reload-needed", true),
        found("unit-not-enabled", true),
        found("unit-type", false),
    ];
    let now = vec![
        found("unit-not-enabled", true),
        found("unit-type", false),
        found("unit-watchdog", false),
    ];
    update(&mut findings, now);
    let states = findings.iter().map(|one| {
        let failed = matches!(one.fix, FixState::Failed(_));
        (one.check.code, one.is_fixed(), failed)
    });
    assert_eq!(
        states.collect::<Vec<_>>(),
        [
            ("unit-type", false, false),
            ("unit-reload-needed", true, false),
            ("unit-not-enabled", false, true),
            ("unit-watchdog", false, false)
        ]
    );
    assert!(!is_healthy(&findings));
}

//! The checks without a machine.

use super::facts::{DoctorFacts, MachineFacts};
use super::finding::{Fix, Problem, advice};
use super::*;

#[test]
fn every_check_has_a_unique_code_full_texts_and_a_section_of_the_manual() {
    let page = manual::page();
    let mut codes: Vec<&str> = checks::all().map(|check| check.code).collect();
    for check in checks::all() {
        assert!(
            check
                .code
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit()),
            "{}",
            check.code
        );
        assert!(
            page.contains(&format!(".SS {}\n", check.code.replace('-', "\\-"))),
            "{}",
            check.code
        );
        assert!(
            check.why.ends_with('.') && check.cure.ends_with('.') && !check.title.ends_with('.'),
            "{}",
            check.code
        );
        assert_eq!(
            check.fixable,
            check.cure.starts_with("With --fix: "),
            "{}",
            check.code
        );
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
    assert_eq!(
        found(&DoctorFacts {
            status: Some(status),
            ..DoctorFacts::default()
        }),
        ["program-version"]
    );
    let machine = MachineFacts {
        inotify: Some("nothing can be watched: EMFILE".into()),
        ..MachineFacts::default()
    };
    assert_eq!(
        found(&DoctorFacts {
            machine,
            ..DoctorFacts::default()
        }),
        ["inotify-limit"]
    );
}

#[test]
fn only_errors_and_warnings_fail_and_only_what_is_gone_is_fixed() {
    let of = |code: &str| checks::all().find(|check| check.code == code).unwrap();
    let found = |code: &str, fixable: bool| Finding {
        check: of(code),
        problem: Problem::at(
            "/x",
            "it is so",
            if fixable {
                Remedy::Fix(Fix::DaemonReload, "x".into())
            } else {
                advice("x")
            },
        )
        .unwrap(),
        fix: FixState::Open,
    };
    assert!(is_healthy(&[found("unit-drop-in", false)]), "a note");
    let mut findings = vec![
        found("unit-reload-needed", true),
        found("unit-not-enabled", true),
        found("unit-type", false),
    ];
    update(
        &mut findings,
        vec![
            found("unit-not-enabled", true),
            found("unit-type", false),
            found("unit-watchdog", false),
        ],
    );
    let told: Vec<(&str, bool, bool)> = findings
        .iter()
        .map(|one| {
            let failed = matches!(one.fix, FixState::Failed(_));
            (one.check.code, one.is_fixed(), failed)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("unit-type", false, false),
            ("unit-reload-needed", true, false),
            ("unit-not-enabled", false, true),
            ("unit-watchdog", false, false)
        ]
    );
    assert!(!is_healthy(&findings));
}

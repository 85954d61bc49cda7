//! The checks without a machine.

use super::*;

#[test]
fn codes_are_unique_and_in_kebab_case_and_each_has_its_section() {
    let page = page::page();
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
            check.why.ends_with('.') && check.cure.ends_with('.') && !check.what.ends_with('.'),
            "{}",
            check.code
        );
        assert_eq!(
            check.mends,
            check.cure.starts_with("Mended: "),
            "{}",
            check.code
        );
    }
    let number = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), number);
}

#[test]
fn nothing_known_is_nothing_found() {
    let found: Vec<&str> = judge(&Facts::default())
        .iter()
        .map(|finding| finding.check.code)
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

fn found(facts: &Facts) -> Vec<&'static str> {
    judge(facts)
        .iter()
        .map(|finding| finding.check.code)
        .collect()
}

#[test]
fn what_no_box_can_produce() {
    let live = crate::control::protocol::Status {
        version: "99.0.0".into(),
        ..crate::control::fake_gateway::status()
    };
    assert_eq!(
        found(&Facts {
            live: Some(live),
            ..Facts::default()
        }),
        ["program-version"]
    );
    let machine = facts::Machine {
        inotify: Some("nothing can be watched: EMFILE".into()),
        ..facts::Machine::default()
    };
    assert_eq!(
        found(&Facts {
            machine,
            ..Facts::default()
        }),
        ["inotify-limit"]
    );
}

#[test]
fn only_what_matters_fails_and_only_what_is_gone_is_mended() {
    let of = |code: &str| checks::all().find(|check| check.code == code).unwrap();
    let found = |code: &str, mend: bool| Finding {
        check: of(code),
        seen: Seen::at(
            "/x",
            "it is so",
            if mend {
                Remedy::Mend(finding::Mend::DaemonReload, "x".into())
            } else {
                finding::advice("x")
            },
        )
        .unwrap(),
        mended: false,
        failed: None,
    };
    assert_eq!(exit(&[found("unit-drop-in", false)]), Exit::Done, "a note");
    let mut findings = vec![
        found("unit-reload-needed", true),
        found("unit-not-enabled", true),
        found("unit-type", false),
    ];
    compare(
        &mut findings,
        vec![
            found("unit-not-enabled", true),
            found("unit-type", false),
            found("unit-watchdog", false),
        ],
    );
    let told: Vec<(&str, bool, bool)> = findings
        .iter()
        .map(|one| (one.check.code, one.mended, one.failed.is_some()))
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
    assert_eq!(exit(&findings), Exit::Failed);
}

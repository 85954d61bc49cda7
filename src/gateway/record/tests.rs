use std::time::Duration;

use super::dead_lives::how_it_ended;
use super::*;
use crate::config::{Env, Overrides, Throttle, load};
use crate::gateway::handover::PredecessorEnd;
use crate::gateway::recovery::{ConfigOrigin, Recovery};
use crate::state::history::Recorded;
use crate::state::terms::{RequestOutcome, RungName};

fn record(dir: &Path, pid: u32) -> LifeRecord {
    let redactor = Redactor::default();
    redactor.learn_env("API_TOKEN", "CANARY-1");
    LifeRecord {
        pid,
        ..LifeRecord::new(dir, "a", &redactor)
    }
}

fn end_of(pid: u32) -> PredecessorEnd {
    PredecessorEnd { pid, status: None }
}

fn normal() -> ShownRecovery {
    ShownRecovery {
        rung: RungName::Normal,
        reason: None,
        left_ms: None,
    }
}

fn line(pid: u32, boot_id: &str, entry: HistoryEntry) -> Recorded {
    Recorded {
        at: jiff::Timestamp::now(),
        pid,
        boot_id: boot_id.to_owned(),
        entry,
    }
}

fn started(pid: u32, boot_id: &str) -> Recorded {
    let entry = HistoryEntry::Started {
        version: String::new(),
        supervisor: String::new(),
        rung: RungName::Normal,
        reason: None,
        before: PreviousEnd::Unknown,
        oom_kills: Some(3),
    };
    line(pid, boot_id, entry)
}

fn ended(pid: u32, planned: bool, trace: Option<Carried>) -> Recorded {
    line(
        pid,
        "b",
        HistoryEntry::Ended {
            planned,
            code: 0,
            reason: EndReason::Other("why".to_owned()),
            uptime_ms: 1,
            cut: vec![],
            trace,
        },
    )
}

#[test]
fn how_the_life_before_ended() {
    let none = |_: Option<u64>| None;
    let trace = Some(Carried {
        started_at_ms: 1.0,
        last_at_ms: 2.0,
    });
    let unplanned = |why: Option<&str>| PreviousEnd::Unplanned(why.map(str::to_owned));
    let (here, before) = (started(1, "b"), started(1, "a"));
    for (name, lines, end, left) in [
        ("nothing", vec![], PreviousEnd::Unknown, None),
        (
            "a torn beginning",
            vec![ended(1, true, None)],
            PreviousEnd::Unknown,
            None,
        ),
        (
            "planned",
            vec![here.clone(), ended(1, true, trace)],
            PreviousEnd::Planned,
            trace,
        ),
        (
            "unplanned",
            vec![here.clone(), ended(1, false, None)],
            unplanned(Some("why")),
            None,
        ),
        ("no end", vec![here.clone()], unplanned(None), None),
        (
            "no end before this boot",
            vec![before.clone()],
            PreviousEnd::MachineDown,
            None,
        ),
        (
            "planned before this boot",
            vec![before, ended(1, true, None)],
            PreviousEnd::Planned,
            None,
        ),
        (
            "1 handed over to 2 and ended after 2 began; then 2 died",
            vec![here.clone(), started(2, "b"), ended(1, true, None)],
            unplanned(None),
            None,
        ),
    ] {
        assert_eq!(how_it_ended(&lines, "b", none), (end, left), "{name}");
    }
    let memory = |kills: Option<u64>| oom::end_of_life(None, kills, Some(4));
    let PreviousEnd::Unplanned(Some(cause)) = how_it_ended(&[here], "b", memory).0 else {
        panic!("no cause")
    };
    assert!(cause.contains("memory ran out"), "{cause}");
}

#[test]
fn lives_of_one_directory_know_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    // The history takes the process's own number, so every life here has it.
    let pid = std::process::id();
    let record = record(dir.path(), pid);
    let life = || record.clone();
    let throttle = Throttle::default();
    assert_eq!(
        life().begin(&throttle, None),
        Begun {
            start: StartDecision::Go,
            before: PreviousEnd::Unknown,
            trace: None
        }
    );
    life().started("none", &normal(), PreviousEnd::Unknown);
    life().ended(true, 0, &"SIGTERM".parse().unwrap(), 5, vec![], None);
    assert_eq!(life().begin(&throttle, None).before, PreviousEnd::Planned);
    for count in 2..=3 {
        life().started("none", &normal(), PreviousEnd::Planned);
        let begun = life().begin(&throttle, Some("oom-kill"));
        assert_eq!(begun.start, StartDecision::Go, "{count}");
        assert!(
            matches!(begun.before, PreviousEnd::Unplanned(Some(cause)) if cause.contains("oom-kill"))
        );
    }
    assert!(matches!(
        life().begin(&throttle, None).start,
        StartDecision::Wait { count: 4, .. }
    ));
    life().perform(&RecoveryAction::MarkTrial);
    life().perform(&RecoveryAction::MarkSafe);
    assert!(matches!(
        life().begin(&throttle, None).start,
        StartDecision::Safe { again: true, .. }
    ));
    life().perform(&RecoveryAction::MarkStable);
    assert_eq!(life().begin(&throttle, None).start, StartDecision::Go);
    life().take_over();
    life().forgive();
    record.flush();
    assert!(!dir.path().join("startup-throttle.json").exists());
}

#[test]
fn no_secret_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(dir.path(), 1);
    let start = StartDecision::Safe {
        reason: "it said CANARY-1".into(),
        again: false,
    };
    let (recovery, _) = Recovery::begin(start, ConfigOrigin::Valid, Duration::ZERO);
    let standing = recovery.shown(Duration::ZERO);
    record.started("none", &standing, PreviousEnd::Unknown);
    record.rung(&standing);
    record.ended(false, 1, &"CANARY-1".parse().unwrap(), 1, vec![], None);
    record.bundle(
        "safe-mode",
        Some("CANARY-1"),
        1,
        serde_json::json!({"detail": "CANARY-1"}),
    );
    record.flush();
    assert_eq!(diagnostic_bundle::list(dir.path()).len(), 1);
    for path in [
        dir.path().join("history.jsonl"),
        diagnostic_bundle::list(dir.path()).remove(0),
    ] {
        assert!(!std::fs::read_to_string(path).unwrap().contains("CANARY"));
    }
}

#[test]
fn a_directory_that_is_gone_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&dir.path().join("gone"), 1);
    let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
    assert_eq!(
        record.begin(&Throttle::default(), None).start,
        StartDecision::Go
    );
    record.started("none", &normal(), PreviousEnd::Unknown);
    record.good(&load(&Overrides::default(), &Env(&env)).unwrap());
    record.bundle("x", None, 1, Value::Null);
    record.ended(true, 0, &"".parse().unwrap(), 1, vec![], None);
    record.flush();
}

#[test]
fn a_restart_has_an_end_in_the_record_even_if_its_process_dies() {
    let dir = tempfile::tempdir().unwrap();
    // The history takes the process's own number: this life and the one before share it.
    let life = || record(dir.path(), std::process::id());
    let asked = RequestRecord::by(None, StrategyName::InProcess);
    let before = life();
    before.asked(&asked, "r1-1", &RequestKind::Restart, "CANARY-1");
    before.flush();
    for next in [life(), life()] {
        next.begin(&Throttle::default(), None);
        next.flush();
    }
    let ends: Vec<String> = history::read(dir.path())
        .map(|line| match line.entry {
            HistoryEntry::Request {
                id,
                outcome,
                reason,
                ..
            } => format!("{id} {outcome} {reason}"),
            other => panic!("{other:?}"),
        })
        .collect();
    let died = format!("pid {} ended before it was done", std::process::id());
    let [end] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert!(end.starts_with(&format!("r1-1 failed: {died}")), "{end}");
    assert!(!end.contains("CANARY"));
}

#[test]
fn a_restart_is_done_when_its_process_dies_after_the_successor_took_over() {
    let dir = tempfile::tempdir().unwrap();
    let predecessor = std::process::id();
    let asked = RequestRecord::by(None, StrategyName::Respawn);
    let life = record(dir.path(), predecessor);
    life.asked(&asked, "r1-1", &RequestKind::Restart, "");
    life.predecessor_ended(end_of(predecessor + 1));
    life.flush();
    assert!(history::read(dir.path()).any(|line| matches!(line.entry, HistoryEntry::Asked { .. })));
    life.predecessor_ended(end_of(predecessor));
    // It reads, then leaves what it has to write to the thread.
    life.flush();
    life.flush();
    let end = history::read(dir.path()).last().map(|line| line.entry);
    assert!(
        matches!(&end, Some(HistoryEntry::Request { outcome, .. }) if outcome.outcome == RequestOutcome::Done),
        "{end:?}"
    );
}

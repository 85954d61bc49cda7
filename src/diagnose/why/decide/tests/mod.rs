//! Every cause, from what systemd 252 and the gateway really write.

mod manager;
mod record;
mod status;

use jiff::Timestamp;

use super::super::cause::EndCause;
use super::super::evidence::{EndEvidence, UnitSnapshot};
use super::super::evidence_lines::{EvidenceSource, evidence_lines};
use super::super::journal::{JournalEvent, JournalLine};
use super::super::process_end::ProcessEnd;
use super::super::sentence::sentence;
use super::decide;
use crate::control::fake_gateway;
use crate::control::protocol::{RecoveryStatus, SidecarStateName, SidecarStatus, Stage};
use crate::state::history::{HistoryEntry, PreviousEnd, Recorded, Requester};
use crate::state::owner::Owner;
use crate::state::terms::{RungName, StrategyName};

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_763_797_440 + second).unwrap()
}

fn line(second: i64, event: JournalEvent, text: &str) -> JournalLine {
    JournalLine {
        at: time(second),
        event,
        text: text.into(),
        exit: None,
        status: 0,
        result: "".into(),
        sidecar: None,
        priority: 4,
    }
}

fn exit(second: i64, how: &str, status: i32) -> JournalLine {
    JournalLine {
        exit: ProcessEnd::of_word(how),
        status,
        ..line(
            second,
            JournalEvent::Exit,
            "gateway.service: Main process exited",
        )
    }
}

fn failed(second: i64, result: &str) -> JournalLine {
    JournalLine {
        result: result.into(),
        ..line(
            second,
            JournalEvent::Failed,
            "gateway.service: Failed with result",
        )
    }
}

fn error(second: i64, text: &str) -> JournalLine {
    JournalLine {
        priority: 3,
        ..line(second, JournalEvent::Gateway, text)
    }
}

fn starting(second: i64) -> JournalLine {
    line(second, JournalEvent::Starting, "Starting gateway.service")
}

fn ready(second: i64) -> JournalLine {
    line(second, JournalEvent::Ready, "Started gateway.service")
}

fn record(second: i64, pid: u32, entry: HistoryEntry) -> Recorded {
    Recorded {
        at: time(second),
        pid,
        boot_id: "b".into(),
        entry,
    }
}

fn started(second: i64, pid: u32, before: PreviousEnd) -> Recorded {
    let (version, supervisor, rung) = (String::new(), String::new(), RungName::Normal);
    record(
        second,
        pid,
        HistoryEntry::Started {
            version,
            supervisor,
            rung,
            reason: None,
            before,
            oom_kills: None,
        },
    )
}

fn ended(second: i64, pid: u32, planned: bool, code: u8, reason: &str) -> Recorded {
    record(
        second,
        pid,
        HistoryEntry::Ended {
            planned,
            code,
            reason: reason.parse().unwrap(),
            uptime_ms: 1,
            cut: vec![],
            trace: None,
        },
    )
}

fn request(second: i64, kind: &str, outcome: &str) -> Recorded {
    let entry = HistoryEntry::Request {
        id: "r7-1".into(),
        kind: kind.parse().unwrap(),
        who: Requester {
            uid: Some(1000),
            pid: 7,
            program: Some("gatewayctl".into()),
        },
        reason: "deploy 42".into(),
        strategy: StrategyName::Respawn,
        phases: vec![],
        outcome: outcome.parse().unwrap(),
        took_ms: 0,
        downtime_ms: None,
    };
    record(second, 7, entry)
}

/// An installed gateway that serves.
fn up(journal: Vec<JournalLine>, record: Vec<Recorded>) -> EndEvidence {
    let unit = UnitSnapshot {
        name: "gateway.service".into(),
        active: "active".into(),
        main_pid: 9,
        result: "success".into(),
        ..UnitSnapshot::default()
    };
    let status = fake_gateway::status();
    EndEvidence {
        instance: "gateway".into(),
        boot_id: "b".into(),
        unit: Some(unit),
        status: Some(status),
        journal,
        record,
        ..EndEvidence::default()
    }
}

/// An installed gateway that does not run.
fn down(
    active: &str,
    result: &str,
    exit: (u64, i32),
    journal: Vec<JournalLine>,
    record: Vec<Recorded>,
) -> EndEvidence {
    let unit = UnitSnapshot {
        name: "gateway.service".into(),
        active: active.into(),
        result: result.into(),
        exit: ProcessEnd::of_si_code(exit.0),
        exit_status: exit.1,
        started: Some(time(0)),
        inactive_since: Some(time(99)),
        limit_starts: 5,
        limit_seconds: 10,
        ..UnitSnapshot::default()
    };
    EndEvidence {
        status: None,
        unit: Some(unit),
        ..up(journal, record)
    }
}

fn life(kinds: Vec<JournalLine>) -> Vec<JournalLine> {
    [
        vec![starting(0), ready(1)],
        kinds,
        vec![starting(50), ready(51)],
    ]
    .concat()
}

fn unplanned() -> Vec<Recorded> {
    vec![
        started(1, 5, PreviousEnd::Unknown),
        started(50, 9, PreviousEnd::Unplanned(None)),
    ]
}

fn check(what: &str, evidence: &EndEvidence, cause: &EndCause, words: &[&str]) {
    let diagnosis = decide(evidence).unwrap();
    assert_eq!(diagnosis.cause, *cause, "{what}");
    let sentence = sentence(evidence, &diagnosis, time(60));
    for word in words {
        assert!(sentence.contains(word), "{what}: `{word}` in: {sentence}");
    }
    assert!(!evidence_lines(evidence).is_empty());
}

//! Every cause, from what systemd 252 and the gateway really write.

mod job;
mod manager;
mod record;
mod status;

use jiff::Timestamp;

use super::super::cause::EndCause;
use super::super::evidence::{EndEvidence, UnitSnapshot};
use super::super::evidence_lines::{EvidenceSource, evidence_lines};
use super::super::journal::{JournalEvent, JournalLine, ProcessEnd, SidecarEnd};

use super::super::sentence::sentence;
use super::decide;
use crate::control::fake_gateway;
use crate::control::protocol::{RecoveryStatus, SidecarStateName, SidecarStatus, Stage};
use crate::state::history::{HistoryEntry, PreviousEnd, Recorded, Requester};
use crate::state::owner::Owner;
use crate::state::terms::{RequestKindName, RungName, StrategyName};
use crate::text::words::Words;

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
        sidecar_end: None,
        priority: 4,
    }
}

fn exit(second: i64, how: &str, status: i32) -> JournalLine {
    let text = "gateway.service: Main process exited";
    JournalLine {
        exit: ProcessEnd::from_word(how),
        status,
        ..line(second, JournalEvent::Exit, text)
    }
}

fn failed(second: i64, result: &str) -> JournalLine {
    let text = "gateway.service: Failed with result";
    JournalLine {
        result: result.into(),
        ..line(second, JournalEvent::Failed, text)
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
    let entry = HistoryEntry::Started {
        version: String::new(),
        supervisor: String::new(),
        rung: RungName::Normal,
        reason: None,
        before,
        oom_kills: None,
    };
    record(second, pid, entry)
}

fn ended(second: i64, pid: u32, planned: bool, code: u8, reason: &str) -> Recorded {
    let entry = HistoryEntry::Ended {
        planned,
        code,
        reason: reason.parse().unwrap(),
        uptime_ms: 1,
        cut: vec![],
        trace: None,
    };
    record(second, pid, entry)
}

fn request(second: i64, kind: &str, outcome: &str) -> Recorded {
    let entry = HistoryEntry::Request {
        id: "r7-1".into(),
        kind: kind.parse().unwrap(),
        sidecar: None,
        who: Requester {
            uid: Some(1000),
            pid: 7,
            program: Some("gatewayctl".into()),
            token: None,
        },
        reason: "deploy 42".into(),
        strategy: StrategyName::Respawn,
        phases: vec![],
        outcome: outcome.parse().unwrap(),
        took_ms: 0,
        ended: vec![],
        clients: None,
        passages: vec![],
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
    EndEvidence {
        instance: "gateway".into(),
        boot_id: "b".into(),
        unit: Some(unit),
        status: Some(fake_gateway::status()),
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

/// A gateway without a service manager that does not run.
fn by_hand(record: Vec<Recorded>) -> EndEvidence {
    EndEvidence {
        unit: None,
        ..down("", "", (0, 0), vec![], record)
    }
}

/// A run that ended with these lines, and the run after it.
fn life(lines: Vec<JournalLine>) -> Vec<JournalLine> {
    [
        vec![starting(0), ready(1)],
        lines,
        vec![starting(50), ready(51)],
    ]
    .concat()
}

fn first() -> Recorded {
    started(1, 5, PreviousEnd::Unknown)
}

fn unplanned() -> Vec<Recorded> {
    vec![first(), started(50, 9, PreviousEnd::Unplanned(None))]
}

fn killed(signal: &str) -> EndCause {
    let signal = signal.into();
    EndCause::Killed { signal }
}

fn sigterm() -> EndCause {
    let signal = "SIGTERM".into();
    EndCause::Signalled { signal }
}

fn stopped(by: &str) -> EndCause {
    EndCause::Stopped { by: by.into() }
}

fn exited(said: Option<&str>) -> EndCause {
    let said = said.map(str::to_owned);
    EndCause::Exited { code: 1, said }
}

fn invalid(said: Option<&str>) -> EndCause {
    let said = said.map(str::to_owned);
    EndCause::InvalidConfiguration { said }
}

fn check(what: &str, evidence: &EndEvidence, cause: EndCause, words: &[&str]) {
    let diagnosis = decide(evidence).unwrap();
    assert_eq!(diagnosis.cause, cause, "{what}");
    let sentence = sentence(evidence, &diagnosis, time(60));
    for word in words {
        assert!(sentence.contains(word), "{what}: `{word}` in: {sentence}");
    }
    assert!(!evidence_lines(evidence).is_empty());
}

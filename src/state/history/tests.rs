use std::fs::OpenOptions;

use super::*;
use crate::state::atomic_file::mode;
use crate::state::terms::RequestOutcome;

fn request(id: &str) -> HistoryEntry {
    HistoryEntry::Request {
        id: id.to_owned(),
        kind: RequestKindName::Restart,
        sidecar: None,
        who: Requester {
            uid: Some(1000),
            pid: 7,
            program: Some("gatewayctl".to_owned()),
            token: None,
        },
        reason: "why not".to_owned(),
        strategy: StrategyName::InProcess,
        phases: vec![PhaseTime {
            name: ProgressStage::Ready,
            at_ms: 3,
        }],
        outcome: RequestOutcome::Done.into(),
        took_ms: 5,
        ended: vec![],
        clients: None,
        passages: vec![],
        downtime_ms: None,
    }
}

fn ids(dir: &Path) -> Vec<String> {
    let id = |line: Recorded| match line.entry {
        HistoryEntry::Request { id, .. } => id,
        other => panic!("{other:?}"),
    };
    read(dir).map(id).collect()
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()).count(), 0);
    let history = History::open(dir.path());
    let entries = [
        HistoryEntry::Started {
            version: "0.1.0".into(),
            supervisor: "systemd".into(),
            rung: RungName::Normal,
            reason: None,
            before: PreviousEnd::Unplanned(Some("it was ended for want of memory".into())),
            oom_kills: Some(3),
        },
        HistoryEntry::Rung {
            rung: RungName::SafeMode,
            reason: Some("9 starts".into()),
        },
        request("r1"),
        HistoryEntry::Sidecar {
            name: "main".into(),
            standing: SidecarStanding::Failing,
            reason: "has died 5 times".into(),
        },
        HistoryEntry::Ended {
            planned: true,
            code: 0,
            reason: "SIGTERM".parse().unwrap(),
            uptime_ms: 9,
            cut: vec!["GET /".into()],
            trace: Some(Carried {
                started_at_ms: 1.0,
                last_at_ms: 2.0,
            }),
        },
    ];
    entries
        .iter()
        .for_each(|entry| history.append(&history.line(entry.clone())).unwrap());
    let lines: Vec<Recorded> = read(dir.path()).collect();
    assert!(
        lines.iter().map(|line| &line.entry).eq(&entries),
        "{lines:?}"
    );
    for line in &lines {
        assert_eq!(line.pid, std::process::id());
        assert_eq!(line.boot_id, crate::state::owner::boot_id());
    }
    assert_eq!(mode(&path(dir.path())), 0o600);
    let text = std::fs::read_to_string(path(dir.path())).unwrap();
    for key in ["\"event\":\"request\"", "\"tookMs\":5", "\"oomKills\":3"] {
        assert!(text.contains(key), "{text}");
    }
    for before in [
        PreviousEnd::Unknown,
        PreviousEnd::Planned,
        PreviousEnd::HandedOver,
        PreviousEnd::MachineDown,
        PreviousEnd::Unplanned(None),
    ] {
        let text = serde_json::to_string(&before).unwrap();
        let read: PreviousEnd = serde_json::from_str(&text).unwrap();
        assert_eq!(read, before, "{text}");
    }
}

#[test]
fn torn_and_foreign_lines_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    history.append(&history.line(request("r1"))).unwrap();
    let torn = "{\"at\":\"2026-11-22T02:0";
    let mut file = OpenOptions::new()
        .append(true)
        .open(path(dir.path()))
        .unwrap();
    file.write_all(torn.as_bytes()).unwrap();
    assert_eq!(ids(dir.path()), ["r1"]);
    history.append(&history.line(request("r2"))).unwrap();
    file.write_all(b"{\"event\":\"of-a-later-version\"}\n\xff\xfe\n\n")
        .unwrap();
    history.append(&history.line(request("r3"))).unwrap();
    assert_eq!(ids(dir.path()), ["r1", "r2", "r3"]);
}

#[test]
fn it_never_grows_beyond_twice_its_limit_and_keeps_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    let long = "x".repeat(10_000);
    for number in 0..4000 {
        let mut entry = request(&format!("r{number}"));
        let HistoryEntry::Request { reason, .. } = &mut entry else {
            unreachable!()
        };
        reason.clone_from(&long);
        history.append(&history.line(entry.clone())).unwrap();
    }
    for path in [path(dir.path()), older(&path(dir.path()))] {
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length <= FILE_MAX, "{length}");
    }
    let ids = ids(dir.path());
    assert!(ids.len() > 1000, "{}", ids.len());
    assert_eq!(ids.last().unwrap(), "r3999");
    let numbers: Vec<u32> = ids.iter().map(|id| id[1..].parse().unwrap()).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "no gap"
    );
    assert!(read(dir.path()).all(|line| matches!(line.entry, HistoryEntry::Request { reason, .. } if reason.chars().count() == TEXT_MAX + 1)));
}

#[test]
fn what_cannot_be_written_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let gone = History::open(&dir.path().join("gone"));
    gone.append(&gone.line(request("r1"))).unwrap_err();
}

#[test]
fn what_is_no_file_of_ours_is_set_aside_and_the_record_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, path(dir.path())).unwrap();
    history.append(&history.line(request("r1"))).unwrap();
    assert_eq!(ids(dir.path()), ["r1"]);
    let text = std::fs::read_to_string(&elsewhere).unwrap();
    assert_eq!(text, "mine", "links are not followed");
    std::fs::remove_file(path(dir.path())).unwrap();
    nix::unistd::mkfifo(&path(dir.path()), nix::sys::stat::Mode::S_IRWXU).unwrap();
    history.append(&history.line(request("r2"))).unwrap();
    assert_eq!(ids(dir.path()), ["r2"]);
}

#[test]
fn a_request_is_shown_as_asked_until_it_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    let asked = |id: &str| HistoryEntry::Asked {
        id: id.to_owned(),
        kind: RequestKindName::Restart,
        sidecar: None,
        who: Requester::default(),
        reason: String::new(),
        strategy: StrategyName::Respawn,
    };
    // In a container, the next life counts its requests anew.
    for entry in [asked("r1-1"), request("r1-1"), asked("r1-2"), asked("r1-1")] {
        history.append(&history.line(entry)).unwrap();
    }
    let shown: Vec<HistoryEntry> = read(dir.path()).map(|line| line.entry).collect();
    assert_eq!(shown, [request("r1-1"), asked("r1-2"), asked("r1-1")]);
}

#[test]
fn an_end_that_is_corrected_later_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    let pid = std::process::id();
    let id = request_id(pid, 1);
    let started = HistoryEntry::Started {
        version: String::new(),
        supervisor: String::new(),
        rung: RungName::Normal,
        reason: None,
        before: PreviousEnd::Unknown,
        oom_kills: None,
    };
    // The next life has the same pid, as in a container, and asks nothing before it is refused.
    for entry in [
        started.clone(),
        request(&id),
        request(&id),
        started.clone(),
        request(&id),
    ] {
        history.append(&history.line(entry)).unwrap();
    }
    let shown: Vec<HistoryEntry> = read(dir.path()).map(|line| line.entry).collect();
    let expected = [started.clone(), request(&id), started, request(&id)];
    assert_eq!(shown, expected);
}

//! One cell: a restart is held, the fault is done, the restart goes on, and all is judged.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Output;

use serde_json::Value;

use crate::expected::{Loss, Outcome, loss, or_else};
use crate::faults::Fault;
use crate::moments::{Moment, Place, Progress};
use crate::scene::Scene;
use crate::site::Site;
use crate::strike::{FROZEN, REPLACED, strike};
use crate::support::gateway::{Gateway, said};
use crate::support::handover::{family, no_sidecar, one_serves};
use crate::support::load::Load;
use crate::support::report::{Part, Report};
use crate::support::wait;

/// New clients in a second, each with one request.
const NEW_PER_SECOND: f64 = 40.0;

/// At any moment some request is being answered.
const PATH: &str = "/slow?ms=30";

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub outcome: Outcome,
    /// Requests that were lost with a killed process, or turned away.
    pub lost: u64,
}

/// Tries a fault at a moment. The gateway of the site serves before and afterwards.
///
/// # Panics
/// When anything is not as it must be.
pub fn run(site: &mut Site, fault: Fault, moment: Moment, expected: Outcome) -> Seen {
    let load = Load {
        path: PATH.into(),
        new_per_second: NEW_PER_SECOND,
        kept: 1,
        ends_announced: true,
        ..Load::on(site.gateway.target())
    }
    .start();
    load.flows(Part::New, 3);
    let before = Before::of(&site.gateway);
    let done = carry_out(site, fault, moment, &before);
    if expected.ends() {
        let outcome = gone(&mut site.gateway, &before, fault);
        let lost = judge(load.stop(), fault, expected);
        whole(done.wrong, fault);
        site.start_again();
        one_serves(&site.gateway);
        return Seen { outcome, lost };
    }
    let status = settled(&site.gateway);
    let outcome = outcome(&status, fault, moment, &done);
    assert!(
        outcome == expected || Some(outcome) == or_else(fault, moment),
        "{outcome:?} instead of {expected:?}: {}\n{status:#}",
        said(&done.told)
    );
    agrees(&done.told, outcome, fault);
    has_an_end(&site.gateway, &status, &before, fault);
    load.flows(Part::New, 3);
    let lost = judge(load.stop(), fault, expected);
    whole(done.wrong, fault);
    next_restart_works(&site.gateway);
    Seen { outcome, lost }
}

/// A restart with its fault.
struct Done {
    /// What served before.
    old: u32,
    generation: u64,
    /// What gatewayctl said.
    told: Output,
    /// What is wrong with the answer that lasted.
    wrong: Option<String>,
}

/// From the begin of the restart until all that was asked for has an answer.
fn carry_out(site: &Site, fault: Fault, moment: Moment, before: &Before) -> Done {
    let scene = Scene::hold(site, moment);
    let (old, generation) = (scene.old, scene.generation);
    let after = strike(fault, &scene);
    scene.go_on();
    if let Some(undo) = after.soon {
        wait::pause(FROZEN);
        undo();
    }
    let (told, wrong) = scene.end();
    let asked = after.asked.map(|asker| asker.output());
    for output in asked.iter().chain([&told]) {
        let says = output.status.success() || !output.stderr.is_empty();
        assert!(says || fault == Fault::KillAsker, "{}", said(output));
    }
    if after.signalled {
        all_answered(&site.gateway, before);
    }
    if let Some(undo) = after.late {
        undo();
    }
    Done {
        old,
        generation,
        told,
        wrong,
    }
}

/// What was known before.
struct Before {
    last: Value,
    history: usize,
    log: usize,
}

impl Before {
    fn of(gateway: &Gateway) -> Self {
        Self {
            last: gateway.status()["lastRestart"].clone(),
            history: history(gateway).len(),
            log: gateway.stderr().len(),
        }
    }
}

/// The lines of history.jsonl.
fn history(gateway: &Gateway) -> Vec<Value> {
    lines_of(gateway, "jsonl")
}

fn lines_of(gateway: &Gateway, extension: &str) -> Vec<Value> {
    let path = gateway
        .state_dir()
        .join("history")
        .with_extension(extension);
    let mut text = String::new();
    let mut options = OpenOptions::new();
    // A pipe that a fault put there has nobody at its other end.
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    if let Ok(mut file) = options.open(path) {
        file.read_to_string(&mut text).unwrap();
    }
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Whether these lines of the history tell the end of a restart.
fn is_on_record(lines: &[Value]) -> bool {
    let restart = |line: &Value| line["event"] == "request" && line["kind"] == "restart";
    lines.iter().any(restart)
}

/// Waits until each signal has its end in the log.
fn all_answered(gateway: &Gateway, before: &Before) {
    wait::until("what the signal asked for has an end", || {
        let log = gateway.stderr();
        let log = &log[before.log..];
        let ended = |line: &&str| {
            let line = line.trim_start_matches("[gateway] warning: ");
            let line = line.trim_start_matches("[gateway] ");
            let about = line.starts_with("restart r") || line.starts_with("reload r");
            about && !line.contains(" asked: ")
        };
        let asked = log.matches(" asked: ").count();
        (asked >= 2 && log.lines().filter(ended).count() >= asked).then_some(())
    });
}

/// One process is left, with nothing to do but to serve.
fn settled(gateway: &Gateway) -> Value {
    wait::until("one process is left", || {
        (family(gateway).len() == 1).then_some(())
    });
    gateway.wait_status("it serves alone", |status| {
        status["stage"] == "ready" && status["drainers"] == serde_json::json!([])
    })
}

fn outcome(status: &Value, fault: Fault, moment: Moment, done: &Done) -> Outcome {
    let same_process = status["pid"] == done.old;
    let next = !same_process
        || (moment.place() == Place::SameProcess && status["generation"] != done.generation);
    // Who was told that the next generation serves was told so by it.
    let served = moment.progress() == Progress::Served || done.told.status.success();
    match fault {
        Fault::KillOld if next => Outcome::TookOver,
        Fault::KillNew if same_process && served => Outcome::TookBack,
        Fault::KillNewServer if !next && served => Outcome::HandedBack,
        _ if next => Outcome::Restarted,
        _ => Outcome::KeptOld,
    }
}

/// Whoever asked was told the truth.
fn agrees(told: &Output, outcome: Outcome, fault: Fault) {
    let success = match outcome {
        // Clients failed meanwhile, of which gatewayctl complains.
        _ if fault == Fault::KillAsker || loss(fault) != Loss::Nothing => return,
        Outcome::Restarted => true,
        Outcome::KeptOld => false,
        // It depends on what had been said when the process died.
        _ => return,
    };
    assert_eq!(told.status.success(), success, "{}", said(told));
}

/// The restart has an end, in the status and on record.
fn has_an_end(gateway: &Gateway, status: &Value, before: &Before, fault: Fault) {
    assert_ne!(status["lastRestart"], before.last, "the restart has an end");
    // What a dead process owed, or one whose disk was full, comes a moment later.
    wait::until("the restart is on record", || {
        let mut lines = history(gateway);
        if fault == Fault::StateReplaced {
            // What is no file is set aside, and a new record begins.
            let mut all = lines_of(gateway, REPLACED);
            all.append(&mut lines);
            lines = all;
        }
        is_on_record(&lines.split_off(before.history)).then_some(())
    });
}

/// Nothing is left of it, and its end is on record.
fn gone(gateway: &mut Gateway, before: &Before, fault: Fault) -> Outcome {
    gateway.wait_gone(wait::DEADLINE);
    no_sidecar(gateway);
    if fault == Fault::KillOld {
        return Outcome::Died;
    }
    let lines = history(gateway).split_off(before.history);
    let ends: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "ended")
        .collect();
    assert!(!ends.is_empty(), "{lines:?}");
    for end in ends {
        assert!(end["planned"] == true && end["code"] == 0, "{end}");
    }
    assert!(is_on_record(&lines), "{lines:?}");
    Outcome::Stopped
}

/// An answer that lasted is whole unless who gave it was killed.
fn whole(wrong: Option<String>, fault: Fault) {
    let killed = matches!(fault, Fault::KillOld | Fault::KillOldServer);
    assert!(
        wrong.is_none() || killed,
        "the answer that lasted: {wrong:?}"
    );
}

/// How much was lost of what may be.
fn judge(report: Report, fault: Fault, outcome: Outcome) -> u64 {
    if outcome == Outcome::Died {
        return report.failures();
    }
    let of_the_killed = [
        "reset",
        "eof",
        "truncated",
        "closed while idle",
        "status 502",
    ];
    let may_fail = |part, kind| match (outcome, loss(fault)) {
        // Whoever comes after the end.
        (Outcome::Stopped, _) if matches!(kind, "refused" | "status 503") => true,
        (Outcome::Stopped, _) | (_, Loss::SilentConnections) => {
            // It may ask at the moment at which its silent connection is closed.
            part == Part::Busy && matches!(kind, "closed while idle" | "eof" | "reset")
        }
        (_, Loss::OfTheKilled) => of_the_killed.contains(&kind),
        (_, Loss::TurnedAway) => {
            // It may ask at the moment at which its place is given to another.
            kind == "status 503"
                || part == Part::Busy && matches!(kind, "closed while idle" | "eof" | "reset")
        }
        (_, Loss::Nothing) => false,
    };
    let failures = report.failed.iter();
    let failures = failures.filter(|((part, kind), _)| may_fail(*part, kind));
    let failures: u64 = failures.map(|(_, count)| count).sum();
    assert_eq!(report.failures(), failures, "{report}");
    match loss(fault) {
        Loss::OfTheKilled => {
            // What is in flight at a moment, which is more where a busy machine makes answers late.
            let in_flight = NEW_PER_SECOND * report.quantile(0.99).as_secs_f64();
            assert!(failures as f64 <= in_flight.max(10.0), "{report}");
            failures
        }
        Loss::TurnedAway => failures,
        Loss::Nothing | Loss::SilentConnections => 0,
    }
}

fn next_restart_works(gateway: &Gateway) {
    let serves = |status: Value| (status["pid"].clone(), status["generation"].clone());
    let before = serves(gateway.status());
    let output = gateway.ctl(["restart"]);
    assert!(output.status.success(), "the next one: {}", said(&output));
    one_serves(gateway);
    assert_ne!(serves(gateway.status()), before, "{}", said(&output));
}

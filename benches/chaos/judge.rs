//! What has to hold, whatever was done.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::clients::{Loss, LossKind, Seen};
use super::scene::{Cut, CutAt, Scene};
use crate::support::client::Fault;
use crate::support::site::all_of;
use crate::support::wait;

/// After its last fault a gateway settles in less: a drain (4 s), a hold, a start, systemd's own
/// timers, on a busy machine.
const SETTLE: Duration = Duration::from_secs(90);

/// What a full disk did not take is written again each second.
const WRITTEN: Duration = Duration::from_secs(10);

/// A quarter of fewer rounds says nothing: what waits for a timeout is there in some and not in
/// others.
const QUARTER_LEAST: usize = 10;

/// What a settled gateway has, at the end of a round.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub memory_kib: u64,
    pub descriptors: usize,
}

/// Waits until one process serves with one sidecar, and looks at what it has. The error says what
/// is wrong.
pub fn settle(scene: &Scene<'_>) -> Result<Settled, String> {
    let mut last = String::new();
    let pid = wait::within(SETTLE, || {
        let output = scene.site.run(&["gatewayctl", "status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let (main, processes) = (scene.site.main_pid(), scene.site.processes());
        let gateways = processes.iter().filter(|(_, name)| name == "gateway");
        let gateways: Vec<u32> = gateways.map(|(pid, _)| *pid).collect();
        last = format!(
            "main pid {main}, processes {processes:?}, status {}",
            all_of(&output)
        );
        if status["recovery"]["rung"] == "last_good" {
            // Its operator has mended the file.
            scene.site.run(&["gatewayctl", "reload"]);
        }
        let one_owner = gateways == [main] && status["pid"] == main && processes.len() == 2;
        let serves = status["stage"] == "ready" && status["recovery"]["rung"].is_null();
        (one_owner && serves).then_some(main)
    })
    .ok_or_else(|| format!("it does not settle: {last}"))?;
    // The box's processes have other numbers here.
    let descriptors = scene.site.must(&["ls", &format!("/proc/{pid}/fd")]);
    let status = scene.site.must(&["cat", &format!("/proc/{pid}/status")]);
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Ok(Settled {
        memory_kib: memory.unwrap_or(0),
        descriptors: descriptors.lines().count(),
    })
}

/// Whether memory and descriptors grew from the first quarter of the rounds to the last. Each is a
/// look at another process, so it is the state that a gateway inherits that would grow: its record,
/// what its successor is handed, what the service manager keeps. The error says what grew.
pub fn flat(rounds: &[Settled]) -> Result<(), String> {
    let quarter = rounds.len() / 4;
    if quarter < QUARTER_LEAST {
        return Ok(());
    }
    let (first, last) = (&rounds[..quarter], &rounds[rounds.len() - quarter..]);
    let grew = |what: &str, value: fn(&Settled) -> u64, noise: u64| {
        let (before, after) = (low(first, value), low(last, value));
        if after > before + before / 4 + noise {
            return Err(format!("{what} at rest grew from {before} to {after}"));
        }
        Ok(())
    };
    grew("memory in KiB", |one| one.memory_kib, 4096)?;
    grew("descriptors", |one| one.descriptors as u64, 32)
}

/// A low value of some rounds: a high one belongs to a round whose last fault was a crowd.
fn low(rounds: &[Settled], value: fn(&Settled) -> u64) -> u64 {
    let mut values: Vec<u64> = rounds.iter().map(value).collect();
    values.sort_unstable();
    values[values.len() / 4]
}

/// Losses that nothing explains: a process that is killed takes with it what it had accepted, and
/// nothing else may be lost.
pub fn unexplained<'a>(seen: &'a Seen, cuts: &[Cut]) -> Vec<&'a Loss> {
    let explained = |loss: &&Loss| {
        let at = match &loss.how {
            LossKind::Transport(Fault::Eof | Fault::Reset | Fault::Truncated) => CutAt::Gateway,
            LossKind::Status(502, _) => CutAt::Server,
            LossKind::Status(503, body) if body.contains("too many clients") => CutAt::Crowd,
            LossKind::Transport(_) | LossKind::Status(..) => return false,
        };
        let mut cuts = cuts.iter().filter(|cut| cut.at == at);
        cuts.any(|cut| (cut.from..cut.until).contains(&loss.known))
    };
    seen.lost.iter().filter(|loss| !explained(loss)).collect()
}

/// Restarts without an end in the record, and commands without an end of their own.
pub fn record(scene: &Scene<'_>, commands: &[(String, Output)]) -> Vec<String> {
    let mut wrong = Vec::new();
    wait::within(WRITTEN, || {
        wrong = missing(scene, commands);
        wrong.is_empty().then_some(())
    });
    wrong
}

fn missing(scene: &Scene<'_>, commands: &[(String, Output)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let history = scene
        .site
        .must(&["gatewayctl", "history", "--json", "--lines", "10000"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let entries = history["entries"].as_array().unwrap();
    for entry in entries.iter().filter(|entry| entry["event"] == "asked") {
        wrong.push(format!("a restart has no end in the record: {entry}"));
    }
    for (words, output) in commands {
        if output.status.code().is_none() {
            wrong.push(format!("`{words}` was ended: {}", all_of(output)));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let Some(id) = answer["request"].as_str() else {
            continue;
        };
        // A process that ends while the disk is full takes with it what it had to write.
        let recorded = entries.iter().any(|entry| entry["id"] == id);
        if !recorded && !scene.disk_was_full {
            wrong.push(format!("`{words}` ({id}) is not in the record"));
        }
    }
    wrong
}

//! `startup-throttle.json`: how many lives in a row ended unplanned, and what the next start does
//! about it.
//!
//! Programs behind a gateway that is started again and again would be hammered, because nothing in
//! memory survives to slow it down. So each start leaves a record here; a life that ends as planned
//! marks it, and one that lasts removes it. Whatever is wrong with the file, a start goes on: no
//! record means no delay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::boot_time::BootTime;
use super::{atomic_file, untrusted_file};
use crate::config::Throttle;

/// A life that ends unplanned so soon after a start that had waited the longest leads to safe mode.
const TOO_SOON: Duration = Duration::from_secs(300);

/// Far more than a record takes, in bytes.
const RECORD_MAX: u64 = 4096;

/// What a start has to do before it starts sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDecision {
    Go,
    /// Wait.
    Wait {
        delay: Duration,
        /// How many starts came in quick succession, this one included.
        count: u32,
    },
    Safe {
        /// Why, in a sentence for people.
        reason: String,
        /// The life before was in safe mode already.
        again: bool,
    },
}

/// The process and the moment of a start.
#[derive(Clone, Debug)]
pub struct LifeStart<'a> {
    /// The gateway's process id.
    pub pid: u32,
    /// The identity of this boot ([`super::owner::boot_id`]).
    pub boot_id: &'a str,
    pub now: BootTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThrottleRecord {
    boot_id: String,
    pid: u32,
    /// When this life began, or its last trial.
    started_at: BootTime,
    /// Starts in quick succession, this one included.
    count: u32,
    /// How long sidecars waited at this start.
    wait_ms: u64,
    standing: LifeState,
}

/// What is known of the life that wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LifeState {
    Started,
    /// It began after the longest wait, or its sidecars are tried from safe mode: if it dies soon,
    /// waiting does not help.
    LastTry,
    /// It is in safe mode.
    Safe,
    /// It ended as planned.
    Planned,
}

/// What the record says, for programs that only read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleSummary {
    /// Starts in quick succession, the last one included.
    pub count: u32,
    /// How long sidecars waited at the last one.
    pub wait: Duration,
    /// Whether it led to safe mode.
    pub safe: bool,
    /// The boot it was written in.
    pub boot_id: String,
}

/// Looks at the record of a state directory and changes nothing; none where there is none.
pub fn look(dir: &Path) -> Option<ThrottleSummary> {
    let record: ThrottleRecord =
        serde_json::from_slice(&untrusted_file::read(&path(dir), RECORD_MAX).ok()?).ok()?;
    let (wait, safe) = (
        Duration::from_millis(record.wait_ms),
        record.standing == LifeState::Safe,
    );
    Some(ThrottleSummary {
        count: record.count,
        wait,
        safe,
        boot_id: record.boot_id,
    })
}

/// Records a start and tells what it has to do. Call it once in a life, with the lock held.
pub fn begin(dir: &Path, throttle: &Throttle, life: &LifeStart<'_>) -> StartDecision {
    let before = untrusted_file::read_json::<ThrottleRecord>(&path(dir), RECORD_MAX);
    let (record, start) = decide(before, throttle, life);
    save(dir, &record);
    start
}

fn decide(
    before: Option<ThrottleRecord>,
    throttle: &Throttle,
    life: &LifeStart<'_>,
) -> (ThrottleRecord, StartDecision) {
    let fresh = |count, wait: Duration, standing| ThrottleRecord {
        boot_id: life.boot_id.to_owned(),
        pid: life.pid,
        started_at: life.now,
        count,
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        standing,
    };
    let first = || {
        (
            fresh(1, Duration::ZERO, LifeState::Started),
            StartDecision::Go,
        )
    };
    let Some(before) = before.filter(|before| before.boot_id == life.boot_id) else {
        return first();
    };
    let Some(age) = life
        .now
        .since(before.started_at)
        .filter(|age| *age < throttle.window.0)
    else {
        return first();
    };
    let served = age.saturating_sub(Duration::from_millis(before.wait_ms));
    match before.standing {
        // The one who asked for the end wants the next start now; what went wrong before it is not
        // forgotten.
        LifeState::Planned => {
            return (
                fresh(before.count, Duration::ZERO, LifeState::Started),
                StartDecision::Go,
            );
        }
        LifeState::LastTry if served < TOO_SOON => {
            let reason = format!(
                "{} starts in quick succession ended unplanned, the last one {} s after it had waited the longest",
                before.count,
                served.as_secs()
            );
            return (
                fresh(before.count, Duration::ZERO, LifeState::Safe),
                StartDecision::Safe {
                    reason,
                    again: false,
                },
            );
        }
        LifeState::Safe if served < TOO_SOON => {
            let reason = format!(
                "the gateway ended unplanned in safe mode, which {} starts in quick succession had led to",
                before.count
            );
            return (
                fresh(before.count, Duration::ZERO, LifeState::Safe),
                StartDecision::Safe {
                    reason,
                    again: true,
                },
            );
        }
        LifeState::Started | LifeState::LastTry | LifeState::Safe => {}
    }
    let count = before.count.saturating_add(1);
    let delay = delay(throttle, count);
    if delay.is_zero() {
        return (fresh(count, delay, LifeState::Started), StartDecision::Go);
    }
    let standing = if delay >= throttle.max.0 {
        LifeState::LastTry
    } else {
        LifeState::Started
    };
    (
        fresh(count, delay, standing),
        StartDecision::Wait { delay, count },
    )
}

/// How long the `count`th start in quick succession waits.
fn delay(throttle: &Throttle, count: u32) -> Duration {
    match count.saturating_sub(throttle.threshold) {
        0 => Duration::ZERO,
        over => throttle
            .base
            .0
            .saturating_mul(2_u32.saturating_pow(over - 1))
            .min(throttle.max.0),
    }
}

/// A successor goes on where its predecessor, which lives, hands over: no start, and none that
/// counts.
pub fn take_over(dir: &Path, life: &LifeStart<'_>) {
    let path = path(dir);
    if let Some(before) = untrusted_file::read_json::<ThrottleRecord>(&path, RECORD_MAX)
        .filter(|before| before.boot_id == life.boot_id)
    {
        save(
            dir,
            &ThrottleRecord {
                pid: life.pid,
                started_at: life.now,
                wait_ms: 0,
                standing: LifeState::Started,
                ..before
            },
        );
    }
}

/// A trial is over, and this life in safe mode again.
pub fn safe(dir: &Path, life: &LifeStart<'_>) {
    change(dir, life.pid, |record| ThrottleRecord {
        started_at: life.now,
        wait_ms: 0,
        standing: LifeState::Safe,
        ..record
    });
}

/// Sidecars are started from safe mode: a death soon after leads back there.
pub fn trial(dir: &Path, life: &LifeStart<'_>) {
    change(dir, life.pid, |record| ThrottleRecord {
        started_at: life.now,
        wait_ms: 0,
        standing: LifeState::LastTry,
        ..record
    });
}

/// The life of `pid` ends as planned: a stop, a restart, a hand-over. Without effect when a
/// successor began.
pub fn ended_planned(dir: &Path, pid: u32) {
    change(dir, pid, |record| ThrottleRecord {
        standing: LifeState::Planned,
        ..record
    });
}

/// The life of `pid` served for `throttle.stable`: what was before is forgotten.
pub fn stable(dir: &Path, pid: u32) {
    if untrusted_file::read_json::<ThrottleRecord>(&path(dir), RECORD_MAX)
        .is_some_and(|record| record.pid == pid)
    {
        clear(dir);
    }
}

/// Forgets everything, as an operator asks for.
pub fn clear(dir: &Path) {
    let path = path(dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(
                "[gateway] cannot remove {}: {error}; the next start may be slowed down",
                path.display()
            );
        }
        _ => {}
    }
}

/// Changes the record of `pid`; that of another life is not ours to change.
fn change(dir: &Path, pid: u32, to: impl FnOnce(ThrottleRecord) -> ThrottleRecord) {
    if let Some(record) = untrusted_file::read_json::<ThrottleRecord>(&path(dir), RECORD_MAX)
        .filter(|record| record.pid == pid)
    {
        save(dir, &to(record));
    }
}

fn save(dir: &Path, record: &ThrottleRecord) {
    let path = path(dir);
    let written = serde_json::to_vec(record)
        .map_err(std::io::Error::from)
        .and_then(|mut text| {
            text.push(b'\n');
            atomic_file::write(&path, &text, 0o600)
        });
    if let Err(error) = written {
        warn!(
            "[gateway] cannot write {}: {error}; starts in quick succession are not slowed down",
            path.display()
        );
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("startup-throttle.json")
}

#[cfg(test)]
mod tests;

//! `startup-throttle.json`: how many lives in a row ended unplanned, and how the next start slows
//! down.
//!
//! Each start writes a record; a life that ends as planned marks it, and one that lasts removes it.
//! A file that cannot be used prevents no start: without a record there is no delay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::boot_time::BootTime;
use super::{atomic_file, untrusted_file};
use crate::config::Throttle;

/// A life that waited the longest and ends unplanned before this time leads to safe mode.
const TOO_SOON: Duration = Duration::from_secs(300);

/// More than a record takes, in bytes.
const RECORD_MAX: u64 = 4096;

/// What a start has to do before it starts sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDecision {
    Go,
    Wait {
        delay: Duration,
        /// How many starts came in quick succession, this one included.
        count: u32,
    },
    Safe {
        /// Why, in a sentence for people.
        reason: String,
        /// Whether the life before was in safe mode.
        again: bool,
    },
}

/// The process and the moment of a start.
#[derive(Clone, Debug)]
pub struct LifeStart<'a> {
    pub pid: u32,
    /// As [`super::owner::boot_id`].
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

impl ThrottleRecord {
    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    /// How long ago it started; none when that was in another boot.
    fn age_at(&self, life: &LifeStart<'_>) -> Option<Duration> {
        let age = life.now.since(self.started_at);
        age.filter(|_| self.boot_id == life.boot_id)
    }

    /// The record of `life`, which begins this state now.
    fn in_state(self, standing: LifeState, life: &LifeStart<'_>) -> Self {
        Self {
            pid: life.pid,
            started_at: life.now,
            wait_ms: 0,
            standing,
            ..self
        }
    }
}

/// What is known of the life that wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LifeState {
    Started,
    /// It began after the longest wait, or its sidecars are tried from safe mode: if it dies soon,
    /// waiting does not help.
    LastTry,
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

/// Reads the record of a state directory and changes nothing; none where there is none.
pub fn look(dir: &Path) -> Option<ThrottleSummary> {
    let text = untrusted_file::read(&path(dir), RECORD_MAX).ok()?;
    let record: ThrottleRecord = serde_json::from_slice(&text).ok()?;
    Some(ThrottleSummary {
        count: record.count,
        wait: record.wait(),
        safe: record.standing == LifeState::Safe,
        boot_id: record.boot_id,
    })
}

/// Records a start and decides what it has to do. Call it once in a life, with the lock held.
pub fn begin(dir: &Path, throttle: &Throttle, life: &LifeStart<'_>) -> StartDecision {
    let (record, start) = decide(read(dir), throttle, life);
    save(dir, &record);
    start
}

fn decide(
    before: Option<ThrottleRecord>,
    throttle: &Throttle,
    life: &LifeStart<'_>,
) -> (ThrottleRecord, StartDecision) {
    let record = |count, wait: Duration, standing| ThrottleRecord {
        boot_id: life.boot_id.to_owned(),
        pid: life.pid,
        started_at: life.now,
        count,
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        standing,
    };
    let go = |count| {
        let record = record(count, Duration::ZERO, LifeState::Started);
        (record, StartDecision::Go)
    };
    let Some((before, age)) = before.and_then(|before| {
        let age = before.age_at(life)?;
        (age < throttle.window.0).then_some((before, age))
    }) else {
        return go(1);
    };
    let served = age.saturating_sub(before.wait());
    match before.standing {
        // A planned end asks for the next start at once; the failures before it still count.
        LifeState::Planned => go(before.count),
        LifeState::LastTry | LifeState::Safe if served < TOO_SOON => {
            let record = record(before.count, Duration::ZERO, LifeState::Safe);
            (record, safe_mode_after(&before, served))
        }
        LifeState::Started | LifeState::LastTry | LifeState::Safe => {
            let count = before.count.saturating_add(1);
            let delay = delay(throttle, count);
            if delay.is_zero() {
                return go(count);
            }
            let standing = if delay >= throttle.max.0 {
                LifeState::LastTry
            } else {
                LifeState::Started
            };
            let wait = StartDecision::Wait { delay, count };
            (record(count, delay, standing), wait)
        }
    }
}

/// Safe mode after a life that ended when it had `served` for too short a time.
fn safe_mode_after(before: &ThrottleRecord, served: Duration) -> StartDecision {
    let (count, seconds) = (before.count, served.as_secs());
    let again = before.standing == LifeState::Safe;
    let reason = if again {
        format!(
            "the gateway ended unplanned in safe mode, which {count} starts in quick succession had led to"
        )
    } else {
        format!(
            "{count} starts in quick succession ended unplanned, the last one {seconds} s after it had waited the longest"
        )
    };
    StartDecision::Safe { reason, again }
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

/// A successor takes over from its predecessor, which lives: this start does not count.
pub fn take_over(dir: &Path, life: &LifeStart<'_>) {
    if let Some(before) = read(dir).filter(|before| before.boot_id == life.boot_id) {
        save(dir, &before.in_state(LifeState::Started, life));
    }
}

/// A trial is over, and this life is in safe mode again.
pub fn safe(dir: &Path, life: &LifeStart<'_>) {
    if let Some(record) = read_of(dir, life.pid) {
        save(dir, &record.in_state(LifeState::Safe, life));
    }
}

/// Sidecars are started from safe mode: a death soon after leads back there.
pub fn trial(dir: &Path, life: &LifeStart<'_>) {
    if let Some(record) = read_of(dir, life.pid) {
        save(dir, &record.in_state(LifeState::LastTry, life));
    }
}

/// The life of `pid` ends as planned: a stop, a restart, a hand-over. Without effect when a
/// successor began.
pub fn ended_planned(dir: &Path, pid: u32) {
    if let Some(record) = read_of(dir, pid) {
        let standing = LifeState::Planned;
        save(dir, &ThrottleRecord { standing, ..record });
    }
}

/// The life of `pid` served for `throttle.stable`: earlier failures are forgotten.
pub fn stable(dir: &Path, pid: u32) {
    if read_of(dir, pid).is_some() {
        clear(dir);
    }
}

/// Forgets everything, as an operator asks for.
pub fn clear(dir: &Path) {
    let path = path(dir);
    if let Err(error) = atomic_file::remove(&path) {
        warn!(
            "[gateway] cannot remove {}: {error}; the next start may be slowed down",
            path.display()
        );
    }
}

fn read(dir: &Path) -> Option<ThrottleRecord> {
    untrusted_file::read_json(&path(dir), RECORD_MAX)
}

/// The record of the life of `pid`: that of another life must not be changed.
fn read_of(dir: &Path, pid: u32) -> Option<ThrottleRecord> {
    read(dir).filter(|record| record.pid == pid)
}

fn save(dir: &Path, record: &ThrottleRecord) {
    let path = path(dir);
    let written = serde_json::to_vec(record)
        .map_err(std::io::Error::from)
        .and_then(|mut text| {
            text.push(b'\n');
            atomic_file::write_for_this_boot(&path, &text, 0o600)
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

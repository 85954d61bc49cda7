//! The cause in one sentence, and the evidence line by line.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::{Answer, Cause};
use super::evidence::Evidence;
use super::journal::Kind;
use super::life::Lives;
use crate::control::protocol::Stage;
use crate::state::history::HistoryEntry;
use crate::text::human::{count, span};

/// How many lines of the journal and of the record are shown: the last life or two.
const SHOWN: usize = 8;

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Where it stands: unit, status, record, owner, throttle, intent, bundle, journal, boot;
    /// "unseen" for what could not be looked at.
    pub source: String,
    /// When, RFC 3339; absent for what holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What.
    pub text: String,
}

/// A time of day as clocks here show it, with the day where that is not today's.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let today = at.date() == now.date();
    at.strftime(if today {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    })
    .to_string()
}

/// Milliseconds from one time to a later one.
pub fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// The sentence.
pub fn sentence(evidence: &Evidence, answer: &Answer, now: Timestamp) -> String {
    let name = evidence.subject();
    let at = answer
        .at
        .map_or(String::new(), |at| format!(" at {}", clock(at, now)));
    let cause = cause(name, &answer.cause, &at);
    match after(evidence, answer, now) {
        text if text.is_empty() => cause,
        text => format!("{cause}; {text}"),
    }
}

fn cause(name: &str, cause: &Cause, at: &str) -> String {
    let says = |said: &Option<String>| {
        said.as_ref()
            .map_or(String::new(), |said| format!(": {said}"))
    };
    match cause {
        Cause::NeverRan => format!("{name} has not run yet"),
        Cause::NeverEnded => format!("nothing has ended {name} since it was started{at}"),
        Cause::Stopped { by } => format!("{name} was stopped{at} by {by}"),
        Cause::Signalled { signal } => {
            format!("{name} was ended by {signal}{at}, sent by somebody who is not on record")
        }
        Cause::RestartedByManager { reason: None } => {
            format!("{name} was restarted{at} on request, through the service manager")
        }
        Cause::RestartedByManager { reason: Some(why) } => {
            format!("{name} was restarted{at} on request, through the service manager: {why}")
        }
        Cause::Requested {
            what,
            by,
            reason,
            strategy,
            took_ms,
            ..
        } => {
            let done = if what == "reload" {
                "reloaded"
            } else {
                "restarted"
            };
            format!(
                "{name} was {done}{at} on request: {reason}, by {by}, {strategy}, in {}",
                span(*took_ms)
            )
        }
        Cause::OutOfMemory => {
            format!("{name} was killed by the kernel{at} because memory ran out (OOM)")
        }
        Cause::Watchdog { limit } => {
            let limit = limit
                .as_ref()
                .map_or(String::new(), |limit| format!(" within {limit}"));
            format!(
                "{name} was ended by systemd{at} because it gave no sign of life{limit} (watchdog)"
            )
        }
        Cause::Timeout { said } => format!(
            "{name} was ended by systemd{at} because it took too long{}",
            says(said)
        ),
        Cause::Killed { signal } => {
            format!(
                "{name} was ended by {signal}{at}; somebody sent it, for systemd says nothing of it and no lack of memory is on record"
            )
        }
        Cause::Crashed { signal } => {
            format!("{name} crashed{at} with {signal}: a fault in the program")
        }
        Cause::InvalidConfiguration { said } => {
            format!(
                "{name} did not start{at}: it ended with exit code 78 (configuration invalid){}",
                says(said)
            )
        }
        Cause::Exited { code, said } => format!(
            "{name} ended by itself{at} with exit code {code}{}",
            says(said)
        ),
        Cause::Manager { result, said } => format!(
            "{name} failed{at}, in systemd's word: {result}{}",
            says(said)
        ),
        Cause::MachineDown => format!("the machine went down or restarted, and {name} with it"),
        Cause::Died { said: Some(said) } => format!("{name} ended unplanned{at}: {said}"),
        Cause::Died { said: None } => {
            format!(
                "{name} ended unplanned{at} without a word: it was killed or it crashed, and nobody here saw which"
            )
        }
        Cause::StartLimit {
            starts,
            within_seconds,
            because,
        } => {
            let often = format!(
                "it was started {starts} times within {within_seconds} s, and systemd starts it no more (start-limit-hit)"
            );
            format!(
                "{name} does not run because {often}; the last time, {}",
                self::cause(name, because, at)
            )
        }
        Cause::Throttled {
            reason, because, ..
        }
        | Cause::SafeMode {
            reason, because, ..
        } => {
            let word = if matches!(cause, Cause::Throttled { .. }) {
                "waits before it starts its sidecars"
            } else {
                "is in safe mode"
            };
            format!(
                "{name} {word}: {reason}; before that, {}",
                self::cause(name, because, at)
            )
        }
        Cause::LastGood { reason } => {
            format!(
                "{name} serves the last configuration that worked, for the one of now is not valid: {reason}"
            )
        }
        Cause::NotReady { said } => format!("{name} runs but is not ready: {said}"),
        Cause::Sidecar {
            name: sidecar,
            said,
            back,
        } => {
            let now = if *back {
                "it is back"
            } else {
                "it is not back yet"
            };
            format!("{name} itself lives; its sidecar {sidecar} {said}{at}, and {now}")
        }
    }
}

/// What became of it since.
fn after(evidence: &Evidence, answer: &Answer, now: Timestamp) -> String {
    if matches!(
        answer.cause,
        Cause::NeverRan | Cause::NotReady { .. } | Cause::Sidecar { .. }
    ) {
        return String::new();
    }
    if let Cause::Throttled {
        retry_ms: Some(left),
        ..
    }
    | Cause::SafeMode {
        retry_ms: Some(left),
        ..
    } = &answer.cause
    {
        return format!("next try in {}", span(*left));
    }
    if !evidence.is_up() {
        return match &evidence.unit {
            Some(unit) if unit.sub == "auto-restart" => "systemd starts it again".to_owned(),
            _ => "it does not run".to_owned(),
        };
    }
    let mut parts = Vec::new();
    if let (Some(at), Some(again)) = (answer.at, answer.again)
        && at < again
    {
        let who = if evidence.unit.is_some() {
            "systemd started it again"
        } else {
            "it was started again"
        };
        parts.push(format!("{who} {} later", span(between(at, again))));
    }
    match &evidence.status {
        Some(status) if status.stage == Stage::Ready => {
            let ready = evidence
                .journal
                .iter()
                .rev()
                .find(|line| line.kind == Kind::Ready)
                .map(|line| line.at);
            let since = ready.filter(|ready| answer.at.is_none_or(|at| *ready >= at));
            parts.push(since.map_or("it is ready".to_owned(), |since| {
                format!("it has been ready since {}", clock(since, now))
            }));
        }
        Some(status) => parts.push(format!("now it is {}", status.stage.in_words())),
        None => parts.push("it runs, but what it is doing cannot be asked".to_owned()),
    }
    parts.join("; ")
}

/// The evidence.
pub fn proofs(evidence: &Evidence) -> Vec<Proof> {
    let mut all = Vec::new();
    let mut add = |source: &str, at: Option<Timestamp>, text: String| {
        all.push(Proof {
            source: source.to_owned(),
            at: at.map(|at| at.to_string()),
            text,
        });
    };
    if let Some(unit) = &evidence.unit {
        let ended = match unit.exit_kind {
            0 => String::new(),
            1 => format!(", last main process exited with {}", unit.exit_status),
            _ => format!(", last main process ended by signal {}", unit.exit_status),
        };
        let text = format!(
            "{} ({}), Result {}, NRestarts {}{ended}",
            unit.active, unit.sub, unit.result, unit.restarts
        );
        add("unit", None, text);
    }
    if let Some(status) = &evidence.status {
        add(
            "status",
            None,
            format!(
                "{}, pid {}, up {}: {}",
                status.stage.in_words(),
                status.pid,
                span(status.uptime_ms),
                status.detail
            ),
        );
    }
    if let Some((owner, lives)) = &evidence.owner {
        add(
            "owner",
            None,
            format!(
                "pid {}, generation {}, {}",
                owner.pid,
                owner.generation,
                if *lives { "lives" } else { "is gone" }
            ),
        );
    }
    if let Some(seen) = &evidence.throttle {
        let safe = if seen.safe { ", safe mode" } else { "" };
        let wait = span(u64::try_from(seen.wait.as_millis()).unwrap_or(u64::MAX));
        add(
            "throttle",
            None,
            format!(
                "{} in quick succession, the last one waited {wait}{safe}",
                count(u64::from(seen.count), "start")
            ),
        );
    }
    if evidence.announced {
        add(
            "intent",
            None,
            "a restart is announced (restart-intent.json): the next SIGTERM is one".to_owned(),
        );
    }
    if Lives::of(evidence).machine_went_down {
        add(
            "boot",
            None,
            "the record goes on in another boot: the machine went down in between".to_owned(),
        );
    }
    let shown = |total: usize| total.saturating_sub(SHOWN);
    for line in &evidence.record[shown(evidence.record.len())..] {
        add(
            "record",
            Some(line.at),
            format!("pid {}: {}", line.pid, entry(&line.entry)),
        );
    }
    for line in &evidence.journal[shown(evidence.journal.len())..] {
        add("journal", Some(line.at), line.text.clone());
    }
    if let Some(path) = &evidence.bundle {
        add("bundle", None, path.display().to_string());
    }
    evidence
        .unseen
        .iter()
        .for_each(|why| add("unseen", None, why.clone()));
    all
}

/// A line of the record in words.
fn entry(entry: &HistoryEntry) -> String {
    let row = crate::diagnose::history_text::Row::of(entry);
    let details = [row.who, row.why]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    if details.is_empty() {
        row.what
    } else {
        format!("{} ({details})", row.what)
    }
}

//! An entry of the history in words, for `gatewayctl history` and `gatewayctl why`.

use crate::state::clients_seen::ClientsSeen;
use crate::state::history::{HistoryEntry, PreviousEnd, Requester};
use crate::state::passage::Passage;
use crate::state::terms::RungName;
use crate::text::human::span;
use crate::text::words::Words;

/// An entry of the history in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// What happened.
    pub what: String,
    /// Who requested it.
    pub who: Option<String>,
    pub why: Option<String>,
    /// How long it took or lasted.
    pub took: Option<String>,
}

impl HistoryRow {
    pub fn of(entry: &HistoryEntry) -> Self {
        match entry {
            HistoryEntry::Started {
                rung,
                reason,
                before,
                ..
            } => Self::event(started(*rung), started_because(before, reason.as_deref())),
            HistoryEntry::Ended {
                planned,
                code,
                reason,
                uptime_ms,
                cut,
                ..
            } => {
                let how = if *planned { "ended" } else { "ended unplanned" };
                let cut = cut_text(cut);
                Self {
                    took: Some(format!("up {}", span(*uptime_ms))),
                    ..Self::event(
                        format!("{how}, code {code}"),
                        Some(format!("{reason}{cut}")),
                    )
                }
            }
            HistoryEntry::HandedOver { to, uptime_ms, cut } => {
                let cut = cut_text(cut);
                Self {
                    took: Some(format!("up {}", span(*uptime_ms))),
                    ..Self::event(
                        format!("handed over to pid {to}"),
                        Some(format!("stays in front of it{cut}")),
                    )
                }
            }
            HistoryEntry::Asked {
                kind,
                sidecar,
                who,
                reason,
                strategy,
                ..
            } => Self {
                what: format!("{} under way ({strategy})", kind.of(sidecar.as_deref())),
                who: requester(who),
                why: reason_given(reason),
                took: None,
            },
            HistoryEntry::Request {
                kind,
                sidecar,
                who,
                reason,
                strategy,
                outcome,
                took_ms,
                ended,
                clients,
                passages,
                downtime_ms,
                ..
            } => Self {
                what: format!(
                    "{} {} ({strategy})",
                    kind.of(sidecar.as_deref()),
                    outcome.outcome
                ),
                who: requester(who),
                why: all_of([
                    reason_given(reason),
                    first_line(outcome.cause.as_deref()),
                    (clients.as_ref()).and_then(ClientsSeen::failures_in_words),
                    in_words(passages),
                    (!ended.is_empty()).then(|| format!("ended {}", ended.join(", "))),
                ]),
                took: Some(duration(*took_ms, *downtime_ms)),
            },
            HistoryEntry::Cut { sidecar, cut, .. } => {
                Self::event(format!("cut at {sidecar}"), Some(cut.join(", ")))
            }
            HistoryEntry::Sidecar {
                name,
                standing,
                reason,
            } => Self::event(
                format!("sidecar {name} {}", standing.in_words()),
                Some(format!("it {reason}")),
            ),
            HistoryEntry::Rung { rung, reason } => Self::event(rung.in_words(), reason.clone()),
        }
    }

    /// A row about something that happened without a request.
    fn event(what: String, why: Option<String>) -> Self {
        Self {
            what,
            who: None,
            why,
            took: None,
        }
    }
}

fn cut_text(cut: &[String]) -> String {
    match cut {
        [] => String::new(),
        cut => format!("; cut: {}", cut.join(", ")),
    }
}

fn started(rung: RungName) -> String {
    match rung {
        RungName::Normal => "started".to_owned(),
        rung => format!("started, {}", rung.in_words()),
    }
}

fn started_because(before: &PreviousEnd, reason: Option<&str>) -> Option<String> {
    let before = match before {
        PreviousEnd::Unknown => None,
        PreviousEnd::Planned => Some("after a planned end".to_owned()),
        PreviousEnd::HandedOver => Some("took over".to_owned()),
        PreviousEnd::MachineDown => Some("after the machine was down".to_owned()),
        PreviousEnd::Unplanned(None) => Some("after an unplanned end".to_owned()),
        PreviousEnd::Unplanned(Some(cause)) => Some(format!("after an unplanned end: {cause}")),
    };
    let all: Vec<String> = before
        .into_iter()
        .chain(reason.map(str::to_owned))
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn requester(who: &Requester) -> Option<String> {
    let Some(uid) = who.uid else {
        return who.token.clone();
    };
    Some(match &who.program {
        Some(program) => format!("{program} uid {uid}"),
        None => format!("uid {uid}"),
    })
}

fn reason_given(reason: &str) -> Option<String> {
    (!reason.is_empty()).then(|| reason.to_owned())
}

/// The first line of why it was rejected or failed.
fn first_line(cause: Option<&str>) -> Option<String> {
    cause.and_then(|cause| cause.split(" | ").next().map(str::to_owned))
}

/// The passages that somebody should look at.
fn in_words(passages: &[Passage]) -> Option<String> {
    let bad = passages.iter().filter(|passage| passage.is_bad());
    all_of(bad.map(|passage| Some(passage.sentence())))
}

fn all_of(parts: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let all: Vec<String> = parts.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(": "))
}

fn duration(took_ms: u64, downtime_ms: Option<u64>) -> String {
    let down = downtime_ms.map_or(String::new(), |down| format!(", down {}", span(down)));
    format!("in {}{down}", span(took_ms))
}

//! A line of the history as people read it.

use crate::state::history::{HistoryEntry, PreviousEnd};
use crate::state::terms::RungName;
use crate::text::human::span;

/// A line of the record in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What happened.
    pub what: String,
    /// Who wanted it.
    pub who: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// How long it took or lasted.
    pub took: Option<String>,
}

impl Row {
    /// Puts it in words.
    pub fn of(entry: &HistoryEntry) -> Self {
        let row = |what: String, why: Option<String>| Self {
            what,
            who: None,
            why,
            took: None,
        };
        match entry {
            HistoryEntry::Started {
                rung,
                reason,
                before,
                ..
            } => {
                let place = if *rung == RungName::Normal {
                    String::new()
                } else {
                    format!(", {}", rung.in_words())
                };
                let before = match before {
                    PreviousEnd::Unknown => None,
                    PreviousEnd::Planned => Some("after a planned end".to_owned()),
                    PreviousEnd::HandedOver => Some("took over".to_owned()),
                    PreviousEnd::MachineDown => Some("after the machine was down".to_owned()),
                    PreviousEnd::Unplanned(None) => Some("after an unplanned end".to_owned()),
                    PreviousEnd::Unplanned(Some(cause)) => {
                        Some(format!("after an unplanned end: {cause}"))
                    }
                };
                let why = [before, reason.clone()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("; ");
                row(
                    format!("started{place}"),
                    Some(why).filter(|why| !why.is_empty()),
                )
            }
            HistoryEntry::Ended {
                planned,
                code,
                reason,
                uptime_ms,
                cut,
                ..
            } => {
                let cut = if cut.is_empty() {
                    String::new()
                } else {
                    format!("; cut: {}", cut.join(", "))
                };
                let how = if *planned { "ended" } else { "ended unplanned" };
                Self {
                    took: Some(format!("up {}", span(*uptime_ms))),
                    ..row(
                        format!("{how}, code {code}"),
                        Some(format!("{reason}{cut}")),
                    )
                }
            }
            HistoryEntry::Request {
                kind,
                who,
                reason,
                strategy,
                outcome,
                took_ms,
                downtime_ms,
                ..
            } => {
                let program = who
                    .program
                    .as_ref()
                    .map_or(String::new(), |program| format!("{program} "));
                let by = who.uid.map(|uid| format!("{program}uid {uid}"));
                let down =
                    downtime_ms.map_or(String::new(), |down| format!(", down {}", span(down)));
                Self {
                    what: format!("{kind} {outcome} ({strategy})"),
                    who: by,
                    why: Some(reason.clone()).filter(|reason| !reason.is_empty()),
                    took: Some(format!("in {}{down}", span(*took_ms))),
                }
            }
            HistoryEntry::Rung { rung, reason } => row(rung.in_words(), reason.clone()),
        }
    }
}

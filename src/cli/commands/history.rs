//! `gatewayctl history`: every start, end and restart on record.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::args::HistoryArgs;
use crate::cli::known_gateway::KnownGateway;
use crate::cli::styled_line::{StyledLine, Tone};
use crate::cli::{CliError, Context, Exit};
use crate::diagnose::history_row::HistoryRow;
use crate::state::history::{self, HistoryEntry, PreviousEnd, Recorded};
use crate::text::human::{columns, span};
use crate::text::log::escape;

/// The answer with `--json`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryAnswer {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// The state directory.
    pub state_dir: String,
    /// The lines, the oldest first.
    pub entries: Vec<HistoryLine>,
}

/// A line of the record, and what follows from the lines around it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryLine {
    /// The line.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// How long nothing ran before this life, in milliseconds; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_ms: Option<u64>,
}

/// Shows the record.
///
/// # Errors
/// [`Exit::NotRunning`] where there is none; [`Exit::Permission`] where it may not be read.
pub async fn history(ctx: &Context, args: &HistoryArgs) -> Result<Exit, CliError> {
    let subject = KnownGateway::find(ctx).await?;
    let Some(dir) = subject.state.clone() else {
        return Err(none(subject));
    };
    let mut entries = with_gaps(history::read(&dir).collect());
    entries.drain(..entries.len().saturating_sub(args.lines as usize));
    for line in table(ctx, &entries) {
        ctx.ui.say(line);
    }
    ctx.ui.object(&HistoryAnswer {
        ok: true,
        instance: subject.instance,
        state_dir: dir.display().to_string(),
        entries,
    });
    Ok(Exit::Done)
}

fn none(subject: KnownGateway) -> CliError {
    if subject.unit.is_none() && subject.status.is_none() || !subject.unseen.is_empty() {
        return subject.unknown();
    }
    Exit::NotRunning
        .error(format!(
            "{} has no record yet: it has not run",
            subject.instance
        ))
        .with_help(format!("gatewayctl start --instance {}", subject.instance))
}

/// Adds how long nothing ran before each start that was not a hand-over.
fn with_gaps(lines: Vec<Recorded>) -> Vec<HistoryLine> {
    let mut ended: Option<(Timestamp, String)> = None;
    let gap = |recorded: Recorded| {
        let mut down_ms = None;
        match &recorded.entry {
            HistoryEntry::Ended { .. } => ended = Some((recorded.at, recorded.boot_id.clone())),
            HistoryEntry::Started { before, .. } => {
                let end = ended.take().filter(|(_, boot)| {
                    *boot == recorded.boot_id && *before == PreviousEnd::Planned
                });
                down_ms = end.and_then(|(at, _)| {
                    u64::try_from(recorded.at.duration_since(at).as_millis()).ok()
                });
            }
            HistoryEntry::Asked { .. }
            | HistoryEntry::HandedOver { .. }
            | HistoryEntry::Request { .. }
            | HistoryEntry::Cut { .. }
            | HistoryEntry::Sidecar { .. }
            | HistoryEntry::Rung { .. } => {}
        }
        HistoryLine { recorded, down_ms }
    };
    lines.into_iter().map(gap).collect()
}

/// The record for people, the newest last.
fn table(ctx: &Context, entries: &[HistoryLine]) -> Vec<StyledLine> {
    let zone = TimeZone::system();
    let cells = |line: &HistoryLine| {
        let row = HistoryRow::of(&line.recorded.entry);
        let down = line.down_ms.map(|down| format!("down {}", span(down)));
        let why = [row.why, row.who.map(|who| format!("by {who}"))];
        let why = why.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let time = line.recorded.at.to_zoned(zone.clone());
        let time = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let pid = format!("pid {}", line.recorded.pid);
        let took = row.took.or(down).unwrap_or_default();
        [time, pid, row.what, took, why].map(|cell| escape(&cell).into_owned())
    };
    let rows: Vec<[String; 5]> = entries.iter().map(cells).collect();
    let line = |cells: &[String; 5]| {
        let rest = cells[1..].join("  ");
        let time = ctx.ui.paint(&cells[0], Tone::Dim);
        time.and(format!("  {}", rest.trim_end()))
    };
    columns(&rows).iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::history::Requester;
    use crate::state::terms::{RequestKindName, RequestOutcome, RungName, StrategyName};

    fn line(second: i64, boot: &str, entry: HistoryEntry) -> Recorded {
        Recorded {
            at: Timestamp::from_second(second).unwrap(),
            pid: 7,
            boot_id: boot.into(),
            entry,
        }
    }

    fn started(before: PreviousEnd) -> HistoryEntry {
        HistoryEntry::Started {
            version: String::new(),
            supervisor: String::new(),
            rung: RungName::Normal,
            reason: None,
            before,
            oom_kills: None,
        }
    }

    fn ended(planned: bool) -> HistoryEntry {
        HistoryEntry::Ended {
            planned,
            code: 0,
            reason: "SIGTERM".parse().unwrap(),
            uptime_ms: 61_000,
            cut: vec![],
            trace: None,
        }
    }

    #[test]
    fn how_long_nothing_ran_is_known_after_a_planned_end_of_this_boot() {
        let lines = vec![
            line(1, "a", started(PreviousEnd::Unknown)),
            line(5, "a", ended(true)),
            line(7, "a", started(PreviousEnd::Planned)),
            line(8, "a", started(PreviousEnd::HandedOver)),
            line(9, "a", ended(true)),
            line(9, "a", ended(true)),
            line(20, "b", started(PreviousEnd::MachineDown)),
            line(30, "b", started(PreviousEnd::Unplanned(None))),
        ];
        let gaps = with_gaps(lines).into_iter().map(|line| line.down_ms);
        let gaps: Vec<Option<u64>> = gaps.collect();
        assert_eq!(gaps, [None, None, Some(2000), None, None, None, None, None]);
    }

    #[test]
    fn every_kind_of_line_in_words() {
        let row = |entry: &HistoryEntry| {
            let row = HistoryRow::of(entry);
            let cells = [Some(row.what), row.who, row.why, row.took];
            cells.into_iter().flatten().collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(row(&started(PreviousEnd::Unknown)), "started");
        assert_eq!(
            row(&started(PreviousEnd::Unplanned(Some("x".into())))),
            "started | after an unplanned end: x"
        );
        assert_eq!(row(&ended(true)), "ended, code 0 | SIGTERM | up 1 min 1 s");
        let request = HistoryEntry::Request {
            id: "r1".into(),
            kind: RequestKindName::Restart,
            sidecar: None,
            who: Requester {
                uid: Some(1000),
                pid: 7,
                program: Some("gatewayctl".into()),
                token: None,
            },
            reason: "deploy".into(),
            strategy: StrategyName::Respawn,
            phases: vec![],
            outcome: RequestOutcome::Done.into(),
            took_ms: 412,
            ended: vec![],
            clients: None,
            passages: vec![],
            downtime_ms: None,
        };
        assert_eq!(
            row(&request),
            "restart done (respawn) | gatewayctl uid 1000 | deploy | in 412 ms"
        );
        let cut = HistoryEntry::Cut {
            request: Some("r1".into()),
            sidecar: "main".into(),
            cut: vec!["GET / for 3 s".into(), "lease of pid 7".into()],
        };
        assert_eq!(row(&cut), "cut at main | GET / for 3 s, lease of pid 7");
        assert_eq!(
            row(&HistoryEntry::Rung {
                rung: RungName::SafeMode,
                reason: Some("9 starts".into())
            }),
            "safe mode | 9 starts"
        );
    }
}

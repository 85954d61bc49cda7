//! What processes that are dead could not record themselves: how they ended, and the end of what was
//! asked of them.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::{Begun, LifeRecord, RequestRecord};
use crate::config::Throttle;
use crate::control::protocol::LastRestart;
use crate::gateway::handover::PredecessorEnd;
use crate::os::oom;
use crate::os::process::{Stat, in_words};
use crate::state::boot_time::BootTime;
use crate::state::history::{self, ForeignEnd, HistoryEntry, PreviousEnd, Recorded};
use crate::state::startup_throttle;
use crate::state::terms::{EndReason, RequestEnd, RequestKindName, RequestOutcome};
use crate::state::trace::Carried;

impl LifeRecord {
    /// A life begins by itself. With the lock held, once. `unit_result` is the service manager's
    /// word for the end before, where it still has one.
    /// Blocks: without the record of earlier lives it is not known what this one has to do.
    pub fn begin(&self, throttle: &Throttle, unit_result: Option<&str>) -> Begun {
        self.flush();
        let lines = lines(&self.dir);
        let kills = oom::count().map(|count| count.kills);
        let (before, trace) = how_it_ended(&lines, &self.boot_id, |kills_before| {
            oom::end_of_life(unit_result, kills_before, kills)
        });
        if before == PreviousEnd::Planned {
            self.count_as_planned(&lines);
        }
        let of_the_dead = lines.iter().filter(|line| self.is_of_the_dead(line));
        of_the_dead.for_each(|line| self.end_unfinished(line, |_| died(line.pid)));
        Begun {
            start: startup_throttle::begin(&self.dir, throttle, &self.life(BootTime::now())),
            before,
            trace,
        }
    }

    /// A predecessor has ended. A restart that it did not end itself is done: this process serves.
    pub fn predecessor_ended(&self, end: PredecessorEnd) {
        let PredecessorEnd { pid, status } = end;
        self.write(move |this| {
            let its = |line: &Recorded| line.pid == pid && line.boot_id == this.boot_id;
            let lines: Vec<Recorded> = lines(&this.dir).into_iter().filter(its).collect();
            let has = |what: fn(&HistoryEntry) -> bool| lines.iter().any(|line| what(&line.entry));
            let begun = has(|entry| matches!(entry, HistoryEntry::Started { .. }));
            let ended = has(|entry| {
                matches!(
                    entry,
                    HistoryEntry::Ended { .. } | HistoryEntry::HandedOver { .. }
                )
            });
            match begun && !ended {
                true => {
                    let how = status.map_or("was killed or crashed".to_owned(), in_words);
                    warn!("[gateway] pid {pid} {how} before it finished its work");
                    if let Some(signal) = status.and_then(signal_of) {
                        this.append_killed(pid, signal);
                    }
                }
                false => info!("[gateway] pid {pid} has finished its work"),
            }
            for line in lines {
                this.end_unfinished(&line, |kind| match kind {
                    RequestKindName::Restart => RequestOutcome::Done.into(),
                    RequestKindName::Reload
                    | RequestKindName::SidecarRestart
                    | RequestKindName::Recover => died(pid),
                });
            }
        });
    }

    /// Writes the end of a request for the process that accepted it and did not live to end it.
    fn end_unfinished(&self, line: &Recorded, end: impl FnOnce(RequestKindName) -> RequestEnd) {
        // What has ended is not read.
        let HistoryEntry::Asked {
            id,
            kind,
            sidecar,
            who,
            reason,
            strategy,
        } = &line.entry
        else {
            return;
        };
        let took = Timestamp::now().duration_since(line.at).as_millis();
        let asked = RequestRecord {
            who: who.clone(),
            strategy: *strategy,
            phases: Vec::new(),
        };
        let took_ms = u64::try_from(took).unwrap_or(0);
        let (id, reason, outcome) = (id.clone(), reason.clone(), end(*kind));
        let end = LastRestart {
            took_ms,
            sidecar: sidecar.clone(),
            ..LastRestart::of(id, *kind, reason, outcome)
        };
        self.request(asked, &end);
    }

    /// Whether the process that wrote a line, before this one began, is gone. In a container each
    /// life may have the same number.
    fn is_of_the_dead(&self, line: &Recorded) -> bool {
        line.boot_id != self.boot_id
            || line.pid == self.pid
            || Stat::read(line.pid).is_none_or(|stat| stat.is_dead())
    }

    /// The last life did not die of a fault. It says so itself, unless another process ended it and
    /// wrote that down.
    fn count_as_planned(&self, lines: &[Recorded]) {
        let begun = |line: &&Recorded| matches!(line.entry, HistoryEntry::Started { .. });
        if let Some(life) = lines.iter().rfind(begun) {
            startup_throttle::ended_planned(&self.dir, life.pid);
        }
    }

    /// A signal ended process `pid`, which this process had started.
    pub fn killed(&self, pid: u32, signal: Signal) {
        self.write(move |this| this.append_killed(pid, signal));
    }

    /// A process that came before this one ended; how counts where a signal did it, and the process
    /// did not write that it ended.
    pub fn ended_unplanned(&self, end: PredecessorEnd) {
        if let Some(signal) = end.status.and_then(signal_of) {
            self.killed(end.pid, signal);
        }
    }

    fn append_killed(&self, pid: u32, signal: Signal) {
        let end = ForeignEnd::killed(pid, signal);
        let Some(line) = self.history.foreign_end(&self.dir, end) else {
            return;
        };
        if let Err(error) = self.history.append(&line) {
            warn!("[gateway] cannot record that {signal} ended pid {pid}: {error}");
        }
    }
}

fn signal_of(status: ExitStatus) -> Option<Signal> {
    Signal::try_from(status.signal()?).ok()
}

fn lines(dir: &Path) -> Vec<Recorded> {
    history::read(dir).collect()
}

fn died(pid: u32) -> RequestEnd {
    RequestEnd {
        outcome: RequestOutcome::Failed,
        cause: Some(format!("pid {pid} ended before it was done")),
    }
}

/// How the life before ended, by the history, and the trace it left. `memory` tells whether memory
/// ran out, by the count at that life's beginning.
pub(super) fn how_it_ended(
    lines: &[Recorded],
    boot_id: &str,
    memory: impl Fn(Option<u64>) -> Option<String>,
) -> (PreviousEnd, Option<Carried>) {
    // A predecessor that hands over ends after its successor began, so the end is looked for by
    // process.
    let begun = lines
        .iter()
        .enumerate()
        .rev()
        .find_map(|(index, line)| match &line.entry {
            HistoryEntry::Started { oom_kills, .. } => Some((index, line, *oom_kills)),
            _ => None,
        });
    let Some((index, life, kills)) = begun else {
        return (PreviousEnd::Unknown, None);
    };
    let end = lines[index..].iter().find_map(|line| match &line.entry {
        HistoryEntry::Ended {
            planned,
            reason,
            trace,
            ..
        } if line.pid == life.pid => Some((*planned, reason, *trace)),
        _ => None,
    });
    match end {
        // It does not slow down the next start by hand, but nobody planned it.
        Some((_, reason @ EndReason::CannotStart(_), _)) => {
            (PreviousEnd::Unplanned(Some(reason.to_string())), None)
        }
        Some((true, _, trace)) => (PreviousEnd::Planned, trace),
        Some((false, reason, _)) => (PreviousEnd::Unplanned(Some(reason.to_string())), None),
        None if life.boot_id != boot_id => (PreviousEnd::MachineDown, None),
        None => (PreviousEnd::Unplanned(memory(kills)), None),
    }
}

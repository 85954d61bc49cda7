//! Which lines of the journal and of the history belong to the run that ended, and which to the one
//! after it.

use jiff::{SignedDuration, Timestamp};

use super::evidence::EndEvidence;
use super::journal::{JournalEvent, JournalLine};
use crate::os::oom;
use crate::state::history::{HistoryEntry, PreviousEnd, Recorded};
use crate::state::terms::{RequestKindName, RequestOutcome};
use crate::systemd::words::ServiceResult;

/// A message that is older than this at the end of a run does not explain that end.
const LAST_MOMENTS: SignedDuration = SignedDuration::from_secs(10);

/// The last two runs, as far as the evidence tells.
pub struct Timeline<'a> {
    /// The journal of the run that ended: of the run before the current one, or of the last run.
    previous: Vec<&'a JournalLine>,
    /// The journal since the current run began.
    pub current: Vec<&'a JournalLine>,
    /// The history's entry about that end.
    pub end: Option<&'a Recorded>,
    pub ended_at: Option<Timestamp>,
    /// A restart that ended the run and left the next start to the service manager.
    pub scheduled: Option<&'a Recorded>,
    /// The last restart or reload in the current run that was done or failed.
    pub request: Option<&'a Recorded>,
    /// Whether the machine went down between the two runs.
    pub machine_went_down: bool,
    /// How the current run found the one before.
    before: Option<&'a PreviousEnd>,
    /// When the current run began.
    pub began: Option<Timestamp>,
}

impl<'a> Timeline<'a> {
    pub fn of(evidence: &'a EndEvidence) -> Self {
        let running = evidence.is_running();
        let (previous, current) = split_journal(&evidence.journal, running);
        let history = SplitHistory::of(&evidence.record, running);
        let end = history.end();
        let planned =
            end.is_some_and(|end| matches!(&end.entry, HistoryEntry::Ended { planned: true, .. }));
        let exit = previous
            .iter()
            .rfind(|line| line.event == JournalEvent::Exit)
            .map(|line| line.at);
        let inactive_since = evidence.stopped_unit().and_then(|unit| unit.inactive_since);
        let starting = current
            .first()
            .filter(|line| line.event == JournalEvent::Starting)
            .map(|line| line.at);
        let first_entry = history.current.first().map(|line| line.at);
        Self {
            end,
            ended_at: exit.or(end.map(|end| end.at)).or(inactive_since),
            scheduled: last_request(history.last_run, &[RequestOutcome::Scheduled])
                .filter(|_| planned),
            request: last_request(
                history.current,
                &[RequestOutcome::Done, RequestOutcome::Failed],
            ),
            machine_went_down: history.before() == Some(&PreviousEnd::MachineDown)
                || history.is_of_another_boot(evidence),
            before: history.before(),
            began: starting.or(first_entry).filter(|_| running),
            previous: previous.iter().collect(),
            current: current.iter().collect(),
        }
    }

    /// Whether a line was written shortly before the end.
    fn is_near_end(&self, line: &JournalLine) -> bool {
        self.ended_at
            .is_none_or(|ended| ended.duration_since(line.at) <= LAST_MOMENTS)
    }

    /// Whether no earlier run is known.
    pub fn is_first(&self) -> bool {
        let tells_of_an_end = |line: &&JournalLine| {
            matches!(
                line.event,
                JournalEvent::Exit
                    | JournalEvent::Failed
                    | JournalEvent::Stopping
                    | JournalEvent::OutOfMemory
            )
        };
        self.end.is_none()
            && !self.previous.iter().any(tells_of_an_end)
            && matches!(self.before, None | Some(PreviousEnd::Unknown))
    }

    /// The last line of this event in the run that ended.
    pub fn last(&self, event: JournalEvent) -> Option<&'a JournalLine> {
        self.previous
            .iter()
            .rfind(|line| line.event == event)
            .copied()
    }

    pub fn at(&self, event: JournalEvent) -> Option<Timestamp> {
        self.last(event).map(|line| line.at)
    }

    /// The end of the main process, as the service manager saw it.
    pub fn exit(&self) -> Option<&'a JournalLine> {
        self.last(JournalEvent::Exit)
    }

    /// Whether the service manager stopped it on request.
    pub fn stopped_on_request(&self) -> bool {
        self.last(JournalEvent::Stopping).is_some()
    }

    /// Whether it ended because memory ran out, by the manager's result, by a line of the journal or
    /// by what the next run found out.
    pub fn out_of_memory(&self, evidence: &EndEvidence) -> bool {
        let by_result = self
            .last(JournalEvent::Failed)
            .is_some_and(|line| line.result == ServiceResult::OomKill)
            || evidence
                .stopped_unit()
                .is_some_and(|unit| unit.result == ServiceResult::OomKill);
        // With OOMPolicy=continue the kernel may have killed a sidecar, and the gateway went on.
        let by_line = self
            .last(JournalEvent::OutOfMemory)
            .is_some_and(|line| self.is_near_end(line))
            && self.exit().is_none_or(|exit| exit.status == libc::SIGKILL);
        let by_next_run = matches!(self.before, Some(PreviousEnd::Unplanned(Some(cause))) if oom::names_memory(cause));
        by_result || (by_line && (self.exit().is_some() || self.end.is_none())) || by_next_run
    }

    /// The limit in "Watchdog timeout (limit 30s)!".
    pub fn watchdog_limit(&self) -> Option<String> {
        let text = &self.last(JournalEvent::Watchdog)?.text;
        Some(text.split_once("(limit ")?.1.split_once(')')?.0.to_owned())
    }

    /// The manager's last error or warning, without the name of the unit.
    pub fn complaint(&self) -> Option<String> {
        let text = &self.last(JournalEvent::Complaint)?.text;
        let said = text
            .split_once(": ")
            .map_or(text.as_str(), |(_, said)| said);
        Some(said.to_owned())
    }

    /// The last error of the gateway itself.
    pub fn last_words(&self) -> Option<String> {
        let line = self.previous.iter().rfind(|line| {
            line.event == JournalEvent::Gateway && line.priority <= 3 && self.is_near_end(line)
        })?;
        let text = line.text.strip_prefix("[gateway] ").unwrap_or(&line.text);
        Some(text.to_owned())
    }

    /// What the current run found out about the end of the one before.
    pub fn said_by_next_run(&self) -> Option<String> {
        match self.before {
            Some(PreviousEnd::Unplanned(cause)) => cause.clone(),
            _ => None,
        }
    }
}

/// The journal of the run that ended, and of the current run; a run begins with
/// [`JournalEvent::Starting`].
fn split_journal(journal: &[JournalLine], running: bool) -> (&[JournalLine], &[JournalLine]) {
    let mut starts = journal
        .iter()
        .enumerate()
        .filter(|(_, line)| line.event == JournalEvent::Starting)
        .map(|(index, _)| index)
        .rev();
    let (last, previous) = (starts.next(), starts.next());
    match (running, last) {
        (true, Some(last)) => (&journal[previous.unwrap_or(0)..last], &journal[last..]),
        (true, None) => (&journal[..0], journal),
        (false, last) => (&journal[last.unwrap_or(0)..], &journal[..0]),
    }
}

/// The history of the run that ended, and of the current run.
struct SplitHistory<'a> {
    /// From the last start before the current run; that start may have taken over from another
    /// process.
    last_run: &'a [Recorded],
    /// Empty when nothing is running.
    current: &'a [Recorded],
}

impl<'a> SplitHistory<'a> {
    fn of(record: &'a [Recorded], running: bool) -> Self {
        // A process that took over continues the run of its predecessor.
        let begins_run = |line: &Recorded| matches!(&line.entry, HistoryEntry::Started { before, .. } if *before != PreviousEnd::HandedOver);
        let begun = if running {
            record.iter().rposition(begins_run).unwrap_or(0)
        } else {
            record.len()
        };
        let (older, current) = record.split_at(begun);
        let last_start = older
            .iter()
            .rposition(|line| matches!(line.entry, HistoryEntry::Started { .. }));
        Self {
            last_run: &older[last_start.unwrap_or(older.len())..],
            current,
        }
    }

    /// The entry about the end of the process that started last.
    fn end(&self) -> Option<&'a Recorded> {
        let pid = self.last_run.first()?.pid;
        self.last_run
            .iter()
            .rfind(|line| line.pid == pid && matches!(line.entry, HistoryEntry::Ended { .. }))
    }

    /// How the current run found the one before.
    fn before(&self) -> Option<&'a PreviousEnd> {
        match &self.current.first()?.entry {
            HistoryEntry::Started { before, .. } => Some(before),
            _ => None,
        }
    }

    /// Whether the run that ended belongs to an earlier boot.
    fn is_of_another_boot(&self, evidence: &EndEvidence) -> bool {
        // A service in a container may see another boot id than the caller, so the current run is
        // the better witness. A manager that remembers a start has not been restarted since.
        let remembers = evidence.is_start_remembered();
        let now = match self.current.first() {
            Some(line) => Some(&line.boot_id),
            None => Some(&evidence.boot_id).filter(|_| !remembers),
        };
        let last = self.last_run.first().map(|line| &line.boot_id);
        last.zip(now)
            .is_some_and(|(last, now)| !last.is_empty() && !now.is_empty() && last != now)
    }
}

/// The last restart or reload with one of these outcomes.
fn last_request<'a>(lines: &'a [Recorded], wanted: &[RequestOutcome]) -> Option<&'a Recorded> {
    lines.iter().rfind(|line| {
        matches!(&line.entry, HistoryEntry::Request { kind, outcome, .. } if *kind != RequestKindName::Recover && wanted.contains(&outcome.outcome))
    })
}

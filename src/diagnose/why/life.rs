//! Which lines of journal and record belong to the life that has ended, and which to the one after.

use jiff::{SignedDuration, Timestamp};

use super::evidence::Evidence;
use super::journal::{Kind, Line};
use crate::state::history::{HistoryEntry, PreviousEnd, Recorded};

/// What was said so long before an end may have to do with it.
const LAST_MOMENTS: SignedDuration = SignedDuration::from_secs(10);

/// The last two lives, as far as lines tell.
pub struct Lives<'a> {
    /// The journal of the life that has ended: that of before when one is under way, else the last
    /// one.
    pub lines: Vec<&'a Line>,
    /// The journal since the life under way began.
    pub since: Vec<&'a Line>,
    /// The record of that end.
    pub end: Option<&'a Recorded>,
    /// When that life ended, as somebody saw it.
    pub ended: Option<Timestamp>,
    /// A restart that ended the life by leaving the next one to the service manager.
    pub scheduled: Option<&'a Recorded>,
    /// The last restart or reload of the life under way.
    pub request: Option<&'a Recorded>,
    /// Whether the machine went down in between.
    pub machine_went_down: bool,
    /// How the life under way found the one before.
    before: Option<&'a PreviousEnd>,
    /// When the life under way began.
    began: Option<Timestamp>,
}

impl<'a> Lives<'a> {
    /// Sorts what is known.
    pub fn of(evidence: &'a Evidence) -> Self {
        let up = evidence.is_up();
        let starts: Vec<usize> = evidence
            .journal
            .iter()
            .enumerate()
            .filter(|(_, line)| line.kind == Kind::Starting)
            .map(|(index, _)| index)
            .collect();
        let (last, previous) = (starts.last().copied(), starts.iter().rev().nth(1).copied());
        let journal = &evidence.journal[..];
        let (lines, since) = match (up, last) {
            (true, Some(last)) => (&journal[previous.unwrap_or(0)..last], &journal[last..]),
            (true, None) => (&journal[..0], journal),
            (false, last) => (&journal[last.unwrap_or(0)..], &journal[..0]),
        };
        let lines: Vec<&Line> = lines.iter().collect();

        // A life that took over from one that lived began with the one that was started.
        let record = &evidence.record[..];
        let chain = |line: &&Recorded| matches!(&line.entry, HistoryEntry::Started { before, .. } if *before != PreviousEnd::HandedOver);
        let begun = record.iter().rposition(|line| chain(&line)).filter(|_| up);
        let (older, own) = record.split_at(begun.unwrap_or(if up { 0 } else { record.len() }));
        let before = own.first().and_then(|line| match &line.entry {
            HistoryEntry::Started { before, .. } => Some(before),
            _ => None,
        });
        let last_life = older
            .iter()
            .rposition(|line| matches!(line.entry, HistoryEntry::Started { .. }));
        let end = last_life.and_then(|index| {
            let pid = older[index].pid;
            older[index..]
                .iter()
                .rev()
                .find(|line| line.pid == pid && matches!(line.entry, HistoryEntry::Ended { .. }))
        });
        let asked = |line: &&Recorded, outcome: &str| matches!(&line.entry, HistoryEntry::Request { kind, outcome: ended, .. } if matches!(kind.as_str(), "restart" | "reload") && ended == outcome);
        let scheduled = last_life.and_then(|index| {
            older[index..]
                .iter()
                .rev()
                .find(|line| asked(line, "scheduled"))
        });
        let boot_of_last = last_life.map(|index| older[index].boot_id.as_str());
        // A service in a container may see another boot id than we do: the life under way is the
        // better witness, and a manager that remembers a start is one of this boot.
        let remembers = evidence
            .unit
            .as_ref()
            .is_some_and(|unit| unit.started.is_some());
        let boot = match own.first() {
            Some(line) => Some(line.boot_id.as_str()),
            None => Some(evidence.boot_id.as_str()).filter(|_| !remembers),
        };
        let rebooted = boot_of_last
            .zip(boot)
            .is_some_and(|(last, now)| !last.is_empty() && !now.is_empty() && last != now);
        let machine_went_down = matches!(before, Some(PreviousEnd::MachineDown)) || rebooted;
        let exit = lines
            .iter()
            .rev()
            .find(|line| line.kind == Kind::Exit)
            .map(|line| line.at);
        Self {
            end,
            ended: exit.or(end.map(|end| end.at)).or(evidence
                .unit
                .as_ref()
                .filter(|_| !up)
                .and_then(|unit| unit.inactive_since)),
            scheduled: scheduled.filter(|_| {
                end.is_some_and(|end| {
                    matches!(&end.entry, HistoryEntry::Ended { planned: true, .. })
                })
            }),
            request: own.iter().rev().find(|line| asked(line, "done")),
            machine_went_down,
            before,
            began: since
                .first()
                .filter(|line| line.kind == Kind::Starting)
                .map(|line| line.at)
                .or(own.first().map(|line| line.at))
                .filter(|_| up),
            since: since.iter().collect(),
            lines,
        }
    }

    /// Whether a line is of the last moments: an older one explains no end.
    fn is_near_end(&self, line: &Line) -> bool {
        self.ended
            .is_none_or(|ended| ended.duration_since(line.at) <= LAST_MOMENTS)
    }

    /// When the life under way began.
    pub fn current_began(&self) -> Option<Timestamp> {
        self.began
    }

    /// Whether nothing is known of a life before.
    pub fn is_first(&self) -> bool {
        let speaks = |line: &&Line| {
            matches!(
                line.kind,
                Kind::Exit | Kind::Failed | Kind::Stopping | Kind::OutOfMemory
            )
        };
        self.end.is_none()
            && !self.lines.iter().any(speaks)
            && matches!(self.before, None | Some(PreviousEnd::Unknown))
    }

    /// The last line of this kind in the life that has ended.
    pub fn last(&self, kind: Kind) -> Option<&'a Line> {
        self.lines
            .iter()
            .rev()
            .find(|line| line.kind == kind)
            .copied()
    }

    pub fn at(&self, kind: Kind) -> Option<Timestamp> {
        self.last(kind).map(|line| line.at)
    }

    /// The end of the main process, as its manager saw it.
    pub fn exit(&self) -> Option<&'a Line> {
        self.last(Kind::Exit)
    }

    /// Whether the manager was asked to stop it.
    pub fn stopped_on_request(&self) -> bool {
        self.last(Kind::Stopping).is_some()
    }

    /// Whether memory ran out, by whoever noticed.
    pub fn out_of_memory(&self, evidence: &Evidence) -> bool {
        let unit = evidence.unit.as_ref().filter(|_| !evidence.is_up());
        let by_result = self
            .last(Kind::Failed)
            .is_some_and(|line| line.result == "oom-kill")
            || unit.is_some_and(|unit| unit.result == "oom-kill");
        // With OOMPolicy=continue the kernel may have ended a sidecar, and the service lived on.
        let by_line = self
            .last(Kind::OutOfMemory)
            .is_some_and(|line| self.is_near_end(line))
            && self.exit().is_none_or(|exit| exit.status == libc::SIGKILL);
        let by_record = matches!(self.before, Some(PreviousEnd::Unplanned(Some(cause))) if cause.contains("memory ran out"));
        by_result || (by_line && (self.exit().is_some() || self.end.is_none())) || by_record
    }

    /// The limit in "Watchdog timeout (limit 30s)!".
    pub fn watchdog_limit(&self) -> Option<String> {
        let text = &self.last(Kind::Watchdog)?.text;
        Some(text.split_once("(limit ")?.1.split_once(')')?.0.to_owned())
    }

    /// What the manager complained of last, without the unit's name.
    pub fn complaint(&self) -> Option<String> {
        let text = &self.last(Kind::Complaint)?.text;
        Some(
            text.split_once(": ")
                .map_or(text.as_str(), |(_, rest)| rest)
                .to_owned(),
        )
    }

    /// The last error of the gateway itself.
    pub fn last_words(&self) -> Option<String> {
        let line = self.lines.iter().rev().find(|line| {
            line.kind == Kind::Gateway && line.priority <= 3 && self.is_near_end(line)
        })?;
        Some(
            line.text
                .strip_prefix("[gateway] ")
                .unwrap_or(&line.text)
                .to_owned(),
        )
    }

    /// What the life under way could tell of the end of the one before.
    pub fn said_before(&self) -> Option<String> {
        match self.before {
            Some(PreviousEnd::Unplanned(cause)) => cause.clone(),
            _ => None,
        }
    }
}

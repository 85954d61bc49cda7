//! What the clients see, as it happens: a mark for each request, a line for each half second.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::load::{ClientRequest, Load};
use crate::cli::Ui;
use crate::cli::styled_line::{StyledLine, Tone};

/// A line is this long.
const SLICE: Duration = Duration::from_millis(500);

/// An answer that takes longer has waited for a server: without a restart it takes a tenth of that.
const WAITED: Duration = Duration::from_millis(250);

/// So many marks fit into a line of a terminal; of more requests the number is shown.
const MARKS_MAX: usize = 64;

/// Requests in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// How many ended.
    pub requests: u64,
    /// Those of them that had no good answer.
    pub failed: u64,
    /// Those that waited at the front door.
    pub waited: u64,
    /// The longest time without a good answer to anybody, in milliseconds.
    pub longest_gap_ms: u64,
    /// The slowest good answer, in milliseconds.
    pub slowest_ms: u64,
}

/// Counts, from a moment on.
#[derive(Clone, Copy, Debug)]
struct SeenTally {
    seen: Seen,
    last_good: Instant,
}

impl SeenTally {
    fn new(begun: Instant) -> Self {
        Self {
            seen: Seen::default(),
            last_good: begun,
        }
    }

    fn add(&mut self, answer: &ClientRequest) {
        self.seen.requests += 1;
        if !answer.good {
            self.seen.failed += 1;
            return;
        }
        let took = answer.ended.saturating_duration_since(answer.sent);
        self.seen.waited += u64::from(took > WAITED);
        self.seen.slowest_ms = self.seen.slowest_ms.max(took.as_millis() as u64);
        self.quiet_until(answer.ended);
        self.last_good = self.last_good.max(answer.ended);
    }

    fn quiet_until(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_good);
        self.seen.longest_gap_ms = self.seen.longest_gap_ms.max(gap.as_millis() as u64);
    }
}

/// The picture as far as it is drawn.
pub struct Picture {
    begun: Instant,
    /// The end of the line that is drawn.
    due: Instant,
    marks: Vec<Mark>,
    whole: SeenTally,
    part: Option<SeenTally>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Good,
    Waited,
    Failed,
}

impl Mark {
    fn of(answer: &ClientRequest) -> Self {
        let took = answer.ended.saturating_duration_since(answer.sent);
        match answer.good {
            false => Self::Failed,
            true if took > WAITED => Self::Waited,
            true => Self::Good,
        }
    }

    fn shown(self) -> (&'static str, Tone) {
        match self {
            Self::Good => (".", Tone::Good),
            Self::Waited => ("o", Tone::Busy),
            Self::Failed => ("X", Tone::Bad),
        }
    }
}

impl Picture {
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            due: begun + SLICE,
            marks: Vec::new(),
            whole: SeenTally::new(begun),
            part: None,
        }
    }

    /// Draws until something is done.
    pub async fn until<T>(&mut self, ui: &Ui, load: &mut Load, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        let mut lines = interval_at(self.due, SLICE);
        lines.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                biased;
                at = lines.tick() => self.line(ui, at, load.under_way()),
                Some(answer) = load.next() => self.add(&answer),
                done = &mut done => return done,
            }
        }
    }

    /// A line of its own between the others.
    pub fn mark(&self, ui: &Ui, text: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        ui.say(ui.paint(&format!("{at:>5.1}s {text}"), Tone::Strong));
    }

    /// From here on a part is counted by itself, too.
    pub fn begin_part(&mut self) {
        let begun = Instant::now();
        // What came last before it: a gap may begin there.
        let last_good = self.whole.last_good.min(begun);
        self.part = Some(SeenTally::new(last_good));
    }

    /// What was seen of the part, whatever has ended by now included.
    pub fn end_part(&mut self, load: &mut Load) -> Seen {
        while let Some(answer) = load.ready() {
            self.add(&answer);
        }
        let Some(mut part) = self.part.take() else {
            return Seen::default();
        };
        part.quiet_until(Instant::now());
        part.seen
    }

    /// The last line, and what was seen in all.
    pub fn finish(&mut self, ui: &Ui, load: &mut Load) -> Seen {
        while let Some(answer) = load.ready() {
            self.add(&answer);
        }
        if !self.marks.is_empty() {
            self.line(ui, Instant::now(), load.under_way());
        }
        self.whole.seen
    }

    fn add(&mut self, answer: &ClientRequest) {
        self.marks.push(Mark::of(answer));
        self.whole.add(answer);
        if let Some(part) = &mut self.part {
            part.add(answer);
        }
    }

    fn line(&mut self, ui: &Ui, at: Instant, waiting: usize) {
        self.due = at + SLICE;
        let at = at.saturating_duration_since(self.begun).as_secs_f64();
        let mut line = StyledLine::from(format!("{at:>5.1}s "));
        // What stands out is shown, though there be more than fit.
        let mut marks = std::mem::take(&mut self.marks);
        let hidden = marks.len().saturating_sub(MARKS_MAX);
        if hidden > 0 {
            marks.sort_by_key(|mark| std::cmp::Reverse(*mark as u8));
            marks.truncate(MARKS_MAX);
        }
        for run in marks.chunk_by(|one, next| one == next) {
            let (mark, tone) = run[0].shown();
            line = line.and(ui.paint(&mark.repeat(run.len()), tone));
        }
        if hidden > 0 {
            line = line.and(format!(" +{hidden}"));
        }
        if marks.is_empty() {
            line = line.and(ui.paint(&format!("{waiting} waiting"), Tone::Busy));
        }
        ui.say(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_between_good_answers_and_what_took_long_has_waited() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut tally = SeenTally::new(begun);
        for (sent, ended, good) in [
            (0, 20, true),
            (30, 50, true),
            (40, 60, false),
            (60, 400, true),
            (390, 410, true),
        ] {
            tally.add(&ClientRequest {
                sent: at(sent),
                ended: at(ended),
                good,
            });
        }
        let expected = Seen {
            requests: 5,
            failed: 1,
            waited: 1,
            longest_gap_ms: 350,
            slowest_ms: 340,
        };
        assert_eq!(tally.seen, expected);
    }
}

//! What one life of a gateway leaves behind: the throttle's record, the history, bundles, the last
//! good configuration.
//!
//! Nothing here fails, and nobody waits for the disk: a thread writes, in the order of the calls. A
//! disk that is full or stands still costs the record, not the service.

mod killed;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tracing::{info, warn};

use super::handover::failpoint;
use super::progress::CutWork;
use super::recovery::{RecoveryAction, ShownRecovery};
use crate::config::{Loaded, Throttle};
use crate::control::server::Caller;
use crate::os::jobs::Jobs;
use crate::os::oom;
use crate::os::process::{Stat, executable};
use crate::sidecar::SidecarNews;
use crate::state::boot_time::BootTime;
use crate::state::diagnostic_bundle::{self, Bundle};
use crate::state::history::{
    self, History, HistoryEntry, PhaseTime, PreviousEnd, Recorded, Requester,
};
use crate::state::owner::{self, Owner};
use crate::state::startup_throttle::{self, LifeStart, StartDecision};
use crate::state::terms::{EndReason, RequestEnd, RequestKindName, RequestOutcome, StrategyName};
use crate::state::trace::Carried;
use crate::state::{atomic_file, last_good_config};
use crate::text::redact::Redactor;

/// How much may wait for the disk: a restart writes about ten times.
const WRITES_MAX: usize = 1024;

/// How long an answer that tells of what is recorded waits for the disk, and so does the end of the
/// process. A disk that is only busy is faster.
const WRITTEN: Duration = Duration::from_secs(1);

/// Writes down what happens in one life.
#[derive(Clone, Debug)]
pub struct LifeRecord {
    dir: PathBuf,
    instance: String,
    boot_id: String,
    pid: u32,
    history: History,
    redactor: Redactor,
    writes: Jobs,
}

/// What the history tells of a request besides its end.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub who: Requester,
    /// Where the next generation was to live.
    pub strategy: StrategyName,
    /// Its steps so far.
    pub phases: Vec<PhaseTime>,
}

impl RequestRecord {
    /// By a client of the control socket; none for a signal, of which nothing is known.
    pub fn by(caller: Option<Caller>, strategy: StrategyName) -> Self {
        let who = caller.map_or_else(Requester::default, |Caller { uid, pid }| {
            let pid = u32::try_from(pid).unwrap_or(0);
            let program = executable(pid);
            Requester {
                uid: Some(uid),
                pid,
                program: program
                    .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
            }
        });
        Self {
            who,
            strategy,
            phases: Vec::new(),
        }
    }
}

/// What a life learns at its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// What it has to do before it starts sidecars.
    pub start: StartDecision,
    /// How the life before ended.
    pub before: PreviousEnd,
    /// The restart trace that the life before left to it.
    pub trace: Option<Carried>,
}

impl LifeRecord {
    /// For the state directory `dir`. Writes nothing yet.
    pub fn new(dir: &Path, instance: &str, redactor: &Redactor) -> Self {
        Self {
            dir: dir.to_owned(),
            instance: instance.to_owned(),
            boot_id: owner::boot_id(),
            pid: std::process::id(),
            history: History::open(dir),
            redactor: redactor.clone(),
            writes: Jobs::start("record", WRITES_MAX),
        }
    }

    /// Leaves a write to the thread.
    fn write(&self, write: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        self.left(self.writes.push(move || {
            reach_disk();
            write(&this);
        }));
    }

    /// The same for a part of `file`, which has to be there at last: it is written again while the
    /// disk is full.
    fn write_at_last(
        &self,
        file: &'static str,
        write: impl Fn(&Self) -> io::Result<()> + Send + 'static,
    ) {
        let this = self.clone();
        let mut told = false;
        self.left(self.writes.push_until_done(move || {
            reach_disk();
            let Err(error) = write(&this) else {
                return true;
            };
            if !std::mem::replace(&mut told, true) {
                let dir = this.dir.display();
                warn!("[gateway] cannot write {file} in {dir}: {error}");
            }
            !atomic_file::is_full(&error)
        }));
    }

    /// Says that a write was not left to the thread, if so.
    fn left(&self, left: bool) {
        if !left {
            warn!(
                "[gateway] cannot write to {}: its disk does not answer",
                self.dir.display()
            );
        }
    }

    /// Writes the throttle's record.
    fn throttle(&self, write: fn(&Path, &LifeStart<'_>)) {
        let now = BootTime::now();
        self.write(move |this| write(&this.dir, &this.life(now)));
    }

    /// Writes a line of the history.
    fn append(&self, entry: HistoryEntry) {
        let line = self.history.line(entry);
        self.write_at_last(history::FILE, move |this| this.history.append(&line));
    }

    /// Ends when what was recorded until now can be read, or the disk does not answer.
    pub fn written(&self) -> impl Future<Output = ()> + Send + use<> {
        let written = self.writes.done();
        async move {
            let _ = tokio::time::timeout(WRITTEN, written).await;
        }
    }

    /// Calls `answer` after [`written`](Self::written).
    pub fn when_written(&self, answer: impl FnOnce() + Send + 'static) {
        let written = self.written();
        tokio::spawn(async move {
            written.await;
            answer();
        });
    }

    /// Blocks until what was recorded until now can be read, or the disk does not answer.
    pub fn flush(&self) {
        self.writes.flush(WRITTEN);
    }

    fn life(&self, now: BootTime) -> LifeStart<'_> {
        LifeStart {
            pid: self.pid,
            boot_id: &self.boot_id,
            now,
        }
    }

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
        let of_the_dead = lines.iter().filter(|line| self.is_of_the_dead(line));
        of_the_dead.for_each(|line| self.end_unfinished(line, |_| died(line.pid)));
        Begun {
            start: startup_throttle::begin(&self.dir, throttle, &self.life(BootTime::now())),
            before,
            trace,
        }
    }

    /// A life begins by taking over from one that lives: when that one has let go.
    pub fn take_over(&self) {
        self.throttle(startup_throttle::take_over);
    }

    /// Who owns the state directory.
    pub fn owner(&self, owner: Owner) {
        self.write_at_last(owner::FILE, move |this| owner.write(&this.dir));
    }

    /// A predecessor has ended. A restart that it did not end itself is done: this process serves.
    pub fn predecessor_ended(&self, pid: u32) {
        self.write(move |this| {
            let its = |line: &Recorded| line.pid == pid && line.boot_id == this.boot_id;
            let lines: Vec<Recorded> = lines(&this.dir).into_iter().filter(its).collect();
            let has = |what: fn(&HistoryEntry) -> bool| lines.iter().any(|line| what(&line.entry));
            let begun = has(|entry| matches!(entry, HistoryEntry::Started { .. }));
            let ended = has(|entry| matches!(entry, HistoryEntry::Ended { .. }));
            match begun && !ended {
                true => {
                    warn!("[gateway] pid {pid} was killed or crashed before it finished its work")
                }
                false => info!("[gateway] pid {pid} has finished its work"),
            }
            for line in lines {
                this.end_unfinished(&line, |kind| match kind {
                    RequestKindName::Restart => RequestOutcome::Done.into(),
                    RequestKindName::Reload | RequestKindName::Recover => died(pid),
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
        self.request(asked, id, *kind, reason, end(*kind), took_ms);
    }

    /// Whether the process that wrote a line, before this one began, is gone. In a container each
    /// life may have the same number.
    fn is_of_the_dead(&self, line: &Recorded) -> bool {
        line.boot_id != self.boot_id
            || line.pid == self.pid
            || Stat::read(line.pid).is_none_or(|stat| stat.is_dead())
    }

    /// The life is under way.
    pub fn started(&self, supervisor: &str, standing: &ShownRecovery, before: PreviousEnd) {
        self.append(HistoryEntry::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            supervisor: supervisor.to_owned(),
            rung: standing.rung,
            reason: self.reason(standing),
            before,
            oom_kills: oom::count().map(|count| count.kills),
        });
    }

    /// Another rung of the ladder is reached.
    pub fn rung(&self, standing: &ShownRecovery) {
        self.append(HistoryEntry::Rung {
            rung: standing.rung,
            reason: self.reason(standing),
        });
    }

    /// Something noteworthy about a sidecar.
    pub fn sidecar(&self, news: &SidecarNews) {
        self.append(HistoryEntry::Sidecar {
            name: news.name.clone(),
            standing: news.standing,
            reason: self.redactor.text(&news.reason),
        });
    }

    /// A drain had to cut.
    pub fn cut(&self, work: &CutWork) {
        self.append(HistoryEntry::Cut {
            request: work.request.clone(),
            sidecar: work.sidecar.clone(),
            cut: work.cut.clone(),
        });
    }

    fn reason(&self, standing: &ShownRecovery) -> Option<String> {
        let reason = standing.reason.as_deref();
        reason.map(|reason| self.redactor.text(reason))
    }

    /// A request is accepted.
    pub fn asked(&self, asked: &RequestRecord, id: &str, kind: RequestKindName, reason: &str) {
        self.append(HistoryEntry::Asked {
            id: id.to_owned(),
            kind,
            who: asked.who.clone(),
            reason: self.redactor.text(reason),
            strategy: asked.strategy,
        });
    }

    /// A request is at its end.
    pub fn request(
        &self,
        asked: RequestRecord,
        id: &str,
        kind: RequestKindName,
        reason: &str,
        outcome: RequestEnd,
        took_ms: u64,
    ) {
        self.append(HistoryEntry::Request {
            id: id.to_owned(),
            kind,
            who: asked.who,
            reason: self.redactor.text(reason),
            strategy: asked.strategy,
            phases: asked.phases,
            outcome: RequestEnd {
                cause: outcome.cause.map(|cause| self.redactor.text(&cause)),
                ..outcome
            },
            took_ms,
            // Only who probes from outside can tell.
            downtime_ms: None,
        });
    }

    /// Does what the ladder asks of the record; other actions are not its business.
    pub fn perform(&self, action: &RecoveryAction) {
        match action {
            RecoveryAction::MarkTrial => self.throttle(startup_throttle::trial),
            RecoveryAction::MarkSafe => self.throttle(startup_throttle::safe),
            RecoveryAction::MarkStable => {
                self.write(|this| startup_throttle::stable(&this.dir, this.pid));
            }
            RecoveryAction::Alert(_) => {}
        }
    }

    /// An operator asks to forget earlier starts.
    pub fn forgive(&self) {
        self.write(|this| startup_throttle::clear(&this.dir));
    }

    /// A generation of this configuration is ready: it will do when a later one will not.
    pub fn good(&self, loaded: &Loaded) {
        let loaded = loaded.clone();
        self.write(move |this| {
            if let Err(error) = last_good_config::save(&this.dir, &loaded) {
                warn!(
                    "[gateway] cannot keep the configuration as the last good one in {}: {error}",
                    this.dir.display()
                );
            }
        });
    }

    /// The life ends. `planned` says that it was a stop, a restart or a hand-over: then the next
    /// start is not slowed down for it.
    pub fn ended(
        &self,
        planned: bool,
        code: u8,
        reason: &EndReason,
        uptime_ms: u64,
        cut: Vec<String>,
        trace: Option<Carried>,
    ) {
        if planned {
            self.write(|this| startup_throttle::ended_planned(&this.dir, this.pid));
        }
        let Ok(reason) = self.redactor.text(&reason.to_string()).parse();
        self.append(HistoryEntry::Ended {
            planned,
            code,
            reason,
            uptime_ms,
            cut,
            trace,
        });
    }

    /// Keeps what is known in a bundle, and tells where.
    pub fn bundle(&self, reason: &str, error: Option<&str>, uptime_ms: u64, status: Value) {
        let (reason, error) = (reason.to_owned(), error.map(str::to_owned));
        let evidence = oom::evidence();
        self.write(move |this| {
            let bundle = Bundle {
                reason: &reason,
                error: error.as_deref(),
                uptime_ms,
                instance: &this.instance,
                status,
                evidence,
            };
            match diagnostic_bundle::write(&this.dir, &bundle, &this.redactor) {
                Ok(path) => info!(
                    "[gateway] what is known about it is kept in {}",
                    path.display()
                ),
                Err(error) => warn!(
                    "[gateway] cannot keep a bundle in {}: {error}",
                    this.dir.display()
                ),
            }
        });
    }
}

/// Here a test build may stand still, as a disk that does not answer.
fn reach_disk() {
    failpoint::pass("record.write");
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
fn how_it_ended(
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

#[cfg(test)]
mod tests;

//! What one life of a gateway leaves behind: the throttle's record, the history, bundles, the last
//! good configuration.
//!
//! Nothing here fails, and nobody waits for the disk: a thread writes, in the order of the calls. A
//! disk that is full or stands still costs the record, not the service.

mod dead_lives;
mod writes;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{info, warn};

use super::lifecycle::RequestKind;
use super::progress::CutWork;
use super::recovery::{RecoveryAction, ShownRecovery};
use crate::config::Loaded;
use crate::control::access::Caller;
use crate::control::protocol::LastRestart;
use crate::os::jobs::Jobs;
use crate::os::oom;
use crate::os::process::executable;
use crate::sidecar::SidecarNews;
use crate::state::boot_time::BootTime;
use crate::state::diagnostic_bundle::{self, Bundle};
use crate::state::history::{self, History, HistoryEntry, PhaseTime, PreviousEnd, Requester};
use crate::state::last_good_config;
use crate::state::owner::{self, Owner};
use crate::state::startup_throttle::{self, LifeStart, StartDecision};
use crate::state::terms::{EndReason, RequestEnd, StrategyName, cut_reason};
use crate::state::trace::Carried;
use crate::text::redact::Redactor;

/// How much may wait for the disk: a restart writes about ten times.
const WRITES_MAX: usize = 1024;

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
        let who = match caller {
            None => Requester::default(),
            Some(Caller::Local { uid, .. }) => {
                let pid = caller.map_or(0, Caller::pid);
                let program = executable(pid);
                Requester {
                    uid: Some(uid),
                    pid,
                    program: program
                        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
                    token: None,
                }
            }
            Some(remote @ Caller::Remote { .. }) => Requester {
                token: Some(remote.to_string()),
                ..Requester::default()
            },
        };
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

    fn life(&self, now: BootTime) -> LifeStart<'_> {
        LifeStart {
            pid: self.pid,
            boot_id: &self.boot_id,
            now,
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
    pub fn asked(&self, asked: &RequestRecord, id: &str, kind: &RequestKind, reason: &str) {
        self.append(HistoryEntry::Asked {
            id: id.to_owned(),
            kind: kind.name(),
            sidecar: kind.sidecar().map(str::to_owned),
            who: asked.who.clone(),
            reason: cut_reason(&self.redactor.text(reason)),
            strategy: asked.strategy,
        });
    }

    /// A request is at its end.
    pub fn request(&self, asked: RequestRecord, end: &LastRestart) {
        let outcome = &end.outcome;
        self.append(HistoryEntry::Request {
            id: end.request.clone(),
            kind: end.kind,
            sidecar: end.sidecar.clone(),
            who: asked.who,
            reason: cut_reason(&self.redactor.text(&end.reason)),
            strategy: asked.strategy,
            phases: asked.phases,
            outcome: RequestEnd {
                cause: (outcome.cause.as_ref()).map(|cause| self.redactor.text(cause)),
                ..outcome.clone()
            },
            took_ms: end.took_ms,
            ended: end.ended.clone(),
            clients: end.clients.clone(),
            passages: end.passages.clone(),
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

    /// This process has handed over, and stays in front of `to`.
    pub fn stays_in_front(&self, to: u32, uptime_ms: u64, cut: Vec<String>) {
        self.append(HistoryEntry::HandedOver { to, uptime_ms, cut });
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

#[cfg(test)]
mod tests;

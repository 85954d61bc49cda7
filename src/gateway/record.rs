//! What one life of a gateway leaves behind: the throttle's record, the history, bundles, the last
//! good configuration.
//!
//! Nothing here fails: a full disk costs the record, not the service.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{info, warn};

use super::recovery::{RecoveryAction, ShownRecovery};
use crate::config::{Loaded, Throttle};
use crate::control::server::Caller;
use crate::os::oom;
use crate::os::process::executable;
use crate::sidecar::SidecarNews;
use crate::state::boot_time::BootTime;
use crate::state::diagnostic_bundle::{self, Bundle};
use crate::state::history::{
    self, History, HistoryEntry, PhaseTime, PreviousEnd, Recorded, Requester,
};
use crate::state::startup_throttle::{self, LifeStart, StartDecision};
use crate::state::terms::{EndReason, RequestEnd, RequestKindName, StrategyName};
use crate::state::trace::Carried;
use crate::state::{last_good_config, owner};
use crate::text::redact::Redactor;

/// Writes down what happens in one life.
#[derive(Clone, Debug)]
pub struct LifeRecord {
    dir: PathBuf,
    instance: String,
    boot_id: String,
    pid: u32,
    history: History,
    redactor: Redactor,
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
        }
    }

    fn life(&self) -> LifeStart<'_> {
        LifeStart {
            pid: self.pid,
            boot_id: &self.boot_id,
            now: BootTime::now(),
        }
    }

    /// A life begins by itself. With the lock held, once. `unit_result` is the service manager's
    /// word for the end before, where it still has one.
    pub fn begin(&self, throttle: &Throttle, unit_result: Option<&str>) -> Begun {
        let lines: Vec<Recorded> = history::read(&self.dir).collect();
        let kills = oom::count().map(|count| count.kills);
        let (before, trace) = how_it_ended(&lines, &self.boot_id, |kills_before| {
            oom::end_of_life(unit_result, kills_before, kills)
        });
        Begun {
            start: startup_throttle::begin(&self.dir, throttle, &self.life()),
            before,
            trace,
        }
    }

    /// A life begins by taking over from one that lives: when that one has let go.
    pub fn take_over(&self) {
        startup_throttle::take_over(&self.dir, &self.life());
    }

    /// The life is under way.
    pub fn started(&self, supervisor: &str, standing: &ShownRecovery, before: PreviousEnd) {
        self.history.append(&HistoryEntry::Started {
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
        self.history.append(&HistoryEntry::Rung {
            rung: standing.rung,
            reason: self.reason(standing),
        });
    }

    /// Something noteworthy about a sidecar.
    pub fn sidecar(&self, news: &SidecarNews) {
        self.history.append(&HistoryEntry::Sidecar {
            name: news.name.clone(),
            standing: news.standing,
            reason: self.redactor.text(&news.reason),
        });
    }

    fn reason(&self, standing: &ShownRecovery) -> Option<String> {
        let reason = standing.reason.as_deref();
        reason.map(|reason| self.redactor.text(reason))
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
        self.history.append(&HistoryEntry::Request {
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
            RecoveryAction::MarkTrial => startup_throttle::trial(&self.dir, &self.life()),
            RecoveryAction::MarkSafe => startup_throttle::safe(&self.dir, &self.life()),
            RecoveryAction::MarkStable => startup_throttle::stable(&self.dir, self.pid),
            RecoveryAction::Alert(_) => {}
        }
    }

    /// An operator asks to forget earlier starts.
    pub fn forgive(&self) {
        startup_throttle::clear(&self.dir);
    }

    /// A generation of this configuration is ready: it will do when a later one will not.
    pub fn good(&self, loaded: &Loaded) {
        if let Err(error) = last_good_config::save(&self.dir, loaded) {
            warn!(
                "[gateway] cannot keep the configuration as the last good one in {}: {error}",
                self.dir.display()
            );
        }
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
            startup_throttle::ended_planned(&self.dir, self.pid);
        }
        let Ok(reason) = self.redactor.text(&reason.to_string()).parse();
        self.history.append(&HistoryEntry::Ended {
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
        let bundle = Bundle {
            reason,
            error,
            uptime_ms,
            instance: &self.instance,
            status,
            evidence: oom::evidence(),
        };
        match diagnostic_bundle::write(&self.dir, &bundle, &self.redactor) {
            Ok(path) => info!(
                "[gateway] what is known about it is kept in {}",
                path.display()
            ),
            Err(error) => warn!(
                "[gateway] cannot keep a bundle in {}: {error}",
                self.dir.display()
            ),
        }
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
        Some((true, _, trace)) => (PreviousEnd::Planned, trace),
        Some((false, reason, _)) => (PreviousEnd::Unplanned(Some(reason.to_string())), None),
        None if life.boot_id != boot_id => (PreviousEnd::MachineDown, None),
        None => (PreviousEnd::Unplanned(memory(kills)), None),
    }
}

#[cfg(test)]
mod tests;

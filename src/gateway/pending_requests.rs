//! Whoever waits for the end of a restart or reload, and what they are told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{info, warn};

use super::generation::one_line;
use super::lifecycle::{Event, Phase, RequestKind, RequestVerdict};
use super::record::{LifeRecord, RequestRecord};
use super::recovery::Rung;
use super::run_loop::Gateway;
use crate::control::protocol::{
    Failure, FailureCode, GenerationInfo, InhibitParams, LastRestart, Outcome, Progress,
    RestartParams,
};
use crate::control::server::{Caller, Reply};
use crate::state::history;

/// So many steps of one request are remembered.
const PHASES_MAX: usize = 40;

/// One request on its way.
#[derive(Debug)]
pub struct Waiting {
    /// Whom to answer; none for a signal.
    pub reply: Option<Reply>,
    pub kind: RequestKind,
    pub reason: String,
    /// Answer only when the generation before is gone.
    pub drained: bool,
    /// When it was asked.
    pub begun: Instant,
    /// The same for people, RFC 3339.
    pub at: String,
    pub before: GenerationInfo,
    pub asked: RequestRecord,
}

/// How things stand when a request ends.
#[derive(Clone, Debug)]
pub struct End {
    pub after: GenerationInfo,
    /// Why it failed, if it did.
    pub code: FailureCode,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The generation that still finishes its work.
    pub draining: Option<u64>,
    /// A reload that found nothing to do.
    pub unchanged: bool,
    /// The process that serves now, where it is not this one.
    pub pid: Option<u32>,
}

/// All of them, and those who wait for a drain after their restart is done.
#[derive(Debug, Default)]
pub struct Answers {
    waiting: HashMap<String, Waiting>,
    for_drain: Vec<(u64, Reply, Outcome)>,
    count: u64,
    /// Where requests are remembered.
    record: Option<LifeRecord>,
    /// How the last one ended.
    pub last: Option<LastRestart>,
}

impl Answers {
    /// None yet; each is remembered at its end.
    pub fn recorded(record: LifeRecord) -> Self {
        Self {
            record: Some(record),
            ..Self::default()
        }
    }

    /// A name for a request: the process and a number, so that it is unique across lives.
    pub fn next_id(&mut self) -> String {
        self.count += 1;
        format!("r{}-{}", std::process::id(), self.count)
    }

    pub fn wait(&mut self, id: String, waiting: Waiting) {
        self.waiting.insert(id, waiting);
    }

    /// Why a request was asked, and when.
    pub fn about(&self, id: &str) -> (String, String) {
        self.waiting
            .get(id)
            .map(|waiting| (waiting.reason.clone(), waiting.at.clone()))
            .unwrap_or_default()
    }

    /// What a signal asked for, which nobody waits for; none for a request with somebody who asks
    /// again.
    pub fn unattended(&self, id: &str) -> Option<RequestKind> {
        self.waiting
            .get(id)
            .filter(|waiting| waiting.reply.is_none())
            .map(|waiting| waiting.kind)
    }

    /// Passes a step on.
    pub fn progress(&mut self, progress: &Progress) {
        if let Some(waiting) = self
            .waiting
            .get_mut(&progress.request)
            .filter(|waiting| waiting.asked.phases.len() < PHASES_MAX)
        {
            let at_ms = waiting.begun.elapsed().as_millis() as u64;
            waiting.asked.phases.push(history::PhaseTime {
                name: progress.stage,
                at_ms,
            });
        }
        let waiting = self
            .waiting
            .get(&progress.request)
            .and_then(|waiting| waiting.reply.as_ref());
        let draining = self
            .for_drain
            .iter()
            .filter(|(_, _, outcome)| outcome.request == progress.request)
            .map(|(_, reply, _)| reply);
        waiting
            .into_iter()
            .chain(draining)
            .for_each(|reply| reply.progress(progress));
    }

    /// A request has ended.
    pub fn end(&mut self, id: &str, verdict: RequestVerdict, end: &End) {
        let Some(waiting) = self.waiting.remove(id) else {
            return;
        };
        let End {
            after,
            code,
            notes,
            draining,
            unchanged,
            pid,
        } = end.clone();
        let took_ms = waiting.begun.elapsed().as_millis() as u64;
        let kind = match waiting.kind {
            RequestKind::Restart => "restart",
            RequestKind::Reload => "reload",
        };
        let (word, into) = match &verdict {
            RequestVerdict::Done(_) if unchanged => ("unchanged", None),
            RequestVerdict::Done(_) => ("done", None),
            RequestVerdict::Coalesced { into, .. } => ("coalesced", Some(into.clone())),
            RequestVerdict::Scheduled => ("scheduled", None),
            RequestVerdict::Moved => ("moved", None),
            RequestVerdict::Rejected(_) => ("rejected", None),
            RequestVerdict::Failed(_) => ("failed", None),
        };
        let text = match &verdict {
            RequestVerdict::Rejected(why) | RequestVerdict::Failed(why) => {
                format!("{word}: {}", one_line(why))
            }
            _ => word.to_owned(),
        };
        if matches!(verdict, RequestVerdict::Failed(_)) {
            warn!(
                REQUEST = id,
                "[gateway] {kind} {id} {text}; generation {} serves on", after.number
            );
        } else {
            info!(
                REQUEST = id,
                "[gateway] {kind} {id} {text}: generation {} -> {} in {took_ms} ms",
                waiting.before.number,
                after.number
            );
        }
        if let Some(record) = &self.record {
            record.request(waiting.asked, id, kind, &waiting.reason, &text, took_ms);
        }
        self.last = Some(LastRestart {
            request: id.to_owned(),
            kind: kind.to_owned(),
            reason: waiting.reason,
            outcome: text,
            at: waiting.at,
            took_ms,
        });
        let Some(reply) = waiting.reply else { return };
        match verdict {
            RequestVerdict::Rejected(why) => reply.fail(Failure {
                code: FailureCode::Rejected,
                message: why,
            }),
            RequestVerdict::Failed(why) => reply.fail(Failure { code, message: why }),
            RequestVerdict::Moved => {
                let message = "another process has just taken over: ask again".to_owned();
                reply.fail(Failure {
                    code: FailureCode::Moved,
                    message,
                });
            }
            RequestVerdict::Done(_)
            | RequestVerdict::Coalesced { .. }
            | RequestVerdict::Scheduled => {
                let drained = draining.is_none();
                let outcome = Outcome {
                    request: id.to_owned(),
                    outcome: word.to_owned(),
                    into,
                    before: waiting.before,
                    after,
                    pid,
                    took_ms,
                    drained,
                    notes,
                };
                match draining {
                    Some(generation) if waiting.drained => {
                        self.for_drain.push((generation, reply, outcome))
                    }
                    _ => reply.done(&outcome),
                }
            }
        }
    }

    /// This process has nothing left to do: tells those who waited for that.
    pub fn all_drained(&mut self) {
        for (_, reply, mut outcome) in self.for_drain.drain(..) {
            outcome.drained = true;
            reply.done(&outcome);
        }
    }

    /// A generation is gone: tells those who waited for that.
    pub fn drained(&mut self, generation: u64) {
        for (_, reply, mut outcome) in self
            .for_drain
            .extract_if(.., |(waits_for, ..)| *waits_for == generation)
        {
            outcome.drained = true;
            reply.done(&outcome);
        }
    }
}

impl Gateway {
    /// `inhibit`: a lease, unless the gateway is on its way out.
    pub(super) fn inhibit(&mut self, params: InhibitParams, caller: Caller, reply: Reply) {
        if matches!(self.machine.phase(), Phase::Stopping { .. } | Phase::Ended) {
            return reply.fail(Failure {
                code: FailureCode::Rejected,
                message: "the gateway is stopping".to_owned(),
            });
        }
        let why = self.context.redactor.text(params.why.trim());
        let pid = u32::try_from(caller.pid).unwrap_or(0);
        self.leases
            .grant(why, params.ttl_ms.map(Duration::from_millis), pid, reply);
    }

    /// `recover`: nothing can be recovered from while the configured sidecars run or are being
    /// started.
    pub(super) fn recover(&mut self, caller: Caller, reply: Reply) {
        if matches!(self.machine.phase(), Phase::Waiting { .. }) {
            info!(
                "[gateway] recover asked by uid {} (pid {}): trying the sidecars",
                caller.uid, caller.pid
            );
            self.standing.record.forgive();
            let id = self.answers.next_id();
            self.standing.record.request(
                RequestRecord::by(Some(caller), "in-process"),
                &id,
                "recover",
                "gatewayctl recover",
                "done",
                0,
            );
            reply.done(&json!({"trying": true}));
            self.step(Event::Recover);
        } else if matches!(
            (self.machine.phase(), self.standing.recovery.rung()),
            (Phase::Serving, Rung::LastGood { .. })
        ) {
            self.ask(
                RequestKind::Reload,
                RestartParams::default(),
                "gatewayctl recover",
                Some((caller, reply)),
            );
        } else {
            reply.fail(Failure {
                code: FailureCode::Rejected,
                message: "nothing to recover from".to_owned(),
            });
        }
    }

    /// A request that is not even tried.
    pub(super) fn refuse(&mut self, id: &str, why: String) {
        let info = self.after();
        let end = End {
            after: info,
            pid: None,
            code: FailureCode::Rejected,
            notes: Vec::new(),
            draining: None,
            unchanged: false,
        };
        self.answers.end(id, RequestVerdict::Rejected(why), &end);
    }
}

/// The answer to `stop`.
pub fn stopping() -> serde_json::Value {
    json!({"stopping": true})
}

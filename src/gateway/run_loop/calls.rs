//! What people and programs want: signals, and calls on the control socket.
//!
//! These are methods of [`Gateway`] because a request is answered from what several components know.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::Gateway;
use crate::control::protocol::{Method, RestartParams};
use crate::control::server::{Call, Caller, Reply};
use crate::gateway::lifecycle::{Budget, Event, GenerationRequest, Phase, Placement, RequestKind};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::pending_requests::{PendingRequest, reject, stopping};
use crate::gateway::progress::Reporter;
use crate::gateway::record::RequestRecord;
use crate::gateway::recovery::Rung;
use crate::gateway::signals::SignalRequest;
use crate::gateway::strategy::{Strategy, StrategyRefusal};
use crate::state::restart_intent::{self, Intent};
use crate::state::terms::{
    EndReason, ProgressStage, RequestKindName, RequestOutcome, StrategyName,
};
use crate::systemd::machine_stopping;

impl Gateway {
    pub(super) fn signal(&mut self, asked: SignalRequest) {
        let forwarded = self.successor.forward(asked);
        if forwarded && !matches!(asked, SignalRequest::Stop | SignalRequest::Interrupt) {
            return;
        }
        let restart = RestartParams::default();
        match asked {
            SignalRequest::Stop => self.terminate(),
            SignalRequest::Interrupt => self.interrupt(),
            SignalRequest::Reload => self.ask(RequestKind::Reload, restart, "SIGHUP", None),
            SignalRequest::Restart => self.ask_by_signal("SIGUSR1", restart),
            SignalRequest::Respawn => {
                let fresh = RestartParams {
                    fresh: true,
                    ..restart
                };
                self.ask_by_signal("SIGUSR2", fresh)
            }
        }
    }

    fn ask_by_signal(&mut self, name: &str, params: RestartParams) {
        if self.material.loaded.config.restart.external_signal {
            self.ask(RequestKind::Restart, params, name, None);
        } else {
            warn!(
                "[gateway] {name} is refused: [restart] external_signal is false; use gatewayctl restart"
            );
        }
    }

    /// A SIGINT: a stop; a second one stops at once.
    fn interrupt(&mut self) {
        let at_once = std::mem::replace(&mut self.interrupted, true);
        info!(
            "[gateway] received SIGINT: stopping{}",
            if at_once {
                " at once"
            } else {
                "; once more to stop at once"
            }
        );
        self.recovery
            .set_exit_reason(EndReason::Signal(Signal::SIGINT));
        self.stop(at_once);
    }

    /// A SIGTERM: a stop, or the first half of a restart when somebody said so before.
    fn terminate(&mut self) {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let Some(intent) = restart_intent::consume(&self.paths.state, std::process::id(), now)
        else {
            info!("[gateway] received SIGTERM: stopping");
            self.recovery
                .set_exit_reason(EndReason::Signal(Signal::SIGTERM));
            return self.stop(false);
        };
        info!("[gateway] received SIGTERM to restart: {}", intent.reason);
        if !self.supervision.is_service() {
            let params = RestartParams {
                force: intent.force,
                wait_ms: intent.wait_ms,
                ..RestartParams::default()
            };
            return self.ask(RequestKind::Restart, params, &intent.reason, None);
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            let machine_stopping = machine_stopping().await;
            events.send(LoopEvent::EndAsked {
                intent,
                machine_stopping,
            });
        });
    }

    /// Ends, so that the service manager starts the next process.
    pub(super) fn end_for_restart(&mut self, intent: &Intent, machine_stopping: bool) {
        self.supervision.end_asked(machine_stopping);
        self.recovery
            .set_exit_reason(EndReason::ManagerRestart(Some(intent.reason.clone())));
        if !matches!(self.machine.phase(), Phase::Leaving { .. }) {
            self.traces.asked(
                "SIGTERM",
                "SIGTERM",
                &intent.reason,
                intent.force,
                intent.wait_ms,
            );
            self.traces.perform("SIGTERM");
        }
        let budget = Budget::of(intent.force, intent.wait_ms);
        let drain = self.drain_limit(budget);
        let limit = self.supervision.end_budget(drain).force_exit;
        self.step(Event::End { budget, limit });
    }

    pub(super) fn stop(&mut self, at_once: bool) {
        let limit = self.stop_limit();
        // A stop that comes during a drain has less time.
        self.hurry_clients();
        self.step(Event::Stop { at_once, limit });
    }

    pub(super) fn stop_limit(&self) -> Duration {
        let drain = self.material.loaded.config.restart.stop_drain.0;
        self.supervision.stop_limit(drain)
    }

    pub(super) fn call(&mut self, call: Call) {
        let Call {
            method,
            caller,
            reply,
        } = call;
        let by = format!("uid {} (pid {})", caller.uid, caller.pid);
        match method {
            Method::Status => reply.done(&self.status()),
            Method::Stop => {
                info!("[gateway] stop asked by {by}");
                self.recovery
                    .set_exit_reason(EndReason::Other(format!("gatewayctl stop, by {by}")));
                reply.done(&stopping());
                self.stop(false);
            }
            Method::Inhibit(params) => {
                let why = self.context.redactor.text(params.why.trim());
                let ttl = params.ttl_ms.map(Duration::from_millis);
                match self.machine.phase() {
                    Phase::Stopping { .. } | Phase::Ended => {
                        reject(reply, "the gateway is stopping")
                    }
                    _ => {
                        let pid = u32::try_from(caller.pid).unwrap_or(0);
                        self.leases.grant(why, ttl, pid, reply)
                    }
                }
            }
            Method::Recover => self.recover(caller, reply),
            Method::Reload => self.ask(
                RequestKind::Reload,
                RestartParams::default(),
                "gatewayctl reload",
                Some((caller, reply)),
            ),
            Method::Restart(params) => {
                let reason = params.reason.as_deref().unwrap_or("gatewayctl restart");
                let reason: String = reason.chars().take(200).collect();
                let reason = self.context.redactor.text(&reason);
                self.ask(RequestKind::Restart, params, &reason, Some((caller, reply)));
            }
        }
    }

    /// A request for a restart or reload; `by` whom, none for a signal.
    fn ask(
        &mut self,
        kind: RequestKind,
        params: RestartParams,
        reason: &str,
        by: Option<(Caller, Reply)>,
    ) {
        let budget = Budget::of(params.force, params.wait_ms);
        let place = match kind {
            RequestKind::Reload => Ok(Placement::Here),
            RequestKind::Restart => self.place(&params, budget),
        };
        let (caller, reply) = by.unzip();
        let asked = RequestRecord::by(
            caller,
            place
                .as_ref()
                .map_or(StrategyName::None, |place| place.strategy()),
        );
        let id = self.requests.next_id();
        let what = kind.name();
        info!(REQUEST = id, "[gateway] {what} {id} asked: {reason}");
        if kind == RequestKind::Restart {
            // A SIGTERM that restarts brings a reason of its own.
            let signal = match &reply {
                Some(_) => "control",
                None if reason.parse::<Signal>().is_ok() => reason,
                None => "SIGTERM",
            };
            self.traces
                .asked(&id, signal, reason, params.force, params.wait_ms);
        }
        let request = PendingRequest {
            reply,
            kind,
            reason: reason.to_owned(),
            drained: params.drained,
            begun: Instant::now(),
            at: Timestamp::now().to_string(),
            before: self.generations.info(),
            asked,
        };
        self.requests.wait(id.clone(), request);
        self.reporter(Some(id.clone()))
            .tell(ProgressStage::Accepted, format!("{what} {id} accepted"));
        match place {
            Ok(place) => self.step(Event::Asked(GenerationRequest {
                id,
                kind,
                budget,
                place,
            })),
            Err(refusal) => self.refuse(&id, refusal.why),
        }
    }

    pub(super) fn reporter(&self, request: Option<String>) -> Reporter {
        Reporter::new(request, self.events.outbox(LoopEvent::Progress))
    }

    /// Where the next generation is to live, as things stand now.
    fn place(
        &mut self,
        params: &RestartParams,
        budget: Budget,
    ) -> Result<Placement, StrategyRefusal> {
        let drainers = self.predecessor.predecessors().len();
        let mode = self.material.loaded.config.restart.mode;
        let choice = self.supervision.choose(mode, params, drainers)?;
        Ok(match choice.strategy {
            Strategy::InProcess => Placement::Here,
            Strategy::Respawn { waiter } => {
                self.successor.stay(waiter);
                // A request that joins a hand-over under way makes no further process.
                if choice.cut_oldest
                    && self.machine.phase() == &Phase::Serving
                    && let Some(pid) = self.predecessor.cut_oldest()
                {
                    warn!("[gateway] {}: pid {pid} finishes as in a stop", choice.why);
                }
                Placement::Successor {
                    update: params.update,
                }
            }
            Strategy::Exit => {
                let end = self.supervision.own_end_budget(self.drain_limit(budget));
                Placement::Next {
                    until: end.force_exit.map(|limit| self.now() + limit),
                }
            }
        })
    }

    /// `recover`: nothing can be recovered from while the configured sidecars run or are being
    /// started.
    fn recover(&mut self, caller: Caller, reply: Reply) {
        match self.machine.phase() {
            Phase::Waiting { .. } => {
                info!(
                    "[gateway] recover asked by uid {} (pid {}): trying the sidecars",
                    caller.uid, caller.pid
                );
                let record = &self.recovery.record;
                record.forgive();
                let id = self.requests.next_id();
                let asked = RequestRecord::by(Some(caller), StrategyName::InProcess);
                record.request(
                    asked,
                    &id,
                    RequestKindName::Recover,
                    "gatewayctl recover",
                    RequestOutcome::Done.into(),
                    0,
                );
                reply.done(&serde_json::json!({"trying": true}));
                self.step(Event::Recover);
            }
            Phase::Serving if matches!(self.recovery.ladder.rung(), Rung::LastGood { .. }) => self
                .ask(
                    RequestKind::Reload,
                    RestartParams::default(),
                    "gatewayctl recover",
                    Some((caller, reply)),
                ),
            _ => reject(reply, "nothing to recover from"),
        }
    }
}

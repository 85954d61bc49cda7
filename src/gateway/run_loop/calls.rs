//! What people and programs want: signals, and calls on the control socket.
//!
//! These are methods of [`Gateway`] because a request is answered from what several components know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::Gateway;
use crate::config::Dur;
use crate::control::access::Caller;
use crate::control::protocol::{
    AskedRestart, GatewayEvent, Hello, LastRestart, Method, MethodName, RestartEvent,
    RestartParams, SecretsAnswer, SidecarRestartParams,
};
use crate::control::server::{Call, Reply};
use crate::gateway::clients_watch::ClientsWatch;
use crate::gateway::generation::Generation;
use crate::gateway::lifecycle::{
    Budget, Event, GenerationRequest, Phase, Placement, RequestKind, RequestVerdict,
};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::pending_requests::{self, Asker, PendingRequest, RequestScene, reject};
use crate::gateway::progress::Reporter;
use crate::gateway::record::RequestRecord;
use crate::gateway::recovery::Rung;
use crate::gateway::signals::SignalRequest;
use crate::gateway::strategy::{Strategy, StrategyRefusal};
use crate::os::jobs::aside;
use crate::state::restart_intent::{self, Intent};
use crate::state::terms::{
    EndReason, ProgressStage, RequestKindName, RequestOutcome, StrategyName, cut_reason,
};
use crate::text::human::span;
use crate::text::words::Words;

/// How long to look for the announcement of a restart; a disk that is only busy is faster.
const INTENT: Duration = Duration::from_secs(1);

/// The restart that an intent announces.
pub(super) fn announced(intent: &Intent) -> RestartParams {
    RestartParams {
        force: intent.force,
        wait_ms: intent.wait_ms,
        ..RestartParams::default()
    }
}

impl Gateway {
    pub(super) fn signal(&mut self, asked: SignalRequest) {
        match asked {
            SignalRequest::Stop | SignalRequest::Restart | SignalRequest::Respawn => {
                self.take_intent(asked);
            }
            _ => self.signalled(asked, None),
        }
    }

    /// Looks for the restart that was announced for this process, which the signal that came begins.
    /// It is used up: the next signal means what it says. The process that serves behind this one
    /// uses it up where there is one. What is not found in time was not announced.
    fn take_intent(&mut self, asked: SignalRequest) {
        self.signals.count += 1;
        let (state, events) = (self.paths.state.clone(), self.events.clone());
        let (pids, behind) = (self.successor.known_pids(), self.successor.serves_behind());
        tokio::spawn(async move {
            let look = move || {
                let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
                if behind {
                    restart_intent::look(&state, std::process::id(), now)
                } else {
                    restart_intent::consume(&state, &pids, now)
                }
            };
            let intent = aside(INTENT, look).await.flatten();
            events.send(LoopEvent::Signalled(asked, intent));
        });
    }

    /// A signal came, which belongs to this announced restart, if there is one.
    pub(super) fn signalled(&mut self, asked: SignalRequest, intent: Option<Intent>) {
        let forwarded = self.successor.forward(asked);
        if forwarded && (!asked.ends() || intent.is_some()) {
            // The restart is the successor's, and this process goes on finishing its work.
            return;
        }
        match asked {
            SignalRequest::Stop => self.terminate(intent),
            SignalRequest::Interrupt => self.interrupt(),
            SignalRequest::HangUp => self.hang_up(),
            SignalRequest::Reload => {
                let asker = Asker::Signal(Signal::SIGHUP);
                self.reload("SIGHUP", asker);
            }
            SignalRequest::Restart => self.ask_by_signal(Signal::SIGUSR1, false, intent),
            SignalRequest::Respawn => self.ask_by_signal(Signal::SIGUSR2, true, intent),
        }
    }

    fn ask_by_signal(&mut self, signal: Signal, fresh: bool, intent: Option<Intent>) {
        let name = signal.as_str();
        // Only root and the service's user can announce one: that is no stranger's signal.
        if intent.is_some() || self.material.loaded.config.restart.external_signal {
            let params = RestartParams {
                fresh,
                ..intent.as_ref().map(announced).unwrap_or_default()
            };
            let reason = intent.as_ref().map(|intent| intent.reason.trim());
            let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or(name);
            self.ask(RequestKind::Restart, params, reason, Asker::Signal(signal));
        } else {
            warn!(
                "[gateway] {name} is refused: [restart] external_signal is false; use gatewayctl restart"
            );
        }
    }

    pub(super) fn call(&mut self, call: Call) {
        let Call {
            method,
            caller,
            reply,
        } = call;
        let by = caller.to_string();
        let handed_over = matches!(self.machine.phase(), Phase::Yielded { .. });
        match method {
            Method::Hello(params) => match params.agreed() {
                Ok(protocol) => reply.done(&self.hello(protocol, caller)),
                Err(failure) => reply.fail(failure),
            },
            Method::Status => reply.done(&self.status()),
            Method::Stop | Method::Inhibit(_) | Method::Recover | Method::Subscribe(_)
                if handed_over =>
            {
                pending_requests::moved(reply);
            }
            Method::Stop => {
                if let Phase::Stopping { until } = *self.machine.phase() {
                    self.still_stopping(&format!("stop asked again by {by}"), until);
                } else {
                    info!("[gateway] stop asked by {by}");
                }
                self.recovery
                    .set_exit_reason(EndReason::Other(format!("gatewayctl stop, by {by}")));
                reply.done(&serde_json::json!({"stopping": true}));
                self.stop(false);
            }
            Method::Inhibit(params) => {
                if matches!(self.machine.phase(), Phase::Stopping { .. } | Phase::Ended) {
                    return reject(reply, "the gateway is stopping");
                }
                let why = cut_reason(&self.context.redactor.text(params.why.trim()));
                let ttl = params.ttl_ms.map(Duration::from_millis);
                let ttl = ttl.map(|ttl| ttl.min(Dur::LONGEST));
                self.leases.grant(why, ttl, caller, reply);
            }
            Method::Secrets(params) => self.show_secrets(&params.sidecar, &by, reply),
            Method::Recover => self.recover(caller, reply),
            Method::Subscribe(params) => self.subscribe(&params, reply),
            Method::RestartSidecar(params) => self.restart_sidecar(params, caller, reply),
            Method::Reload => self.reload("gatewayctl reload", Asker::Client(caller, reply)),
            Method::Restart(params) => {
                let reason = params.reason.as_deref().unwrap_or("gatewayctl restart");
                let asker = Asker::Client(caller, reply);
                // A copy: the parameters are given away.
                let reason = reason.to_owned();
                self.ask(RequestKind::Restart, params, &reason, asker);
            }
        }
    }

    fn hello(&self, protocol: u32, caller: Caller) -> Hello {
        let methods = MethodName::ALL.iter();
        let allowed = methods.filter(|method| method.needs() <= caller.authority());
        Hello {
            protocol,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.context.front.instance.clone(),
            pid: std::process::id(),
            methods: allowed.copied().collect(),
        }
    }

    /// The log says who has seen them.
    fn show_secrets(&self, name: &str, by: &str, reply: Reply) {
        let current = self.generations.current();
        let Some(slot) = current.and_then(|current| current.slots.get(name)) else {
            return reject(reply, &no_sidecar(name, current));
        };
        info!("[gateway] the secrets in the output of {name} are shown to {by}");
        reply.done(&SecretsAnswer {
            lines: slot.sidecar().secret_lines(),
        });
    }

    /// One sidecar alone. Where another process serves now, that one knows which there are.
    fn restart_sidecar(&mut self, params: SidecarRestartParams, caller: Caller, reply: Reply) {
        let name = params.sidecar;
        let here = self.generations.current().filter(|_| self.machine.owns());
        let unknown = here.is_some_and(|current| !current.slots.contains_key(&name));
        if unknown {
            return reject(reply, &no_sidecar(&name, here));
        }
        let kind = RequestKind::Sidecar(name.as_str().into());
        let reason = params.reason;
        let reason = reason.unwrap_or_else(|| format!("gatewayctl sidecars restart {name}"));
        let params = RestartParams {
            force: params.force,
            wait_ms: params.wait_ms,
            drained: params.drained,
            ..RestartParams::default()
        };
        self.ask(kind, params, &reason, Asker::Client(caller, reply));
    }

    fn reload(&mut self, reason: &str, asker: Asker) {
        self.ask(RequestKind::Reload, RestartParams::default(), reason, asker);
    }

    /// A request for a restart or reload.
    pub(super) fn ask(
        &mut self,
        kind: RequestKind,
        params: RestartParams,
        reason: &str,
        asker: Asker,
    ) {
        // A value that is hidden may be longer than what is shown for it, or shorter.
        let reason = &cut_reason(&self.context.redactor.text(reason));
        let budget = Budget::of(params.force, params.wait_ms);
        let place = match kind {
            RequestKind::Reload | RequestKind::Sidecar(_) => Ok(Placement::Here),
            RequestKind::Restart => self.place(&params, budget),
        };
        let (caller, by) = match &asker {
            Asker::Client(caller, _) => (Some(*caller), "control"),
            Asker::Signal(signal) => (None, signal.as_str()),
        };
        let asked = RequestRecord::by(
            caller,
            place
                .as_ref()
                .map_or(StrategyName::None, |place| place.strategy()),
        );
        let id = self.requests.next_id();
        let what = kind.to_string();
        info!(REQUEST = id, "[gateway] {what} {id} asked: {reason}");
        if kind == RequestKind::Restart {
            self.traces
                .asked(&id, by, reason, params.force, params.wait_ms);
        }
        let before = self.generations.info();
        let request = PendingRequest {
            asker,
            kind: kind.clone(),
            reason: reason.clone(),
            drained: params.drained,
            begun: Instant::now(),
            at: Timestamp::now().to_string(),
            clients: ClientsWatch::begin(&self.context.front, &before, kind.sidecar()),
            before,
            asked,
            cut: Vec::new(),
            ended: Vec::new(),
        };
        self.requests.wait(id.clone(), request);
        let asked = RestartEvent::Asked(AskedRestart {
            request: id.clone(),
            kind: kind.name(),
            sidecar: kind.sidecar().map(str::to_owned),
            reason: reason.clone(),
        });
        self.feed.subscribers.publish(&GatewayEvent::Restart(asked));
        self.reporter(Some(id.clone()))
            .tell(ProgressStage::Accepted, format!("{what} {id} accepted"));
        match place {
            Ok(place) => {
                self.requests.accept(&id);
                self.step(Event::Asked(GenerationRequest {
                    id: id.clone(),
                    kind,
                    budget,
                    place,
                }));
                self.tell_joined(id);
            }
            Err(refusal) => {
                let verdict = RequestVerdict::Rejected(refusal.why);
                self.answer(&id, verdict, &RequestScene::default());
            }
        }
    }

    /// Says so where a restart is part of another one that had begun before, or waits for it.
    fn tell_joined(&self, id: String) {
        let ago = |into| self.requests.age_of(into).map(span).unwrap_or_default();
        let text = if let Some(into) = self.machine.joined_by(&id) {
            let ago = ago(into);
            format!(
                "{id} joins restart {into}, which began {ago} ago; if that one fails, it is tried by itself"
            )
        } else if let Some(before) = self.machine.awaited_by(&id) {
            format!(
                "{id} waits for the end of {before}, which began {} ago",
                ago(before)
            )
        } else {
            return;
        };
        info!(REQUEST = id, "[gateway] {text}");
        self.reporter(Some(id)).tell(ProgressStage::Accepted, text);
    }

    pub(super) fn reporter(&self, request: Option<String>) -> Reporter {
        let progress = self.events.outbox(LoopEvent::Progress);
        Reporter::new(request, progress, self.events.outbox(LoopEvent::Cut))
    }

    /// Where the next generation is to live, as things stand now.
    fn place(
        &mut self,
        params: &RestartParams,
        budget: Budget,
    ) -> Result<Placement, StrategyRefusal> {
        let drainers = self.predecessor.predecessors.len();
        let config = &self.material.loaded.config;
        let choice = self.supervision.choose(
            config,
            params,
            drainers,
            self.machine.phase(),
            self.front_door.listeners.origin(),
        )?;
        Ok(match choice.strategy {
            Strategy::InProcess => Placement::Here,
            Strategy::Respawn { waiter } => {
                self.successor.stays = waiter;
                // A request that joins a hand-over under way makes no further process.
                if choice.cut_oldest
                    && self.machine.phase() == &Phase::Serving
                    && let Some(pid) = self.predecessor.predecessors.cut_oldest()
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
    /// started, and none of them is failing.
    fn recover(&mut self, caller: Caller, reply: Reply) {
        match self.machine.phase() {
            Phase::Waiting { .. } => {
                self.recovery.record.forgive();
                self.try_again(caller, reply);
                self.step(Event::Recover);
            }
            Phase::Serving if matches!(self.recovery.ladder.rung(), Rung::LastGood { .. }) => {
                self.reload("gatewayctl recover", Asker::Client(caller, reply))
            }
            _ => {
                let dead = self.generations.to_retry();
                if dead.is_empty() {
                    return reject(reply, "nothing to recover from");
                }
                self.try_again(caller, reply);
                dead.iter().for_each(|sidecar| sidecar.retry());
                self.refresh();
            }
        }
    }

    /// A recovery that is asked for begins.
    fn try_again(&mut self, caller: Caller, reply: Reply) {
        info!("[gateway] recover asked by {caller}: trying the sidecars");
        let id = self.requests.next_id();
        let asked = RequestRecord::by(Some(caller), StrategyName::InProcess);
        let (kind, reason) = (RequestKindName::Recover, "gatewayctl recover".to_owned());
        let end = LastRestart::of(id, kind, reason, RequestOutcome::Done.into());
        self.recovery.record.request(asked, &end);
        reply.done(&serde_json::json!({"trying": true}));
    }
}

/// What to say of a sidecar that is not in this generation.
pub(super) fn no_sidecar(name: &str, current: Option<&Arc<Generation>>) -> String {
    let names = current.into_iter().flat_map(|current| current.slots.keys());
    let names: Vec<&str> = names.map(String::as_str).collect();
    match &names[..] {
        [] => format!("there is no sidecar {name}, nor another one"),
        names => format!("there is no sidecar {name}; there is {}", names.join(", ")),
    }
}

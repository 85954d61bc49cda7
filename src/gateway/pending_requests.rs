//! Requests for a restart or reload until their end: who waits for them, and what they are told.

mod relapse;

use std::collections::HashMap;
use std::time::Instant;

use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::building::one_line;
use super::clients_watch::ClientsWatch;
use super::lifecycle::{RequestKind, RequestVerdict};
use super::passage_wait::PassageReport;
use super::progress::CutWork;
use super::record::{LifeRecord, RequestRecord};
use crate::config::Dur;
use crate::control::access::Caller;
use crate::control::protocol::{
    Failure, FailureCode, GatewayEvent, GenerationInfo, LastRestart, Outcome, Progress,
    RestartEvent,
};
use crate::control::server::{Reply, Subscribers};
use crate::proxy::Front;
use crate::state::clients_seen::ClientsSeen;
use crate::state::history;
use crate::state::passage::Passage;
use crate::state::terms::{RequestEnd, RequestOutcome};

/// So many steps of one request are remembered.
const PHASES_MAX: usize = 40;

/// Who asks for a restart or reload.
#[derive(Debug)]
pub enum Asker {
    Client(Caller, Reply),
    Signal(Signal),
}

impl Asker {
    /// Whom to answer; none for a signal.
    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Client(_, reply) => Some(reply),
            Self::Signal(_) => None,
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub struct PendingRequest {
    pub asker: Asker,
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
    /// What it cut on its way.
    pub cut: Vec<String>,
    /// The streams and tunnels that it ended.
    pub ended: Vec<String>,
    /// What clients see meanwhile.
    pub clients: ClientsWatch,
}

impl PendingRequest {
    /// How long ago it was asked, in milliseconds.
    fn age(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// How things stand when requests end.
#[derive(Clone, Debug, Default)]
pub struct RequestScene {
    /// The generation that serves, here or in a successor.
    pub after: GenerationInfo,
    /// What failing requests answer; none for [`FailureCode::Failed`].
    pub code: Option<FailureCode>,
    /// The generation that did not become ready: its number is not given again.
    pub given_up: Option<u64>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The generation that still finishes its work.
    pub draining: Option<u64>,
    /// A reload that found nothing to do.
    pub unchanged: bool,
    /// The process that serves now, where it is not this one.
    pub pid: Option<u32>,
    /// How long it took, where its answer had to wait for clients or passages after that.
    pub took_ms: Option<u64>,
    /// What came of the passages.
    pub passages: PassageReport,
}

/// A request whose answer waits until those who were held are answered, and the passages are made.
#[derive(Debug)]
pub struct Unanswered {
    pub id: String,
    pub verdict: RequestVerdict,
    pub scene: RequestScene,
    /// That is over; it waits for how its generation died.
    pub settled: bool,
}

/// A generation that died soon after it had taken over.
#[derive(Debug)]
struct Relapse {
    generation: u64,
    /// How it died; none until its last words are complete.
    why: Option<String>,
}

/// All of them, and those who wait for a drain after their restart is done.
#[derive(Debug)]
pub struct PendingRequests {
    waiting: HashMap<String, PendingRequest>,
    for_drain: Vec<(u64, Reply, Outcome)>,
    /// Those that the generation of this number fulfilled: it may die soon.
    fulfilled: (u64, Vec<(RequestRecord, LastRestart)>),
    /// The last generation that died after its requests were done.
    relapse: Option<Relapse>,
    /// Those whose answers wait for clients or passages.
    unanswered: Vec<Unanswered>,
    count: u64,
    /// Where requests are remembered.
    record: LifeRecord,
    /// Who is told how they end.
    subscribers: Subscribers,
    /// It was said that old and new run side by side.
    overlap_explained: bool,
    /// How the last one ended.
    pub last: Option<LastRestart>,
}

impl PendingRequests {
    /// None yet; each is remembered at its end. A successor's predecessor has explained the overlap.
    pub fn new(record: LifeRecord, subscribers: Subscribers, successor: bool) -> Self {
        Self {
            waiting: HashMap::new(),
            for_drain: Vec::new(),
            fulfilled: (0, Vec::new()),
            relapse: None,
            unanswered: Vec::new(),
            count: 0,
            record,
            subscribers,
            overlap_explained: successor,
            last: None,
        }
    }

    /// A name for a request: the process and a number, so that it is unique across lives.
    pub fn next_id(&mut self) -> String {
        self.count += 1;
        history::request_id(std::process::id(), self.count)
    }

    pub fn wait(&mut self, id: String, request: PendingRequest) {
        self.waiting.insert(id, request);
    }

    /// A request is about to be carried out: whatever happens now, it has an end in the record.
    pub fn accept(&self, id: &str) {
        if let Some(request) = self.waiting.get(id) {
            self.record
                .asked(&request.asked, id, &request.kind, &request.reason);
        }
    }

    /// The next build begins, while `serving` serves. What was there, and what clients saw, when its
    /// requests were asked belongs to the one for whose end they waited. That one may not be answered yet.
    pub fn build_begins(&mut self, serving: &GenerationInfo, front: &Front) {
        let ended = |id: &str| self.unanswered.iter().any(|one| one.id == id);
        let waiting = self.waiting.iter_mut().filter(|(id, _)| !ended(id));
        let waiting = waiting.map(|(_, request)| request);
        for request in waiting.filter(|request| request.before.number != serving.number) {
            request.before = serving.clone();
            request.clients = ClientsWatch::begin(front, serving, request.kind.sidecar());
        }
    }

    /// Why a request was asked, and when.
    pub fn about(&self, id: &str) -> (String, String) {
        self.waiting
            .get(id)
            .map(|waiting| (waiting.reason.clone(), waiting.at.clone()))
            .unwrap_or_default()
    }

    /// How long ago a request was asked, in milliseconds.
    pub fn age_of(&self, id: &str) -> Option<u64> {
        self.waiting.get(id).map(PendingRequest::age)
    }

    /// The signal that asked: nobody waits for it who could ask again elsewhere.
    pub fn signal(&self, id: &str) -> Option<Signal> {
        match self.waiting.get(id)?.asker {
            Asker::Client(..) => None,
            Asker::Signal(signal) => Some(signal),
        }
    }

    /// Passes a step on.
    pub fn progress(&mut self, progress: &Progress) {
        let id = &progress.request;
        if let Some(waiting) = self.waiting.get_mut(id)
            && waiting.asked.phases.len() < PHASES_MAX
        {
            waiting.asked.phases.push(history::PhaseTime {
                name: progress.stage,
                at_ms: waiting.begun.elapsed().as_millis() as u64,
            });
        }
        let waiting = self.waiting.get(id);
        let draining = self.for_drain.iter();
        let draining = draining.filter(|(_, _, outcome)| outcome.request == *id);
        waiting
            .and_then(|waiting| waiting.asker.reply())
            .into_iter()
            .chain(draining.map(|(_, reply, _)| reply))
            .for_each(|reply| reply.progress(progress));
    }

    /// The answer of a request waits for clients or passages, until [`end`](Self::end).
    pub fn postpone(&mut self, unanswered: Unanswered) {
        self.unanswered.push(unanswered);
    }

    /// The request of this id, whose answer was postponed, ends now.
    pub fn resume(&mut self, id: &str) -> Option<Unanswered> {
        let at = self.unanswered.iter().position(|one| one.id == id)?;
        Some(self.unanswered.swap_remove(at))
    }

    /// This process ends: what was postponed is answered with what is known.
    pub fn end_postponed(&mut self, front: &Front) {
        for unanswered in std::mem::take(&mut self.unanswered) {
            self.end_settled(unanswered, front);
        }
    }

    /// A request whose answer was postponed ends.
    pub fn end_settled(&mut self, unanswered: Unanswered, front: &Front) {
        let Unanswered {
            id, verdict, scene, ..
        } = unanswered;
        self.end(&id, verdict, &scene, front);
    }

    /// Whether an answer waits for clients or passages.
    pub fn owes_answers(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// A request has ended: it is logged, recorded and answered.
    pub fn end(&mut self, id: &str, verdict: RequestVerdict, scene: &RequestScene, front: &Front) {
        let Some(request) = self.waiting.remove(id) else {
            return;
        };
        let took_ms = scene.took_ms.unwrap_or_else(|| request.age());
        let verdict = match (verdict, scene.given_up) {
            (RequestVerdict::Failed(why), Some(number)) => {
                RequestVerdict::Failed(format!("generation {number} was given up: {why}"))
            }
            (verdict, _) => self.unless_relapsed(verdict),
        };
        let PassageReport { passages, clients } = &scene.passages;
        let clients = verdict.is_final().then(|| {
            let mut seen = request.clients.seen(front, &scene.after);
            clients.iter().for_each(|there| seen.add(there));
            seen
        });
        if let Some(failed) = (clients.as_ref()).and_then(ClientsSeen::failures_in_words) {
            warn!(
                REQUEST = id,
                "[gateway] during {} {id}, {failed}", request.kind
            );
        }
        let end = LastRestart {
            request: id.to_owned(),
            kind: request.kind.name(),
            sidecar: request.kind.sidecar().map(str::to_owned),
            reason: request.reason,
            outcome: ended(&verdict, scene.unchanged),
            at: request.at,
            took_ms,
            cut: request.cut,
            ended: request.ended,
            clients: clients.clone(),
            passages: passages.clone(),
        };
        log_end(&end, request.before.number, &scene.after);
        // A reload that found nothing to do has put nothing in place.
        if let Some(generation) = verdict.generation().filter(|_| !scene.unchanged) {
            self.fulfil(generation, &request.asked, &end);
        }
        self.record.request(request.asked, &end);
        let told = RestartEvent::Ended(Box::new(end.clone()));
        self.subscribers.publish(&GatewayEvent::Restart(told));
        let (outcome, notes) = (end.outcome.outcome, notes_of_cut(&end.cut, &end.ended));
        self.last = Some(end);
        let Asker::Client(_, reply) = request.asker else {
            return;
        };
        let into = match verdict {
            RequestVerdict::Rejected(why) => {
                return self.refuse(reply, FailureCode::Rejected, why);
            }
            RequestVerdict::Failed(why) => {
                let code = scene.code.unwrap_or(FailureCode::Failed);
                return self.refuse(reply, code, why);
            }
            RequestVerdict::Moved => {
                return self.record.when_written(move || moved(reply));
            }
            RequestVerdict::Coalesced { into, .. } => Some(into),
            RequestVerdict::Done(_) | RequestVerdict::Scheduled => None,
        };
        let outcome = Outcome {
            request: id.to_owned(),
            outcome,
            into,
            before: request.before,
            after: scene.after.clone(),
            pid: scene.pid,
            took_ms,
            drained: scene.draining.is_none(),
            clients,
            passages: passages.clone(),
            notes: scene.notes.iter().cloned().chain(notes).collect(),
        };
        match scene.draining {
            Some(generation) if request.drained => {
                self.for_drain.push((generation, reply, outcome))
            }
            _ => self.record.when_written(move || reply.done(&outcome)),
        }
    }

    /// What came of the passages of the restart that brought the service here.
    pub fn passed(&mut self, passages: &[Passage]) {
        if let Some(last) = &mut self.last {
            last.passages = passages.to_vec();
        }
    }

    fn fulfil(&mut self, generation: u64, asked: &RequestRecord, end: &LastRestart) {
        if self.fulfilled.0 != generation {
            self.fulfilled = (generation, Vec::new());
        }
        self.fulfilled.1.push((asked.clone(), end.clone()));
    }

    /// Answers a request that has failed and is on record.
    fn refuse(&self, reply: Reply, code: FailureCode, why: String) {
        self.record.when_written(move || fail(reply, code, why));
    }

    /// A drain had to cut work: whom that concerns.
    pub fn cut(&mut self, work: CutWork) {
        let id = work.request.unwrap_or_default();
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.cut.extend(work.cut);
            waiting.ended.extend(work.ended);
            return;
        }
        let draining = self.for_drain.iter_mut();
        for (_, _, outcome) in draining.filter(|(_, _, outcome)| outcome.request == id) {
            outcome.notes.extend(notes_of_cut(&work.cut, &work.ended));
        }
        if let Some(last) = self.last.as_mut().filter(|last| last.request == id) {
            last.cut.extend(work.cut);
            last.ended.extend(work.ended);
        }
    }

    /// What the operator should know when the new generation serves while `draining` still runs: how long
    /// that one is kept to serve again, and, `once`, that both run side by side.
    pub fn notes(&mut self, draining: Option<u64>, watch: Dur, once: bool) -> Vec<String> {
        let mut waiting = self.waiting.values();
        let served = waiting.any(|waiting| waiting.before.serves());
        let Some(before) = draining.filter(|_| served) else {
            return Vec::new();
        };
        let watched = (!watch.0.is_zero()).then(|| {
            format!("watched for {watch}: if the new one dies within that, generation {before} serves again")
        });
        let explained = !once || std::mem::replace(&mut self.overlap_explained, true);
        let side_by_side = (!explained).then(|| "old and new run side by side until the old one's work is done; if two copies must never run at once, use --exclusive or overlap = false".to_owned());
        watched.into_iter().chain(side_by_side).collect()
    }

    /// This generation is gone, or all that this process had to do (none): tells those who waited
    /// for that.
    pub fn drained(&mut self, generation: Option<u64>) {
        let gone = |waits_for| generation.is_none_or(|generation| generation == waits_for);
        let told = self.for_drain.extract_if(.., |one| gone(one.0));
        for (_, reply, mut outcome) in told {
            outcome.drained = true;
            reply.done(&outcome);
        }
    }

    /// The drain of this generation failed: those who waited for it learn why.
    pub fn drain_failed(&mut self, generation: u64, why: &str) {
        let waited = self.for_drain.extract_if(.., |one| one.0 == generation);
        for (_, reply, _) in waited {
            let why = format!("the old generation did not drain: {why}");
            fail(reply, FailureCode::Failed, why);
        }
    }
}

fn notes_of_cut(cut: &[String], ended: &[String]) -> Vec<String> {
    let note =
        |what, all: &[String]| (!all.is_empty()).then(|| format!("{what}: {}", all.join(", ")));
    let cut = note("time to finish was over; cut", cut);
    let ended = note("ended for the restart", ended);
    cut.into_iter().chain(ended).collect()
}

/// Answers a request that cannot be done now.
pub fn reject(reply: Reply, why: &str) {
    fail(reply, FailureCode::Rejected, why.to_owned());
}

/// Answers a request that belongs to the successor, which serves now.
pub fn moved(reply: Reply) {
    let why = "another process has just taken over: ask again".to_owned();
    fail(reply, FailureCode::Moved, why);
}

fn fail(reply: Reply, code: FailureCode, message: String) {
    reply.fail(Failure { code, message });
}

fn ended(verdict: &RequestVerdict, unchanged: bool) -> RequestEnd {
    let (outcome, cause) = match verdict {
        RequestVerdict::Done(_) if unchanged => (RequestOutcome::Unchanged, None),
        RequestVerdict::Done(_) => (RequestOutcome::Done, None),
        RequestVerdict::Coalesced { .. } => (RequestOutcome::Coalesced, None),
        RequestVerdict::Scheduled => (RequestOutcome::Scheduled, None),
        RequestVerdict::Moved => (RequestOutcome::Moved, None),
        RequestVerdict::Rejected(why) => (RequestOutcome::Rejected, Some(one_line(why))),
        RequestVerdict::Failed(why) => (RequestOutcome::Failed, Some(one_line(why))),
    };
    RequestEnd { outcome, cause }
}

fn log_end(end: &LastRestart, before: u64, after: &GenerationInfo) {
    let LastRestart {
        request: id,
        outcome,
        took_ms,
        ..
    } = end;
    let kind = end.what();
    if outcome.outcome == RequestOutcome::Failed {
        warn!(
            REQUEST = id,
            "[gateway] {kind} {id} {outcome}; {}",
            after.stays()
        );
    } else {
        let after = after.number;
        info!(
            REQUEST = id,
            "[gateway] {kind} {id} {outcome}: generation {before} -> {after} in {took_ms} ms"
        );
    }
}

//! A sidecar and the door to it: what one generation has for each [sidecar.NAME], and the next may
//! keep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::context::GatewayContext;
use super::drain::budget::{DrainTime, cut, within};
use super::drain::holds::DrainHolds;
use super::progress::Reporter;
use crate::config::SidecarSpec;
use crate::control::protocol::DrainCause;
use crate::os::mutex::lock;
use crate::os::port::ServerAddress;
use crate::proxy::{Address, Backend, CLOSE_HANDSHAKE, Door, Sessions, Upstream};
use crate::sidecar::{
    Sidecar, SidecarFailure, SidecarStart, SidecarState, StartsBefore, drain_notice,
};
use crate::state::terms::ProgressStage;

/// How long requests may finish before a server restarts by its own means: some servers end at once
/// what is under way. Those that take longer are the server's own affair, and others wait for them.
const SHORT_WORK: Duration = Duration::from_millis(250);

/// A sidecar with its door.
#[derive(Debug)]
pub struct Slot {
    name: String,
    backend: Arc<Backend>,
    /// Its sessions and those of other copies, if they are remembered.
    sessions: Option<Arc<Sessions>>,
    /// The generation for which it was started or restarted last.
    generation: AtomicU64,
    running: Mutex<Running>,
}

/// What runs behind the door now. A unit whose sidecar cannot overlap keeps its door and changes
/// this.
#[derive(Clone, Debug)]
struct Running {
    spec: SidecarSpec,
    sidecar: Arc<Sidecar>,
    /// Opens the door when the sidecar is ready, and holds it when it is not.
    doorkeeper: Arc<AbortOnDropHandle<()>>,
    /// Since when it is in its state.
    since: Arc<Mutex<Timestamp>>,
    /// It was told that its work comes to an end.
    told: Arc<AtomicBool>,
    /// It gets no requests any more: another run is to take its place.
    released: Arc<AtomicBool>,
}

impl Slot {
    /// Starts a sidecar when those of `after` are ready; its door is held until it is. `before` is the slot
    /// of its copy before.
    pub fn start(
        context: &Arc<GatewayContext>,
        name: &str,
        spec: &SidecarSpec,
        persist: bool,
        after: Vec<StartsBefore>,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let door = Door::Held(format!("{name} is starting").into());
        let backend = Backend::new(name, door);
        backend.tickets.set_patience(spec.live.stalled.0);
        let start = SidecarStart {
            after,
            ..context.start(name, spec, persist)
        };
        let running = Running::start(start, &backend, context.workers);
        Arc::new(Self {
            name: name.to_owned(),
            backend,
            sessions: sessions(spec, before),
            generation: AtomicU64::new(0),
            running: Mutex::new(running),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    pub fn sessions(&self) -> Option<&Arc<Sessions>> {
        self.sessions.as_ref()
    }

    pub fn spec(&self) -> SidecarSpec {
        self.running().spec
    }

    /// The sidecar behind the door now.
    pub fn sidecar(&self) -> Arc<Sidecar> {
        self.running().sidecar
    }

    /// Since when the sidecar is in its state.
    pub fn since(&self) -> Timestamp {
        *lock(&self.running().since)
    }

    /// The generation for which it was started or restarted last; 0 while that is being built.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// It was started or restarted for this generation.
    pub fn renewed_for(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    fn running(&self) -> Running {
        lock(&self.running).clone()
    }

    /// Where it takes requests; none while it is away or being replaced.
    pub fn address(&self) -> Option<ServerAddress> {
        let running = self.running();
        match running.sidecar.state() {
            SidecarState::Ready { server, .. } if !running.released.load(Ordering::SeqCst) => {
                Some(server.at)
            }
            _ => None,
        }
    }

    /// Puts another run behind the same door, for a sidecar of which two copies must not run: fade,
    /// hold, stop, start. Requests that arrive meanwhile wait at the door.
    ///
    /// # Errors
    /// Why the new run failed. The specification before is running again then, or being tried
    /// again.
    pub async fn replace(
        &self,
        context: &Arc<GatewayContext>,
        spec: &SidecarSpec,
        time: DrainTime,
        holds: &DrainHolds,
        report: &Reporter,
    ) -> Result<(), Arc<SidecarFailure>> {
        let old = self.spec();
        self.release(time, holds, report).await;
        let replaced = self.run(context, spec, false, Some(report)).await;
        if let Err(failure) = &replaced {
            let text = format!("{} {}; starting what ran before", self.name, failure.cause);
            report.tell(ProgressStage::Restoring, text);
            // It may fail, too: then it is tried again until it runs, with the cause at the door.
            let _ = self.run(context, &old, true, Some(report)).await;
        }
        replaced
    }

    /// Whether it can restart by its own means now: it has some, and runs.
    pub fn can_restart_itself(&self) -> bool {
        let running = self.running();
        let is_ready = matches!(running.sidecar.state(), SidecarState::Ready { .. });
        running.spec.reload.is_some() && is_ready
    }

    /// Has the server restart by its own means. New requests wait meanwhile; what is under way goes on.
    ///
    /// # Errors
    /// Why it did not restart.
    pub async fn restart_itself(&self, report: &Reporter) -> Result<(), Arc<SidecarFailure>> {
        let running = self.running();
        let (name, backend) = (&self.name, &self.backend);
        let means = running.spec.reload.map(|reload| reload.means.to_string());
        let means = means.unwrap_or_default();
        let text = format!("{name} restarts by its own means ({means}); new requests wait");
        report.tell(ProgressStage::Reloading, text);
        let short_work_done = async {
            let mut door = backend.watch();
            // An error means that the backend is gone.
            let _ = door.wait_for(|door| !matches!(door, Door::Open(_))).await;
            backend.tickets.begin_epoch();
            let _ = tokio::time::timeout(SHORT_WORK, backend.tickets.wait_before()).await;
        };
        running.sidecar.restart_itself(short_work_done).await
    }

    /// Fade, hold, stop: nothing of it runs then, and requests wait at its door.
    pub async fn release(&self, time: DrainTime, holds: &DrainHolds, report: &Reporter) {
        let old = self.running();
        self.fade(time, holds, report).await;
        let text = format!("{} is being replaced; new requests wait", self.name);
        report.tell(ProgressStage::Holding, text);
        old.sidecar.stop(Duration::MAX).await;
        report.tell(ProgressStage::Stopped, format!("{} has ended", self.name));
        old.doorkeeper.abort();
    }

    /// Starts what ran before its [`release`](Self::release).
    pub async fn resume(&self, context: &Arc<GatewayContext>) {
        let spec = self.spec();
        // It may fail: then it is tried again until it runs, with the cause at the door.
        let _ = self.run(context, &spec, true, None).await;
    }

    async fn run(
        &self,
        context: &Arc<GatewayContext>,
        spec: &SidecarSpec,
        persist: bool,
        report: Option<&Reporter>,
    ) -> Result<(), Arc<SidecarFailure>> {
        self.backend.tickets.set_patience(spec.live.stalled.0);
        self.backend.tickets.streams.go_on();
        let start = context.start(&self.name, spec, persist);
        let next = Running::start(start, &self.backend, context.workers);
        let sidecar = Arc::clone(&next.sidecar);
        // At once, so that a stop that comes now sees it to its end.
        *lock(&self.running) = next;
        let slow = |text: &str| {
            if let Some(report) = report {
                report.tell(ProgressStage::Starting, format!("{} {text}", self.name));
            }
        };
        sidecar.settled_telling(slow).await.map(drop)
    }

    /// Lets the old run serve, new requests included, until what was there at the beginning is done
    /// or half the time is used, and its tunnels have ended; then closes the door and waits for the
    /// rest, for as long as others can wait for it.
    async fn fade(&self, time: DrainTime, holds: &DrainHolds, report: &Reporter) {
        let begun = Instant::now();
        holds.leases.tell_drain(DrainCause::Restart, time.requests);
        let tunnels = async {
            tokio::time::sleep_until(begun + time.tunnels).await;
            self.backend.end_tunnels();
            std::future::pending().await
        };
        tokio::select! {
            () = self.fade_then_hold(begun, time, holds, report) => {}
            () = tunnels => {}
        }
        let what = format!("{}: drain time", self.name);
        let cut = cut(&what, std::iter::once(&self.backend), Some(&holds.leases));
        let ended = self.backend.tickets.take_ended_early();
        report.cut(&self.name, time.requests, cut, ended);
    }

    async fn fade_then_hold(
        &self,
        begun: Instant,
        time: DrainTime,
        holds: &DrainHolds,
        report: &Reporter,
    ) {
        let backend = &self.backend;
        let door = backend.watch().borrow().clone();
        if let Door::Open(upstream) = door {
            backend.set(Door::RequestsOnly(upstream));
            backend.tickets.begin_epoch();
            let name = &self.name;
            let text = format!("{name} serves on until its work of this moment is done");
            report.tell(ProgressStage::Fading, text);
            let early = async {
                tokio::join!(
                    self.tell_drain(time.requests),
                    backend.tickets.wait_before(),
                    backend.tickets.wait_tunnels(),
                    holds.leases.released()
                )
            };
            within(begun, time.requests.map(|time| time / 2), early).await;
        }
        // Before the door: who sees it held tells older processes so.
        self.running().released.store(true, Ordering::SeqCst);
        backend.set(Door::Held(format!("{} is restarting", self.name).into()));
        let held = Instant::now();
        let all = async {
            tokio::join!(
                backend.tickets.wait_all(),
                holds.leases.released(),
                holds.lent.returned_from_now()
            )
        };
        let streams = async {
            tokio::time::sleep_until(held + time.tunnels).await;
            backend.end_streams(CLOSE_HANDSHAKE).await;
            std::future::pending().await
        };
        let rest = async {
            tokio::select! {
                _ = all => {}
                () = streams => {}
            }
        };
        let left = time
            .requests
            .map(|time| time.saturating_sub(begun.elapsed()));
        let limit = left.map_or(time.held, |left| left.min(time.held));
        within(held, Some(limit), rest).await;
    }

    /// Tells the sidecar, once and when it asked for it, that its work comes to an end within
    /// `time`. Nothing fails when it cannot be told.
    pub async fn tell_drain(&self, time: Option<Duration>) {
        // Its SIGTERM, which follows at once, tells it the same.
        if time == Some(Duration::ZERO) {
            return;
        }
        let running = self.running();
        let Some(notice) = running.spec.drain else {
            return;
        };
        if running.told.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = drain_notice::send(&running.sidecar, &notice).await {
            warn!(
                SIDECAR = self.name,
                "[gateway] sidecar {} was not told of the drain: it {error}", self.name
            );
        }
    }

    /// What another one waits for that starts after it.
    pub fn starts_before(&self) -> StartsBefore {
        let running = self.running();
        StartsBefore {
            name: self.name.clone(),
            state: running.sidecar.watch(),
            required: running.spec.required,
        }
    }

    /// Whether its sidecar can be used now.
    pub fn is_ready(&self) -> bool {
        matches!(self.sidecar().state(), SidecarState::Ready { .. })
    }

    /// Waits until its sidecar has ended for good.
    pub async fn has_ended(&self) {
        let mut state = self.sidecar().watch();
        let ended = |state: &SidecarState| matches!(state, SidecarState::Stopped { .. });
        // An error means that its task is gone.
        let _ = state.wait_for(ended).await;
    }

    /// Lets requests to its sidecar again, after a drain that was recalled.
    pub fn reopen(&self, context: &GatewayContext) {
        let state = self.sidecar().watch();
        let door = || door_of(&state.borrow(), &self.backend, &self.name, context.workers);
        self.backend.reopen(door);
    }

    /// Ends the sidecar; at most its own stop timeout and `limit`.
    pub async fn stop(&self, limit: Duration) {
        self.sidecar().stop(limit).await;
    }
}

/// The sessions that a copy shares with the one before, if they are to be remembered.
fn sessions(spec: &SidecarSpec, before: Option<&Arc<Slot>>) -> Option<Arc<Sessions>> {
    let key = &spec.sticky.as_ref()?.key;
    let before = before.and_then(|before| before.sessions());
    let kept = before.filter(|sessions| sessions.are_of(key));
    Some(kept.map_or_else(|| Sessions::new(key.clone()), Arc::clone))
}

impl Running {
    fn start(start: SidecarStart, backend: &Arc<Backend>, workers: usize) -> Self {
        let (name, spec) = (start.name.clone(), start.spec.clone());
        let sidecar = Arc::new(Sidecar::start(start));
        let since = Arc::new(Mutex::new(Timestamp::now()));
        let doorkeeper = tokio::spawn(keep_door(
            Arc::clone(backend),
            sidecar.watch(),
            Arc::clone(&since),
            name,
            workers,
        ));
        Self {
            spec,
            sidecar,
            doorkeeper: Arc::new(AbortOnDropHandle::new(doorkeeper)),
            since,
            told: Arc::default(),
            released: Arc::default(),
        }
    }
}

async fn keep_door(
    backend: Arc<Backend>,
    mut state: tokio::sync::watch::Receiver<SidecarState>,
    since: Arc<Mutex<Timestamp>>,
    name: String,
    workers: usize,
) {
    let mut before = std::mem::discriminant(&*state.borrow());
    loop {
        let door = {
            let state = state.borrow_and_update();
            let now = std::mem::discriminant(&*state);
            if std::mem::replace(&mut before, now) != now {
                *lock(&since) = Timestamp::now();
            }
            door_of(&state, &backend, &name, workers)
        };
        backend.set(door);
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// The door to a sidecar in this state.
fn door_of(state: &SidecarState, backend: &Backend, name: &str, workers: usize) -> Door {
    match state {
        SidecarState::Ready { server, other, .. } => Door::Open(Upstream::speaking(
            other.clone(),
            Address::Sidecar(Arc::clone(server)),
            workers,
            backend.cut_token(),
        )),
        SidecarState::Starting { .. } => Door::Held(format!("{name} is starting").into()),
        SidecarState::Backoff { failure } => Door::Held(format!("{name} {}", failure.cause).into()),
        SidecarState::Stopping { .. } | SidecarState::Stopped { .. } => {
            Door::Held(format!("{name} is stopped").into())
        }
    }
}

//! The beginning: the right to serve and the sockets before anything heavy, then the serving
//! threads, the control socket and the loop.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::address_wait;
use super::budget::EXTEND_BY;
use super::building::Construction;
use super::claim::{NoRight, RightToServe, claim};
use super::config_source::{Material, usable_whole};
use super::context::GatewayContext;
use super::control_end::ControlEnd;
use super::event_feed::EventFeed;
use super::front_door::FrontDoor;
use super::generations::Generations;
use super::handover::predecessor_side::PredecessorSide;
use super::handover::successor_side::SuccessorSide;
use super::handover::{IncomingOffer, Program};
use super::hang_up::ControllingTerminal;
use super::lifecycle::{Fallback, Lifecycle, StartMode};
use super::listeners::Listeners;
use super::loop_event::LoopEvent;
use super::obituary::RefusedCopies;
use super::outbox::Outbox;
use super::passage_wait::Passages;
use super::pending_requests::PendingRequests;
use super::record::LifeRecord;
use super::recovery::RecoveryAction;
use super::recovery::driver::RecoveryDriver;
use super::run_loop::{ClientDrain, Gateway, Inputs, PendingSignals};
use super::signals::Signals;
use super::supervision::Supervision;
use super::traces::Traces;
use super::{fdstore_clients, standby, tokens};
use crate::config::{self, ConfigError, Env, Loaded, Overrides};
use crate::control::server::Subscribers;
use crate::launchd::sockets;
use crate::os::task::log_panics;
use crate::os::terminal;
use crate::proxy::{Front, Workers};
use crate::sidecar::{Inherited, SidecarNews, unused_variables};
use crate::state::paths::Paths;
use crate::state::terms::EndReason;
use crate::systemd::{Notifier, PassedFd, take_passed};
use crate::text::log;
use crate::text::redact::Redactor;

/// Serving threads when `workers` is 0: one for each CPU, but no more than this; the programs
/// behind need CPUs, too.
const WORKERS_MAX: usize = 4;

/// Exit codes (gateway(8)).
const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 5;
const INVALID: u8 = 78;

/// What a process begins with.
struct Given {
    flags: Overrides,
    /// What a predecessor offers.
    incoming: Option<IncomingOffer>,
    /// The sockets that the service manager passed.
    passed: Vec<PassedFd>,
    material: Material,
    inherited: Arc<Inherited>,
    redactor: Redactor,
    traces: Traces,
}

/// Where the life of this process stands at its beginning.
struct BegunLife {
    supervision: Supervision,
    recovery: RecoveryDriver,
    mode: StartMode,
    /// What the recovery ladder asks for.
    ladder: Vec<RecoveryAction>,
}

/// Runs a gateway to its end; the process's exit code comes back.
pub fn run(flags: Overrides) -> u8 {
    log_panics();
    let given = match gather(flags) {
        Ok(given) => given,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(cause) => return failed(&format!("cannot start: {cause}")),
    };
    let code = runtime.block_on(async {
        match start(given).await {
            Ok((gateway, inputs)) => gateway.run(inputs).await,
            Err(code) => code,
        }
    });
    runtime.shutdown_background();
    Notifier::flush();
    code
}

fn failed(text: &str) -> u8 {
    error!("[gateway] {text}");
    FAILED
}

/// What was given to this process, and its configuration.
fn gather(flags: Overrides) -> Result<Given, u8> {
    let incoming = IncomingOffer::take().map_err(|why| failed(&why))?;
    // A successor inherits variables that speak of its ancestor's descriptors.
    let passed = if incoming.is_some() {
        Vec::new()
    } else {
        let mut passed = take_passed();
        passed.extend(sockets::take());
        passed
    };
    let mut traces = Traces::begin(incoming.as_ref().and_then(|incoming| incoming.offer.trace));
    let material = read(&flags, incoming.as_ref(), &passed).map_err(|error| {
        error!("[gateway] {error}");
        INVALID
    })?;
    if incoming.is_none() {
        nothing_to_serve(&flags, &material.loaded)?;
    }
    traces.phase("config");
    let inherited = Inherited::take();
    for unused in unused_variables(&material.loaded.config, inherited.port()) {
        warn!("[gateway] {unused}");
    }
    Ok(Given {
        flags,
        incoming,
        passed,
        redactor: Redactor::default(),
        material,
        inherited: Arc::new(inherited),
        traces,
    })
}

/// Says what to do where there is neither a command nor a configuration. A person at a terminal
/// gets nothing else: an empty front door would only keep the address from the next try. Elsewhere
/// it is started, because a service whose file is lost for a while must not close its port.
fn nothing_to_serve(flags: &Overrides, loaded: &Loaded) -> Result<(), u8> {
    let config = &loaded.config;
    if !config.sidecar.is_empty() || !config.route.is_empty() {
        return Ok(());
    }
    if let Some(path) = &loaded.path {
        warn!(
            "[gateway] nothing to serve: {} has no server ([sidecar.main]) and no route, and no command is given",
            path.display()
        );
        return Ok(());
    }
    let file = config::default_path(&Env::real(), &loaded.instance);
    let hint = format!(
        "nothing to serve: no command after --, and no configuration in {}\n  \
         gateway run -- COMMAND…                 (a server behind a front door; {{port}} becomes its private port)\n  \
         gatewayctl install --now -- COMMAND…    (the same as a service)",
        file.display()
    );
    if terminal::is_there() && flags.listen.is_empty() {
        log::error_lines(&hint);
        return Err(USAGE);
    }
    let mut lines = hint.lines();
    warn!("[gateway] {}", lines.next().unwrap_or_default());
    lines.for_each(|line| info!("[gateway] {line}"));
    Ok(())
}

/// The configuration. A successor whose own is not valid leaves the service to its predecessor;
/// any other process finds something that stands in for it.
fn read(
    flags: &Overrides,
    incoming: Option<&IncomingOffer>,
    passed: &[PassedFd],
) -> Result<Material, ConfigError> {
    let env = Env::real();
    let Some(incoming) = incoming else {
        for ignored in config::ignored_environment() {
            warn!("[gateway] {ignored}");
        }
        return Material::at_start(flags, &env, || Listeners::addresses_of(passed));
    };
    let (instance, path) = (&incoming.offer.instance, incoming.offer.config.as_deref());
    match config::load_again(flags, &env, instance, path).and_then(|read| usable_whole(read, &env))
    {
        Ok(loaded) => Ok(Material::valid(loaded)),
        Err(error) => {
            incoming.refuse_configuration(&error.to_string());
            Err(error)
        }
    }
}

/// The right to serve first, then the rest.
async fn start(mut given: Given) -> Result<(Gateway, Inputs), u8> {
    let notifier = Notifier::new();
    if given.incoming.is_none() {
        notifier.extend(EXTEND_BY);
    }
    // Behind a waiter, the waiter follows the terminal.
    let terminal = match given.incoming {
        None => ControllingTerminal::of_this_process(),
        Some(_) => ControllingTerminal::None,
    };
    let mut signals = Signals::install(terminal)
        .map_err(|error| failed(&format!("cannot handle signals: {error}")))?;
    let claimed = match given.incoming.as_mut() {
        Some(incoming) => RightToServe::of_offer(incoming, &given.material.loaded),
        None => claim(&mut given.material, &given.flags, notifier, &mut signals).await,
    };
    let claim = claimed.map_err(|end| match end {
        NoRight::Stopped | NoRight::Same => DONE,
        NoRight::Other => REFUSED,
        NoRight::Failed => FAILED,
    })?;
    given.traces.phase("lock");
    given.redactor = given.material.loaded.config.redactor();
    given.inherited.teach(&given.redactor);
    let life = begin_life(&mut given, &claim);
    let candidate = given.incoming.is_some();
    let (record, by_hand) = (life.recovery.record.clone(), !life.supervision.is_service());
    let ended = |planned, code, reason: EndReason| {
        record.ended(planned, code, &reason, 0, Vec::new(), None);
        record.flush();
    };
    match assemble(given, claim, life, signals).await {
        Ok(Some(started)) => Ok(started),
        Ok(None) => {
            let why = "asked to stop while it waited for its address";
            ended(true, DONE, EndReason::Other(why.to_owned()));
            Err(DONE)
        }
        Err(text) => {
            if !candidate {
                ended(by_hand, FAILED, EndReason::CannotStart(text.clone()));
            }
            Err(failed(&text))
        }
    }
}

/// Begins the life of this process on record, unless its predecessor still lives, and resumes the
/// trace of the restart that led to it.
fn begin_life(given: &mut Given, claim: &RightToServe) -> BegunLife {
    let instance = &given.material.loaded.instance;
    let record = LifeRecord::new(&claim.paths.state, instance, &given.redactor);
    let offer = given.incoming.as_ref().map(|incoming| &incoming.offer);
    let handed = offer.map(|offer| offer.verdict.clone());
    let supervision = Supervision::new(instance, handed, claim.notifier);
    if let Some(offer) = offer {
        let generation = offer.generation;
        return BegunLife {
            recovery: RecoveryDriver::successor(record, &given.material),
            supervision,
            mode: StartMode::Candidate { generation },
            ladder: Vec::new(),
        };
    }
    let usual = if claim.notifier.active() || supervision.is_service() {
        Fallback::Persist
    } else {
        Fallback::End
    };
    if supervision.at_terminal() {
        // Who kills it, or sees it crash, and starts it again is not slowed down.
        record.forgive();
    }
    let (recovery, mode, ladder, carried) = RecoveryDriver::begin(record, &given.material, usual);
    recovery.started(&supervision.verdict().to_string());
    given.traces.resume(carried);
    BegunLife {
        supervision,
        recovery,
        mode,
        ladder,
    }
}

/// Puts the gateway together and begins; none when it was asked to stop while it waited for its
/// address.
async fn assemble(
    mut given: Given,
    mut claim: RightToServe,
    life: BegunLife,
    mut signals: Signals,
) -> Result<Option<(Gateway, Inputs)>, String> {
    let candidate = given.incoming.is_some();
    let opened = front_door(&mut given, &mut claim, &life, &mut signals).await?;
    let Some(front_door) = opened else {
        return Ok(None);
    };
    let paths = claim.paths;
    let (control, calls) = ControlEnd::new(paths.control.clone(), &front_door.front.control);
    let (events, happened) = Outbox::channel();
    let (machine, first) = Lifecycle::start(life.mode);
    let program = Program::of_this_process()
        .map_err(|error| format!("cannot tell which program this is: {error}"))?;
    let predecessor = predecessor_side(given.incoming, &events)?;
    let subscribers = Subscribers::new(Arc::clone(&front_door.front.control.counters));
    let context = GatewayContext {
        front: Arc::clone(&front_door.front),
        flags: given.flags,
        inherited: given.inherited,
        redactor: given.redactor,
        run_dir: paths.control.parent().unwrap_or(&paths.state).to_owned(),
        workers: front_door.workers.count(),
        news: sidecar_news(&events),
    };
    let mut gateway = Gateway {
        context: Arc::new(context),
        paths,
        material: given.material,
        machine,
        events,
        traces: given.traces,
        control,
        leases: Arc::default(),
        requests: PendingRequests::new(
            life.recovery.record.clone(),
            subscribers.clone(),
            candidate,
        ),
        feed: EventFeed::new(subscribers),
        passages: Passages::default(),
        construction: Construction::default(),
        generations: Generations::default(),
        before: None,
        refused_copies: RefusedCopies::default(),
        front_door,
        supervision: life.supervision,
        recovery: life.recovery,
        successor: SuccessorSide::new(program, claim.lock),
        predecessor,
        client_drain: ClientDrain::default(),
        interrupted: false,
        signals: PendingSignals::default(),
        exit: None,
    };
    let front_ended = gateway.events.outbox(LoopEvent::FrontEnded);
    gateway.successor.watch_front(front_ended);
    gateway.begin(first, life.ladder);
    let inputs = Inputs {
        signals,
        events: happened,
        calls,
    };
    Ok(Some((gateway, inputs)))
}

/// The front door on its addresses, with the clients that the life before has kept; none when this
/// process was asked to stop while it waited for an address.
async fn front_door(
    given: &mut Given,
    claim: &mut RightToServe,
    life: &BegunLife,
    signals: &mut Signals,
) -> Result<Option<FrontDoor>, String> {
    let candidate = given.incoming.is_some();
    let (paths, notifier) = (&claim.paths, claim.notifier);
    let handed = claim.passed.take();
    let passed = handed.unwrap_or_else(|| std::mem::take(&mut given.passed));
    let (kept, passed) = fdstore_clients::kept(passed, notifier);
    let waits = !candidate && standby::waits(notifier, life.supervision.verdict());
    let wanted = &given.material.loaded.config.gateway.listen;
    let (listeners, missing) = Listeners::adopt(wanted, passed, notifier);
    let waiting = waits.then_some(signals);
    let Some(listeners) =
        address_wait::listen(listeners, &missing, &paths.state, notifier, waiting).await?
    else {
        return Ok(None);
    };
    given.traces.phase("listeners");
    let starts = matches!(life.mode, StartMode::First(_));
    let leaves = starts && life.supervision.holds_listeners();
    let mut front_door = open(
        (&given.material, &given.redactor),
        paths,
        listeners,
        !candidate && !leaves,
    )?;
    if leaves {
        front_door.delay_first_clients();
    }
    for client in kept {
        front_door.workers.adopt(client).await;
    }
    given.traces.phase("workers");
    Ok(Some(front_door))
}

/// Brings what sidecars tell to the loop.
fn sidecar_news(events: &Outbox<LoopEvent>) -> mpsc::UnboundedSender<SidecarNews> {
    let (news, mut told) = mpsc::unbounded_channel();
    let events = events.outbox(LoopEvent::SidecarNews);
    tokio::spawn(async move {
        while let Some(news) = told.recv().await {
            events.send(news);
        }
    });
    news
}

/// The way to the predecessor; nobody came before where there is none.
fn predecessor_side(
    incoming: Option<IncomingOffer>,
    events: &Outbox<LoopEvent>,
) -> Result<PredecessorSide, String> {
    let Some(incoming) = incoming else {
        return Ok(PredecessorSide::default());
    };
    let said = events.outbox(LoopEvent::Predecessor);
    let ended = events.outbox(LoopEvent::PredecessorEnded);
    PredecessorSide::begin(incoming, said, &ended)
        .map_err(|error| format!("cannot talk to the predecessor: {error}"))
}

/// The front door with its threads, which accept clients from the beginning or not.
fn open(
    (material, redactor): (&Material, &Redactor),
    paths: &Paths,
    listeners: Listeners,
    accepts: bool,
) -> Result<FrontDoor, String> {
    let config = &material.loaded.config;
    let front = Front::new(&material.loaded.instance, config);
    front.access_log.hide(redactor);
    front.access_log.set(config);
    let _ = front.control.tokens.set(tokens::read(config, &paths.state));
    let count = if config.gateway.workers > 0 {
        config.gateway.workers
    } else {
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS_MAX)
    };
    let sockets = if accepts {
        listeners
            .handles()
            .map_err(|error| format!("cannot share the listeners: {error}"))?
    } else {
        // Until it owns the service, a successor accepts nobody.
        Vec::new()
    };
    let workers = Workers::start(&front, sockets, count)
        .map_err(|error| format!("cannot start serving threads: {error}"))?;
    tokio::spawn(Arc::clone(&front.wave).give_back());
    Ok(FrontDoor::new(front, listeners, workers, &paths.control))
}

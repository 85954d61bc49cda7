//! The beginning: lock and sockets before anything heavy, then the serving threads and the control
//! socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::address_wait::{self, AddressWaitEnd};
use super::budget::EXTEND_BY;
use super::config_source::Material;
use super::context::GatewayContext;
use super::control_end::ControlEnd;
use super::fdstore_clients;
use super::handover::borrowed_upstreams::Lending;
use super::handover::predecessor_side::Taking;
use super::handover::{IncomingOffer, Link, Predecessors, Program};
use super::lifecycle::{Fallback, Lifecycle, StartMode};
use super::listeners::Listeners;
use super::loop_event::{LoopEvent, LoopEvents};
use super::ownership::{self, Ownership};
use super::pending_requests::Answers;
use super::progress::Reporter;
use super::record::LifeRecord;
use super::recovery::driver::RecoveryDriver;
use super::run_loop::{Gateway, Inputs};
use super::signals::Signals;
use super::standby::{self, StandbyEnd};
use super::supervision::Supervision;
use super::traces::Traces;
use crate::config::{self, Config, ConfigError, Env, Listen, Loaded, Overrides};
use crate::control::protocol::FailureCode;
use crate::os::port::{self, Depth};
use crate::proxy::{BindError, Front, Workers};
use crate::sidecar::Inherited;
use crate::state::lock::Lock;
use crate::state::paths::Paths;
use crate::supervisor::{self, Evidence};
use crate::systemd::{Notifier, PassedFd, take_passed};
use crate::text::redact::Redactor;

/// Serving threads when `workers` is 0: one for each CPU, but no more than this; the programs
/// behind need CPUs, too.
const WORKERS_MAX: usize = 4;

/// Exit codes (gateway(8)).
const DONE: u8 = 0;
const FAILED: u8 = 1;
const REFUSED: u8 = 5;
const INVALID: u8 = 78;

/// Runs a gateway to its end; the process's exit code comes back.
pub fn run(flags: Overrides) -> u8 {
    let incoming = match IncomingOffer::take() {
        Ok(incoming) => incoming,
        Err(why) => {
            error!("[gateway] {why}");
            return FAILED;
        }
    };
    // A successor inherits variables that speak of its ancestor's descriptors.
    let passed = if incoming.is_some() {
        Vec::new()
    } else {
        take_passed()
    };
    let mut traces = Traces::begin(incoming.as_ref().and_then(|incoming| incoming.offer.trace));
    let (incoming, material) = match read(&flags, incoming, &passed) {
        Ok(read) => read,
        Err(error) => {
            error!("[gateway] {error}");
            return INVALID;
        }
    };
    traces.phase("config");
    let inherited = Arc::new(Inherited::take());
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(cause) => {
            error!("[gateway] cannot start: {cause}");
            return FAILED;
        }
    };
    let code = runtime.block_on(async {
        match start(material, flags, incoming, passed, inherited, traces).await {
            Ok((gateway, inputs)) => gateway.drive(inputs).await,
            Err(code) => code,
        }
    });
    runtime.shutdown_background();
    code
}

/// The configuration. A successor whose own is not valid leaves the service to its predecessor;
/// anybody else finds something.
fn read(
    flags: &Overrides,
    incoming: Option<IncomingOffer>,
    passed: &[PassedFd],
) -> Result<(Option<IncomingOffer>, Material), ConfigError> {
    let env = Env::real();
    let Some(incoming) = incoming else {
        return Ok((
            None,
            Material::at_start(flags, &env, || Listeners::addresses_of(passed))?,
        ));
    };
    match config::load(flags, &env) {
        Ok(loaded) => Ok((Some(incoming), Material::valid(loaded))),
        Err(error) => {
            incoming.refuse(&error.to_string());
            Err(error)
        }
    }
}

/// Lock and sockets before anything heavy; then the serving threads and the control socket.
async fn start(
    mut material: Material,
    flags: Overrides,
    incoming: Option<IncomingOffer>,
    passed: Vec<PassedFd>,
    inherited: Arc<Inherited>,
    mut traces: Traces,
) -> Result<(Gateway, Inputs), u8> {
    let fail = |text: String| {
        error!("[gateway] {text}");
        FAILED
    };
    let notifier = Notifier::new();
    if incoming.is_none() {
        notifier.extend(EXTEND_BY);
    }
    let env = Env::real();
    let paths = Paths::of_process(
        &env,
        &material.loaded.instance,
        material.loaded.config.gateway.state_dir.as_deref(),
    );
    let mut signals =
        Signals::install().map_err(|error| fail(format!("cannot handle signals: {error}")))?;
    let incoming = incoming
        .map(|incoming| fitting(incoming, &material.loaded, &paths))
        .transpose()
        .map_err(fail)?;
    let (lock, passed, notifier) = match incoming.as_ref() {
        // The service manager does not listen to a successor before it is told to.
        Some(_) => (None, passed, Notifier::from_parts(None, 0)),
        None => {
            let (ours, lock) = own(material, &flags, &paths, notifier, &mut signals).await?;
            material = ours;
            (lock, passed, notifier)
        }
    };
    traces.phase("lock");
    let config = &material.loaded.config;
    let redactor = Redactor::new(&config.gateway.redact);
    inherited.teach(&redactor);
    let record = LifeRecord::new(&paths.state, &material.loaded.instance, &redactor);
    let supervision = Supervision::at_first(
        &material.loaded.instance,
        incoming
            .as_ref()
            .map(|incoming| incoming.offer.verdict.clone()),
    );
    let (standing, entry, carried) = match &incoming {
        Some(incoming) => {
            let entry = StartMode::Candidate {
                generation: incoming.offer.generation,
            };
            (RecoveryDriver::successor(record, &material), entry, None)
        }
        None => {
            let usual = if notifier.active() || supervision.is_service() {
                Fallback::Persist
            } else {
                Fallback::End
            };
            let begun = RecoveryDriver::begin(record, &material, usual);
            begun.0.started(&supervision.verdict.to_string());
            begun
        }
    };
    traces.resume(carried);
    let candidate = incoming.is_some();
    let by_hand = supervision.by_hand();
    let fail = |text: String| {
        if !candidate {
            standing
                .record
                .ended(by_hand, FAILED, &text, 0, Vec::new(), None);
        }
        fail(text)
    };
    let (mut incoming, mut lock, mut passed) = (incoming, lock, passed);
    if let Some(incoming) = incoming.as_mut() {
        lock = incoming
            .lock
            .take()
            .map(|fd| Lock::from_fd(fd, &paths.state))
            .transpose()
            .map_err(|error| fail(error.to_string()))?;
        let listeners = std::mem::take(&mut incoming.listeners).into_iter();
        passed = listeners
            .map(|(name, fd)| PassedFd {
                name: name.unwrap_or_else(|| "passed".to_owned()),
                fd,
            })
            .collect();
    }
    let (kept, passed) = fdstore_clients::kept(passed, notifier);
    let waits = incoming.is_none() && standby::waits(notifier, &supervision.verdict);
    let listeners = match listen(config, passed, notifier, &paths, &mut signals, waits).await {
        Ok(Some(listeners)) => listeners,
        Ok(None) => {
            standing.record.ended(
                true,
                DONE,
                "asked to stop while it waited for its address",
                0,
                Vec::new(),
                None,
            );
            return Err(DONE);
        }
        Err(error) => return Err(fail(error)),
    };
    traces.phase("listeners");
    let front = Front::new(&material.loaded.instance, config);
    match ownership::token(config, &paths.state) {
        Ok(token) => front.set_token(token),
        Err(error) => warn!(
            "[gateway] no bearer token, so /_gateway/ answers on unix listeners only: {error}"
        ),
    }
    let count = if config.gateway.workers > 0 {
        config.gateway.workers
    } else {
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS_MAX)
    };
    let sockets = match &incoming {
        // Until it owns the service, a successor accepts nobody.
        Some(_) => Vec::new(),
        None => listeners
            .handles()
            .map_err(|error| fail(format!("cannot share the listeners: {error}")))?,
    };
    let workers = Workers::start(&front, sockets, count)
        .map_err(|error| fail(format!("cannot start serving threads: {error}")))?;
    fdstore_clients::take_up(kept, &workers).await;
    traces.phase("workers");
    let (control, calls) = ControlEnd::new(paths.control.clone());
    let run_dir = paths.control.parent().unwrap_or(&paths.state).to_owned();
    let context = Arc::new(GatewayContext {
        front,
        flags,
        inherited,
        redactor,
        run_dir,
        workers: workers.count(),
    });
    let (happened, happenings) = LoopEvents::channel();
    let later = matches!(entry, StartMode::Later { .. });
    let (machine, first) = Lifecycle::start(entry);
    let report = Reporter::new(None, happened.outbox(LoopEvent::Progress));
    let program = Program::of_this_process()
        .map_err(|error| fail(format!("cannot tell which program this is: {error}")))?;
    let mut predecessors = Predecessors::default();
    let mut taking = None;
    if let Some(mut incoming) = incoming {
        predecessors = Predecessors::new(
            &incoming.offer.drainers,
            std::mem::take(&mut incoming.drainers),
            &happened.outbox(LoopEvent::PredecessorEnded),
        );
        let predecessor = incoming
            .converse(happened.outbox(LoopEvent::Predecessor))
            .map_err(|error| fail(format!("cannot talk to the predecessor: {error}")))?;
        taking = Some(Taking::new(predecessor, &mut incoming));
    }
    let answers = Answers::recorded(standing.record.clone());
    let mut gateway = Gateway {
        context,
        loaded: material.loaded,
        standing,
        traces,
        paths,
        notifier,
        silenced: None,
        listeners,
        machine,
        current: None,
        drains: Vec::new(),
        answers,
        leases: Arc::default(),
        workers: Arc::new(workers),
        building: None,
        abandoned: Vec::new(),
        next: None,
        followers: Vec::new(),
        happened,
        failed_as: FailureCode::Failed,
        reloading: false,
        announced: false,
        // The one that handed over said it.
        overlap_explained: taking.is_some(),
        interrupted: false,
        report,
        unchanged: false,
        exit: None,
        lock,
        supervision,
        stays: false,
        at_work: None,
        machine_stops: false,
        asked_to_leave: false,
        extending: false,
        control,
        program,
        link: Link::take(),
        waiter: None,
        handing: None,
        succeeded_by: None,
        lending: if taking.is_some() {
            Lending::begin()
        } else {
            Lending::default()
        },
        heard: 0,
        taking,
        predecessors,
        taking_clients: CancellationToken::new(),
        doors: BTreeMap::new(),
        clients_gone: false,
        hurry: CancellationToken::new(),
        retired: Vec::new(),
        ending: Vec::new(),
    };
    if gateway.taking.is_none() {
        gateway.open_up();
    }
    gateway.begin_recovery();
    gateway.ask_manager();
    gateway.perform(first);
    if later {
        // There is nothing to wait for that the service manager should wait for, too.
        gateway.refresh();
    }
    Ok((
        gateway,
        Inputs {
            signals,
            happenings,
            calls,
        },
    ))
}

/// The sockets of the front door; none when the gateway was asked to stop while it waited for one.
async fn listen(
    config: &Config,
    passed: Vec<PassedFd>,
    notifier: Notifier,
    paths: &Paths,
    signals: &mut Signals,
    waits: bool,
) -> Result<Option<Listeners>, String> {
    let (mut listeners, missing) = Listeners::adopt(&config.gateway.listen, passed, notifier);
    let had = match waits {
        true => address_wait::bind(&mut listeners, &missing, &paths.state, notifier, signals).await,
        false => listeners.change(&missing).map(|()| AddressWaitEnd::Ours),
    };
    match had {
        Ok(AddressWaitEnd::Ours) => {
            listeners.take_changed();
            Ok(Some(listeners))
        }
        Ok(AddressWaitEnd::Stopped) => Ok(None),
        Err(BindError::Taken(listen)) => Err(taken(&listen)),
        Err(error) => Err(error.to_string()),
    }
}

/// Who has an address, and what can be done.
fn taken(listen: &Listen) -> String {
    let who: Vec<String> = port::who(listen, &[], Depth::First)
        .iter()
        .map(ToString::to_string)
        .collect();
    match who.as_slice() {
        // It was let go in this moment.
        [] => format!("{listen} was taken by another program a moment ago: try again"),
        who => format!(
            "{listen} is held by {}: choose another address with --listen, or see `gatewayctl clean`",
            who.join(", ")
        ),
    }
}

/// The lock, and the configuration to go on with; or the exit code of a process that somebody else
/// is in the way of.
async fn own(
    material: Material,
    flags: &Overrides,
    paths: &Paths,
    notifier: Notifier,
    signals: &mut Signals,
) -> Result<(Material, Option<Lock>), u8> {
    match ownership::take(&material.loaded, &paths.state).await {
        Ok(Ownership::Ours(lock)) => Ok((material, lock)),
        Ok(Ownership::Same(text) | Ownership::Other(text))
            if standby::waits(
                notifier,
                &supervisor::detect(&Evidence::gather(&Env::real(), &material.loaded.instance)),
            ) =>
        {
            info!("[gateway] {text}");
            match standby::stand_by(paths, notifier, signals).await {
                Ok(StandbyEnd::Ours(lock)) => {
                    Ok((standby::read_again(material, flags, paths), Some(lock)))
                }
                Ok(StandbyEnd::Stopped) => Err(DONE),
                Err(error) => {
                    error!(
                        "[gateway] cannot wait for the lock in {}: {error}",
                        paths.state.display()
                    );
                    Err(FAILED)
                }
            }
        }
        Ok(Ownership::Same(text)) => {
            info!("[gateway] {text}");
            Err(DONE)
        }
        Ok(Ownership::Other(text)) => {
            error!("[gateway] {text}");
            Err(REFUSED)
        }
        Err(text) => {
            error!("[gateway] {text}");
            Err(FAILED)
        }
    }
}

/// An offer that this process can take: a configuration may change anything but who the instance
/// is.
fn fitting(
    incoming: IncomingOffer,
    loaded: &Loaded,
    paths: &Paths,
) -> Result<IncomingOffer, String> {
    let offer = &incoming.offer;
    let why = if offer.instance != loaded.instance {
        format!(
            "the instance cannot change its name in a restart (it is {}, the configuration says {})",
            offer.instance, loaded.instance
        )
    } else if offer.state_dir != paths.state {
        format!(
            "the state directory cannot change in a restart (it is {}, the configuration says {})",
            offer.state_dir.display(),
            paths.state.display()
        )
    } else {
        return Ok(incoming);
    };
    incoming.refuse(&why);
    Err(why)
}

//! The beginning: lock and sockets before anything heavy, then the serving threads and the control socket.

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::answers::Answers;
use super::context::Context;
use super::driver::{EXTEND_BY, Gateway, Inputs};
use super::lifecycle::Lifecycle;
use super::listeners::Listeners;
use super::ownership::{self, Ownership};
use super::progress::Reporter;
use super::signals::Signals;
use super::standby::{self, Turn};
use crate::config::{Env, Loaded, Overrides};
use crate::control::protocol::FailureCode;
use crate::control::server;
use crate::front::{Front, Workers};
use crate::redact::Redactor;
use crate::sidecar::Inherited;
use crate::state::paths::Paths;
use crate::supervisor::{self, Evidence, Notifier, Passed, take_passed};

/// Serving threads when `workers` is 0: one for each CPU, but no more than this; the programs behind need CPUs, too.
const WORKERS_MAX: usize = 4;

/// Calls on the control socket that may wait for the loop.
const CALLS: usize = 64;

/// Exit codes (gateway(8)).
const DONE: u8 = 0;
const FAILED: u8 = 1;
const REFUSED: u8 = 5;

/// Runs a gateway to its end; the process's exit code comes back.
pub fn run(loaded: Loaded, flags: Overrides) -> u8 {
    let passed = take_passed();
    let inherited = Arc::new(Inherited::take());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            error!("[gateway] cannot start: {cause}");
            return FAILED;
        }
    };
    let code = runtime.block_on(async {
        match start(loaded, flags, passed, inherited).await {
            Ok((gateway, inputs)) => gateway.drive(inputs).await,
            Err(code) => code,
        }
    });
    runtime.shutdown_background();
    code
}

/// Lock and sockets before anything heavy; then the serving threads and the control socket.
async fn start(mut loaded: Loaded, flags: Overrides, passed: Vec<Passed>, inherited: Arc<Inherited>) -> Result<(Gateway, Inputs), u8> {
    let fail = |text: String| {
        error!("[gateway] {text}");
        FAILED
    };
    let notifier = Notifier::new();
    notifier.extend(EXTEND_BY);
    let env = Env::real();
    let verdict = supervisor::detect(&Evidence::gather(&env, &loaded.instance));
    let paths = Paths::of_process(&env, &loaded.instance, loaded.config.gateway.state_dir.as_deref());
    let mut signals = Signals::install().map_err(|error| fail(format!("cannot handle signals: {error}")))?;
    let lock = match ownership::take(&loaded, &paths.state).await.map_err(fail)? {
        Ownership::Ours(lock) => lock,
        Ownership::Same(text) | Ownership::Other(text) if standby::waits(notifier, &verdict) => {
            info!("[gateway] {text}");
            match standby::stand_by(&paths.state, notifier, &mut signals).await.map_err(|error| fail(error.to_string()))? {
                Turn::Ours(lock) => {
                    loaded = standby::read_again(loaded, &flags, &paths);
                    Some(lock)
                }
                Turn::Stopped => return Err(DONE),
            }
        }
        Ownership::Same(text) => {
            info!("[gateway] {text}");
            return Err(DONE);
        }
        Ownership::Other(text) => {
            error!("[gateway] {text}");
            return Err(REFUSED);
        }
    };
    let config = &loaded.config;
    let listeners = Listeners::open(&config.gateway.listen, passed, notifier).await.map_err(|error| fail(error.to_string()))?;
    ownership::record(&loaded, &paths.state, &listeners.addresses(), 0, &[]);
    let front = Front::new(&loaded.instance, config);
    match ownership::token(config, &paths.state) {
        Ok(token) => front.set_token(token),
        Err(error) => warn!("[gateway] no bearer token, so /_gateway/ answers on unix listeners only: {error}"),
    }
    let count = if config.gateway.workers > 0 {
        config.gateway.workers
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
    };
    let sockets = listeners.handles().map_err(|error| fail(format!("cannot share the listeners: {error}")))?;
    let workers = Workers::start(&front, sockets, count).map_err(|error| fail(format!("cannot start serving threads: {error}")))?;
    info!("[gateway] http server listening ({})", listeners.addresses().join(", "));
    let (call_sender, calls) = mpsc::channel(CALLS);
    let control = CancellationToken::new();
    let answering = match server::bind(&paths.control).and_then(UnixListener::from_std) {
        Ok(listener) => Some(tokio::spawn(server::serve(listener, call_sender, control.clone()))),
        Err(error) => {
            warn!("[gateway] no control socket at {}: {error}; gatewayctl cannot reach this gateway", paths.control.display());
            None
        }
    };
    let redactor = Redactor::new(&config.gateway.redact);
    inherited.teach(&redactor);
    let run_dir = paths.control.parent().unwrap_or(&paths.state).to_owned();
    let context = Arc::new(Context { front, flags, inherited, redactor, run_dir, workers: workers.count() });
    let (happened, happenings) = mpsc::unbounded_channel();
    let (machine, first) = Lifecycle::start();
    let report = Reporter::new(None, happened.clone());
    let mut gateway = Gateway {
        context,
        loaded,
        paths,
        notifier,
        listeners,
        machine,
        current: None,
        drains: Vec::new(),
        answers: Answers::default(),
        workers: Arc::new(workers),
        building: None,
        abandoned: Vec::new(),
        next: None,
        followers: Vec::new(),
        happened,
        failed_as: FailureCode::Failed,
        reloading: false,
        announced: false,
        overlap_explained: false,
        interrupted: false,
        report,
        unchanged: false,
        exit: None,
        _lock: lock,
    };
    gateway.perform(first);
    Ok((gateway, Inputs { signals, happenings, calls, control, answering }))
}

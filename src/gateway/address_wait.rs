//! An address that cannot be had yet, at a start under a service manager.
//!
//! An exit would only be answered by the next start, thousands of times a day. So the gateway ends a
//! holder that is proven stale, waits for any other and for whatever else is in the way, and tells
//! the manager that the service runs, and for whom or what it waits.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, Interval, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::listeners::Listeners;
use super::option_future::or_never;
use super::signals::Signals;
use crate::config::Listen;
use crate::os::port::{self, Holder};
use crate::os::process::{Process, group_of};
use crate::proxy::BindError;
use crate::stale::{self, AddressClaim, AddressState, CleanMode, ServiceUnit};
use crate::systemd::unit::facts_of;
use crate::systemd::{CANNOT_LISTEN, Notifier, WAITING};

/// How often the address is tried: nothing tells when a port becomes free.
const AGAIN: Duration = Duration::from_millis(50);

/// The same where nobody holds it: a permission or a directory is missing, and a person is about to
/// add it.
const LATER: Duration = Duration::from_secs(1);

/// How long an obstacle may be on the way out before the manager hears that the start is over and
/// the service waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked again who it is, and whether they are stale by now.
const LOOK: Duration = Duration::from_secs(10);

/// The sockets of the front door, with those that are `missing`; none when the gateway was asked to
/// stop while it waited for one. It waits when there are `signals` to hear meanwhile.
///
/// # Errors
/// Who has an address, or what else is in the way, where that is not waited for.
pub async fn listen(
    mut listeners: Listeners,
    missing: &[Listen],
    state: &Path,
    notifier: Notifier,
    signals: Option<&mut Signals>,
) -> Result<Option<Listeners>, String> {
    let bound = match signals {
        Some(signals) => bind(&mut listeners, missing, state, notifier, signals).await,
        None => listeners.change(missing).map(|()| true).map_err(explain)?,
    };
    listeners.take_changed();
    Ok(bound.then_some(listeners))
}

fn explain(error: BindError) -> String {
    match error {
        BindError::Taken(listen) => taken(&listen),
        error @ BindError::Failed { .. } => error.to_string(),
    }
}

/// Who has an address, and what can be done.
fn taken(listen: &Listen) -> String {
    let Some(holder) = port::holder(listen) else {
        return match port::can_be_had(listen) {
            Ok(false) => format!(
                "{listen} is in use by a socket that does not listen, or that cannot be seen from here: `ss -tanp` as root lists it; or choose another address with --listen"
            ),
            // It was let go in this moment.
            _ => format!("{listen} was taken by another program a moment ago: try again"),
        };
    };
    if let Some((_, of_user)) = holder.gateway().and_then(Process::unit) {
        let scope = if of_user { "user" } else { "system" };
        return format!(
            "{listen} is held by {holder}, which runs as a service: `gatewayctl list --{scope}` names it, `gatewayctl restart --{scope}` restarts it; for another one choose another address with --listen"
        );
    }
    let port = listen.port().unwrap_or_default();
    let ends_it = match &holder {
        Holder::Seen(process) if process.is_gateway() => format!(
            "`gatewayctl list` names it, and `gatewayctl clean --dry-run --port {port}` says whether it was left behind"
        ),
        Holder::Seen(process) if process.is_systemd() => {
            "it holds it for a socket unit, which `systemctl list-sockets` names".to_owned()
        }
        Holder::Seen(process) if process.is_launchd() => {
            "it holds it for a job, which has it as long as it is loaded: `launchctl bootout` ends that".to_owned()
        }
        Holder::Seen(process) => format!("`{}` ends it", process.stop_command()),
        Holder::Hidden(_) => format!("`sudo ss -ltnp 'sport = :{port}'` names it"),
    };
    format!("{listen} is held by {holder}: {ends_it}; or choose another address with --listen")
}

/// Binds what is missing among `wanted`, and waits for as long as something is in the way; false
/// when the gateway was asked to stop.
async fn bind(
    listeners: &mut Listeners,
    wanted: &[Listen],
    state: &Path,
    notifier: Notifier,
    signals: &mut Signals,
) -> bool {
    let mut waiting: Option<AddressWait> = None;
    let mut watchdog = notifier.watchdog_interval().map(interval);
    loop {
        let error = match try_to_bind(listeners, wanted) {
            Ok(()) => {
                if waiting.is_some() {
                    info!("[gateway] the address can be had now");
                    notifier.status("starting");
                }
                return true;
            }
            Err(error) => error,
        };
        let pause = match &error {
            BindError::Taken(_) => AGAIN,
            BindError::Failed { .. } => LATER,
        };
        let waiting = waiting.get_or_insert_with(|| AddressWait::begin(wanted, state, notifier));
        waiting.tell(&error);
        tokio::select! {
            asked = signals.next() => if asked.ends() {
                info!("[gateway] no longer waiting for {}", error.listen());
                notifier.stopping("no longer waiting for its address");
                return false;
            },
            who = &mut waiting.cleaning => waiting.learn(who.unwrap_or_default()),
            _ = or_never(watchdog.as_mut().map(Interval::tick)) => notifier.watchdog(),
            () = sleep(pause) => {}
        }
    }
}

/// Binds what is missing among `wanted`. TCP addresses are tried without listening first, so that
/// the free ones are not opened and closed again and again.
fn try_to_bind(listeners: &mut Listeners, wanted: &[Listen]) -> Result<(), BindError> {
    let missing = wanted.iter().filter(|listen| listeners.lacks(listen));
    for listen in missing.cloned() {
        match port::can_be_had(&listen) {
            Ok(true) => {}
            Ok(false) => return Err(BindError::Taken(listen)),
            Err(source) => return Err(BindError::Failed { listen, source }),
        }
    }
    listeners.change(wanted)
}

/// What is known while an address cannot be had.
struct AddressWait {
    begun: Instant,
    claim: AddressClaim,
    notifier: Notifier,
    /// The next look: at once, and every [`LOOK`] from then on.
    cleaning: AbortOnDropHandle<Vec<String>>,
    who: Vec<String>,
    told: String,
    ready: bool,
}

impl AddressWait {
    fn begin(wanted: &[Listen], state: &Path, notifier: Notifier) -> Self {
        let claim = AddressClaim {
            listen: wanted.to_vec(),
            state: vec![state.to_owned()],
            by: format!(
                "the gateway that needs its address (pid {})",
                std::process::id()
            ),
            ..AddressClaim::default()
        };
        Self {
            begun: Instant::now(),
            cleaning: clean_after(claim.clone(), Duration::ZERO),
            claim,
            notifier,
            who: Vec::new(),
            told: String::new(),
            ready: false,
        }
    }

    fn learn(&mut self, who: Vec<String>) {
        self.who = who;
        self.cleaning = clean_after(self.claim.clone(), LOOK);
    }

    fn tell(&mut self, error: &BindError) {
        let patient = self.begun.elapsed() < PATIENCE;
        let text = match error {
            BindError::Failed { listen, .. } => {
                format!("{CANNOT_LISTEN}{listen}: {}", error.cause())
            }
            BindError::Taken(taken) => match self.who.as_slice() {
                [] if patient => return,
                [] => format!("{WAITING}{taken}, which somebody else has"),
                who => format!("{WAITING}{taken}: held by {}", who.join(", ")),
            },
        };
        if text != self.told {
            warn!("[gateway] {text}");
            self.notifier.status(&text);
        }
        if !patient && !std::mem::replace(&mut self.ready, true) {
            self.notifier.ready(&text);
        }
        self.told = text;
    }
}

fn clean_after(claim: AddressClaim, after: Duration) -> AbortOnDropHandle<Vec<String>> {
    AbortOnDropHandle::new(tokio::spawn(end_stale_after(claim, after)))
}

/// After a while ends what is proven stale, and returns the holders that are left.
async fn end_stale_after(mut claim: AddressClaim, after: Duration) -> Vec<String> {
    sleep(after).await;
    let me = std::process::id();
    claim.unit = facts_of(me)
        .await
        .filter(|facts| facts.main_pid == me)
        .map(|facts| ServiceUnit {
            holds_listeners: facts.holds_listeners(),
            name: facts.unit,
            main: Some(me),
            group: Some(group_of(me)).filter(|group| !group.is_empty()),
        });
    match stale::end_stale(&claim, CleanMode::Stale).await {
        Ok(report) => {
            for ended in &report.killed {
                warn!(
                    "[gateway] pid {} had the address and was ended: {}",
                    ended.pid, ended.why
                );
            }
            match report.state {
                AddressState::Held(by) => by,
                _ => Vec::new(),
            }
        }
        Err(error) => {
            warn!("[gateway] cannot see who has the address: {error}");
            Vec::new()
        }
    }
}

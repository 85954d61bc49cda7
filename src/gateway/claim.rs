//! The right to serve: the lock on the state directory, or a predecessor's offer.

use tracing::{error, info};

use super::config_source::Material;
use super::handover::IncomingOffer;
use super::ownership::{self, Ownership};
use super::signals::Signals;
use super::standby;
use crate::config::{Env, Loaded, Overrides};
use crate::state::lock::Lock;
use crate::state::paths::Paths;
use crate::supervisor::{self, Evidence};
use crate::systemd::{Notifier, PassedFd};

/// What a process that may serve, now or after a hand-over, has.
#[derive(Debug)]
pub struct RightToServe {
    pub paths: Paths,
    /// None where the disk has no room for one.
    pub lock: Option<Lock>,
    /// How to speak to the service manager. It does not listen to a successor that is not the main
    /// process yet.
    pub notifier: Notifier,
    /// The listeners of a predecessor.
    pub passed: Option<Vec<PassedFd>>,
}

/// Why this process may not serve; that has been said.
#[derive(Clone, Copy, Debug)]
pub enum NoRight {
    /// It was asked to stop while it stood by.
    Stopped,
    /// The same gateway runs already.
    Same,
    /// Another gateway has the name.
    Other,
    Failed,
}

fn failed(text: &str) -> NoRight {
    error!("[gateway] {text}");
    NoRight::Failed
}

fn paths_of(loaded: &Loaded) -> Paths {
    let state_dir = loaded.config.gateway.state_dir.as_deref();
    Paths::of_process(&Env::real(), &loaded.instance, state_dir)
}

impl RightToServe {
    /// With a predecessor's offer.
    ///
    /// # Errors
    /// [`NoRight`] when this process cannot take it; the predecessor knows, and serves on.
    pub fn of_offer(incoming: &mut IncomingOffer, loaded: &Loaded) -> Result<Self, NoRight> {
        let paths = paths_of(loaded);
        if let Some(why) = misfit(incoming, &paths) {
            incoming.refuse(&why);
            return Err(failed(&why));
        }
        let lock = (incoming.lock.take())
            .map(|fd| Lock::from_fd(fd, &paths.state))
            .transpose()
            .map_err(|error| failed(&error.to_string()))?;
        Ok(Self {
            paths,
            lock,
            notifier: Notifier::from_parts(None, 0),
            passed: Some(std::mem::take(&mut incoming.listeners)),
        })
    }
}

/// Why an offer cannot be taken: a configuration may change anything but where the
/// state is. The instance keeps its name.
fn misfit(incoming: &IncomingOffer, paths: &Paths) -> Option<String> {
    let offer = &incoming.offer;
    (offer.state_dir != paths.state).then(|| {
        format!(
            "the state directory cannot change in a restart (it is {}, the configuration says {})",
            offer.state_dir.display(),
            paths.state.display()
        )
    })
}

/// With the lock. A duplicate under a supervisor stands by until it has it, and then goes on with
/// the configuration as it is by then.
///
/// # Errors
/// [`NoRight`] when another process is in the way of this one.
pub async fn claim(
    material: &mut Material,
    flags: &Overrides,
    notifier: Notifier,
    signals: &mut Signals,
) -> Result<RightToServe, NoRight> {
    let paths = paths_of(&material.loaded);
    let taken = ownership::take(&material.loaded, &paths.state)
        .await
        .map_err(|text| failed(&text))?;
    let lock = match taken {
        Ownership::Ours(lock) => lock,
        Ownership::Same(text) | Ownership::Other(text)
            if standby::waits(
                notifier,
                &supervisor::detect(&Evidence::gather(&Env::real(), &material.loaded.instance)),
            ) =>
        {
            info!("[gateway] {text}");
            match standby::stand_by(&paths, notifier, signals).await {
                Ok(Some(lock)) => {
                    *material = standby::read_again(material.clone(), flags, &paths);
                    Some(lock)
                }
                Ok(None) => return Err(NoRight::Stopped),
                Err(error) => {
                    return Err(failed(&format!(
                        "cannot wait for the lock in {}: {error}",
                        paths.state.display()
                    )));
                }
            }
        }
        Ownership::Same(text) => {
            info!("[gateway] {text}");
            return Err(NoRight::Same);
        }
        Ownership::Other(text) => {
            error!("[gateway] {text}");
            return Err(NoRight::Other);
        }
    };
    Ok(RightToServe {
        paths,
        lock,
        notifier,
        passed: None,
    })
}

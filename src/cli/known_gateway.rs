//! The gateway that somebody asks about, whether it runs or not: what answers, what is installed,
//! and where its state lies.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::WITH_SUDO;
use super::target::{self, Target};
use super::{CliError, Context, Exit};
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::control::protocol::Status;
use crate::service::{self, Installed, ServiceErrorKind};
use crate::state::paths::Paths;

/// The gateway that is meant.
#[derive(Clone, Debug)]
pub struct KnownGateway {
    pub instance: String,
    /// What it says itself, where it answers.
    pub status: Option<Status>,
    /// Its unit, where it is one.
    pub unit: Option<Installed>,
    /// Where its state lies, where that is known and may be read.
    pub state: Option<PathBuf>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
    /// The first of these that this user may not look at.
    denied: Option<String>,
    pub silent: Option<CliError>,
}

impl KnownGateway {
    /// Finds it.
    ///
    /// # Errors
    /// [`Exit::Usage`] with the list when several can be meant.
    pub async fn find(ctx: &Context) -> Result<Self, CliError> {
        let env = Env::real();
        let outright = target::is_named_outright(&ctx.global);
        let wanted = target::wanted_name(&ctx.global, &env);
        let mut unseen = Vec::new();
        let mut denied = None;
        let (target, silent) = match Target::find(&ctx.global, &env) {
            Ok(target) => (Some(target), None),
            Err(error) if error.exit == Exit::Usage => return Err(error),
            Err(error) => (None, Some(error)),
        };
        let status = match &target {
            Some(target) => target
                .status()
                .await
                .map_err(|error| {
                    if error.exit == Exit::Permission {
                        denied = Some(error.message.clone());
                    }
                    unseen.push(error.message);
                })
                .ok(),
            None => None,
        };
        let by_hand = status
            .as_ref()
            .is_some_and(|status| !status.supervisor.is_systemd());
        let name = target
            .as_ref()
            .map(|target| target.instance.clone())
            .or_else(|| wanted.clone());
        let unit = if outright || by_hand {
            None
        } else {
            match service::select(&env, name.as_deref(), target::scope(&ctx.global)) {
                Ok(unit) => Some(unit),
                Err(error) if error.kind == ServiceErrorKind::NotInstalled => None,
                Err(error) => return Err(error.into()),
            }
        };
        let instance = unit
            .as_ref()
            .map(|unit| unit.instance.clone())
            .or(name)
            .unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
        let mut subject = Self {
            instance,
            status,
            unit,
            state: None,
            unseen,
            denied,
            silent,
        };
        subject.state = subject.find_state(ctx, &env);
        Ok(subject)
    }

    fn find_state(&mut self, ctx: &Context, env: &Env<'_>) -> Option<PathBuf> {
        let mut places: Vec<PathBuf> = self
            .status
            .iter()
            .map(|status| PathBuf::from(&status.state_dir))
            .collect();
        if let Some(dir) = ctx
            .global
            .state_dir
            .clone()
            .or_else(|| env.path("GATEWAY_STATE_DIR"))
        {
            places.push(dir);
        } else {
            if let Some(unit) = &self.unit {
                let configured = service::configuration(env, unit)
                    .ok()
                    .flatten()
                    .and_then(|(_, config)| config.gateway.state_dir);
                places.extend(
                    configured
                        .into_iter()
                        .chain(service::unit_properties::state_dirs(env, unit)),
                );
            } else {
                let loaded = crate::config::load(&target::overrides(&ctx.global, env), env).ok();
                places.extend(loaded.and_then(|loaded| loaded.config.gateway.state_dir));
                places.push(Paths::of_process(env, &self.instance, None).state);
            }
        }
        for place in places {
            match may_read(&place) {
                Ok(true) => return Some(place),
                Ok(false) => {}
                Err(why) => {
                    self.denied.get_or_insert_with(|| why.clone());
                    self.unseen.push(why);
                }
            }
        }
        None
    }

    /// What nobody can tell anything about.
    pub fn unknown(self) -> CliError {
        let silent = self
            .silent
            .unwrap_or_else(|| Exit::NotRunning.error(format!("{} is not running", self.instance)));
        match self.denied {
            Some(why) => Exit::Permission.error(why).with_help(WITH_SUDO),
            None => silent,
        }
    }
}

/// Whether there is a record.
///
/// # Errors
/// When this user may not read it.
fn may_read(dir: &Path) -> Result<bool, String> {
    match std::fs::File::open(dir.join("history.jsonl")) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(format!(
            "the record in {} cannot be read: {error}",
            dir.display()
        )),
        Err(_) => Ok(false),
    }
}

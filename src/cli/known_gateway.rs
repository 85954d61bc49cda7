//! The selected gateway, whether it runs or not: its status, its unit and its state directory.

use std::io::ErrorKind;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::services;
use super::target::{self, Target, ended};
use super::{CliError, Context, Exit};
use crate::config::{self, DEFAULT_INSTANCE, Env};
use crate::control::protocol::Status;
use crate::service::{self, Installed, more_rights};
use crate::state::paths::Paths;
use crate::state::{history, untrusted_file};

/// The selected gateway.
#[derive(Clone, Debug, Default)]
pub struct KnownGateway {
    pub instance: String,
    /// None when it does not answer.
    pub status: Option<Status>,
    /// Its unit, where it is installed.
    pub unit: Option<Installed>,
    /// Its state directory, where that is known and may be read.
    pub state: Option<PathBuf>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
    /// The first of these that this user may not look at.
    denied: Option<String>,
    /// Why no running gateway was found.
    silent: Option<CliError>,
}

impl KnownGateway {
    /// Finds it.
    ///
    /// # Errors
    /// [`Exit::Usage`] with the list when several match.
    pub async fn find(ctx: &Context) -> Result<Self, CliError> {
        let env = Env::real();
        let mut known = Self {
            instance: DEFAULT_INSTANCE.to_owned(),
            ..Self::default()
        };
        let mut name = target::wanted_name(&ctx.global, &env);
        match Target::find(&ctx.global, &env) {
            Ok(target) => {
                match target.status().await {
                    Ok(status) => known.status = Some(status),
                    Err(error) if error.exit == Exit::Permission => known.deny(error.message),
                    Err(error) => known.unseen.push(error.message),
                }
                name = Some(target.instance);
            }
            Err(error) if error.exit == Exit::Usage => return Err(error),
            Err(error) => known.silent = Some(error),
        }
        let by_hand =
            matches!(&known.status, Some(status) if !status.supervisor.is_service_manager());
        if !by_hand {
            known.unit = services::select(ctx, &env, name.as_deref())?;
        }
        if known.unit.is_none()
            && known.silent.is_some()
            && name.is_none()
            && let Some(ended) = ended::unnamed(&ctx.global, &env)?
        {
            ctx.ui.progress(&ended.told());
            name = Some(ended.instance);
        }
        if let Some(name) = known
            .unit
            .as_ref()
            .map(|unit| unit.instance.clone())
            .or(name)
        {
            known.instance = name;
        }
        for place in known.state_dirs(ctx, &env) {
            match untrusted_file::open(&place.join(history::FILE), OFlag::O_RDONLY) {
                Ok(_) => {
                    known.state = Some(place);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => known.deny(format!(
                    "the record in {} cannot be read: {error}",
                    place.display()
                )),
                Err(_) => {}
            }
        }
        Ok(known)
    }

    /// The directories where its state may be, the likeliest first.
    fn state_dirs(&self, ctx: &Context, env: &Env<'_>) -> Vec<PathBuf> {
        let status = self
            .status
            .iter()
            .map(|status| PathBuf::from(&status.state_dir));
        let mut places: Vec<PathBuf> = status.collect();
        if let Some(dir) = target::named_state_dir(&ctx.global, env) {
            places.push(dir);
        } else if let Some(unit) = &self.unit {
            let configured = service::configuration(env, unit).ok().flatten();
            places.extend(configured.and_then(|(_, config)| config.gateway.state_dir));
            places.extend(service::state_dirs(env, unit));
        } else {
            let loaded = config::load(&target::overrides(&ctx.global, env), env).ok();
            places.extend(loaded.and_then(|loaded| loaded.config.gateway.state_dir));
            places.push(Paths::of_process(env, &self.instance, None).state);
        }
        places
    }

    /// Notes what this user may not look at.
    fn deny(&mut self, why: String) {
        self.denied.get_or_insert_with(|| why.clone());
        self.unseen.push(why);
    }

    /// The error when nothing is known about it.
    pub fn unknown(self) -> CliError {
        if let Some(why) = self.denied {
            return Exit::Permission.error(why).with_help(more_rights());
        }
        self.silent
            .unwrap_or_else(|| Exit::NotRunning.error(format!("{} is not running", self.instance)))
    }
}

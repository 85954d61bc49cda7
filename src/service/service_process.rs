//! How a service's process is started: what its unit and the service manager say, and nothing that
//! the process itself says.

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

use super::error::ServiceError;
use super::launchd_process;
use super::layout::{Installed, Layout};
use super::manager::Manager;
use super::manager_kind::ServiceManagerKind;
use super::start_facts::ServiceProcess;
use crate::config::environment_file::Secrets;
use crate::config::{Env, regular_file};
use crate::os::credentials::Credentials;
use crate::state::paths::Scope;
use crate::systemd::Properties;

/// A longer environment file is not read.
const ENV_FILE_MAX: u64 = 1024 * 1024;

/// What systemd has for a user or group that it does not know.
const NO_ID: u32 = u32::MAX;

impl ServiceProcess {
    /// Asks the service manager. None for a unit without a program.
    ///
    /// # Errors
    /// When the manager does not answer.
    pub async fn of(env: &Env<'_>, unit: &Installed) -> Result<Option<Self>, ServiceError> {
        if unit.manager == ServiceManagerKind::Launchd {
            return launchd_process::of(unit).await;
        }
        let manager = Manager::connect(unit.scope, env).await?;
        let said = manager.properties(&unit.unit).await?;
        let Some((program, arguments)) = said.command() else {
            return Ok(None);
        };
        let directory = PathBuf::from(said.text("WorkingDirectory"));
        let user = user_of(unit, &said);
        Ok(Some(Self {
            main_pid: said.number("MainPID"),
            program: program.into(),
            arguments,
            environment: environment(env, unit, &said, user.as_ref()),
            directory: match directory.is_absolute() {
                true => directory,
                false => "/".into(),
            },
            user,
        }))
    }
}

fn environment(
    env: &Env<'_>,
    unit: &Installed,
    said: &Properties,
    user: Option<&Credentials>,
) -> Vec<(String, String)> {
    let account = user.and_then(|user| User::from_uid(user.uid).ok().flatten());
    let home = account.map(|account| account.dir.display().to_string());
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    };
    let texts = said.texts("Environment");
    let mut all: Vec<_> = home
        .map(|home| ("HOME".to_owned(), home))
        .into_iter()
        .collect();
    all.extend(texts.iter().filter_map(|text| pair(text)));
    for (file, _) in said.environment_files() {
        let text = regular_file::read(file.as_ref(), ENV_FILE_MAX).unwrap_or_default();
        let read = Secrets::parse(&String::from_utf8_lossy(&text));
        all.extend(
            read.variables()
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
    }
    if let Ok(layout) = Layout::of_service(unit, env)
        && !said.texts("ConfigurationDirectory").is_empty()
    {
        let directory = layout.config.display().to_string();
        all.push(("CONFIGURATION_DIRECTORY".to_owned(), directory));
    }
    all
}

/// The user that a service runs as; none for a temporary one of a service that does not run.
pub(super) fn user_of(unit: &Installed, said: &Properties) -> Option<Credentials> {
    if unit.scope == Scope::User {
        return Some(Credentials::of_this_process());
    }
    let name = said.text("User");
    if name.is_empty() && !said.flag("DynamicUser") {
        return Some(Credentials::of_this_process()).filter(|user| user.uid.is_root());
    }
    let account = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(&name),
    };
    let account = account.ok().flatten();
    let known =
        |property: &str| Some(said.number::<u32>(property)).filter(|id| ![0, NO_ID].contains(id));
    let uid = account.as_ref().map(|account| account.uid);
    let uid = uid.or_else(|| known("UID").map(Uid::from_raw))?;
    let gid = group(&said.text("Group"))
        .or_else(|| account.as_ref().map(|account| account.gid))
        .or_else(|| known("GID").map(Gid::from_raw))?;
    let more = said.texts("SupplementaryGroups");
    let more = more.iter().filter_map(|name| group(name));
    Some(Credentials::new(uid, gid, account.as_ref(), more))
}

fn group(name: &str) -> Option<Gid> {
    match name.parse() {
        Ok(gid) => Some(Gid::from_raw(gid)),
        Err(_) => Some(Group::from_name(name).ok()??.gid),
    }
}

//! How launchd starts a gateway: by the property list that it read.

use std::path::{Path, PathBuf};

use nix::unistd::User;
use plist::{Dictionary, Value};

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::launchd_written;
use super::layout::Installed;
use super::start_facts::ServiceProcess;
use crate::config::environment_file::Secrets;
use crate::config::{TEXT_MAX, VARIABLES_FILE, regular_file};
use crate::os::credentials::Credentials;
use crate::state::paths::Scope;

/// Asks launchd for the process, and its property list for the rest. None where that names no program.
///
/// # Errors
/// When launchd does not answer.
pub(super) async fn of(unit: &Installed) -> Result<Option<ServiceProcess>, ServiceError> {
    let job = LaunchdJob::find(unit).await?;
    let text = launchd_written::text(&unit.path);
    let text = text.map_err(|error| ServiceError::file("read", &unit.path, &error))?;
    let keys = launchd_written::keys(&text).ok();
    let process = keys.and_then(|keys| read(&keys, unit.scope));
    Ok(process.map(|process| ServiceProcess {
        main_pid: job.main_pid().unwrap_or(0),
        ..process
    }))
}

fn read(plist: &Dictionary, scope: Scope) -> Option<ServiceProcess> {
    let arguments = launchd_written::arguments(plist)?;
    let text = |key: &str| plist.get(key).and_then(Value::as_string);
    let program = launchd_written::program(plist)?;
    let account = match (scope, text("UserName")) {
        (Scope::System, Some(name)) => User::from_name(name).ok().flatten(),
        _ => None,
    };
    let user = match (scope, &account, text("UserName")) {
        (Scope::System, Some(user), _) => {
            Some(Credentials::new(user.uid, user.gid, Some(user), []))
        }
        (Scope::System, None, Some(_)) => None,
        _ => Some(Credentials::of_this_process()),
    };
    Some(ServiceProcess {
        main_pid: 0,
        program: PathBuf::from(program),
        environment: environment(plist, account.as_ref()),
        directory: PathBuf::from(text("WorkingDirectory").unwrap_or("/")),
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        user,
    })
}

fn environment(plist: &Dictionary, account: Option<&User>) -> Vec<(String, String)> {
    let home = account.map(|account| account.dir.display().to_string());
    let mut all: Vec<(String, String)> = home
        .map(|home| ("HOME".to_owned(), home))
        .into_iter()
        .collect();
    let own = plist.get("EnvironmentVariables");
    let own = own.and_then(Value::as_dictionary).into_iter().flatten();
    all.extend(own.filter_map(|(key, value)| Some((key.clone(), value.as_string()?.to_owned()))));
    let file = all.iter().find(|(key, _)| key == VARIABLES_FILE);
    let file = file.and_then(|(_, path)| regular_file::read_text(Path::new(path), TEXT_MAX).ok());
    all.extend(Secrets::variables_of(&file.unwrap_or_default()));
    all
}

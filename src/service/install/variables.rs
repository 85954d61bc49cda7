//! The files of variables of a service, and who reads them: the gateway itself, anew for each
//! generation, where the service's user may; else systemd, once for each life, and the gateway gets
//! them as credentials.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

use super::account::{account, credentials_of};
use super::config_text::Invocation;
use super::instance_files::InstanceFiles;
use super::request::InstallRequest;
use crate::config::{Config, EnvFileError, EnvFilePlaces, MAIN_SIDECAR};
use crate::os::file_access::{self, Access};
use crate::service::error::ServiceError;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::RunAs;
use crate::sidecar::unused_variables;
use crate::state::paths::Scope;
use crate::text::shell;

/// The systemd that first had LoadCredential=.
const CREDENTIALS: u32 = 247;

/// Refuses a file of `--env-file` that cannot be used as it is.
///
/// # Errors
/// Where, and why.
pub(super) fn check(request: &InstallRequest, place: &Invocation) -> Result<(), ServiceError> {
    let Some(file) = &request.env_file else {
        return Ok(());
    };
    let file = place.cwd.join(file);
    if file.to_string_lossy().chars().any(char::is_control) {
        let message = format!("--env-file {file:?}: its name has a control character");
        return Err(ServiceError::usage(message).next("rename it"));
    }
    match EnvFilePlaces::default().read(MAIN_SIDECAR, &file) {
        Ok(_) => Ok(()),
        Err(EnvFileError::Unreadable { path, source }) => {
            Err(ServiceError::file("read", &path, &source))
        }
        Err(error @ EnvFileError::NoFile { .. }) => {
            Err(ServiceError::usage(format!("--env-file: {error}")))
        }
        Err(error @ EnvFileError::Line { .. }) => Err(ServiceError::config(error.to_string())),
    }
}

/// The variables of this request that will not be used, each in a sentence.
pub(super) fn unused(asked: &InstallRequest, contents: &InstanceFiles) -> Vec<String> {
    let mut config = contents.config.clone();
    if asked.env_file.is_some()
        && let Some(main) = config.sidecar.get_mut(MAIN_SIDECAR)
        && let Some(file) = &main.env_file
    {
        main.of_env_file = EnvFilePlaces::default().read(MAIN_SIDECAR, file).into();
    }
    let mut set = contents.secrets.variables();
    let port = set.find_map(|(name, value)| (name == "PORT").then_some(value));
    let asks = asked.set.iter().any(|(name, _)| name == "PORT");
    unused_variables(&config, port.filter(|_| asks))
}

/// The file whose variables all servers get, where there is no server that it would be for.
pub(super) fn of_all(request: &InstallRequest, config: &Config) -> Option<PathBuf> {
    let for_main = config.sidecar.contains_key(MAIN_SIDECAR);
    request.env_file.clone().filter(|_| !for_main)
}

/// The files of variables that systemd must pass on, each with its server.
///
/// # Errors
/// When systemd cannot, or another user could put any file of root's in the place of one.
pub(super) fn credentials(
    systemd: u32,
    scope: Scope,
    (run_as, sandbox): (&RunAs, Sandbox),
    config: &Config,
) -> Result<Vec<(String, PathBuf)>, ServiceError> {
    // A user's manager can read no more than that user.
    if scope == Scope::User {
        return Ok(Vec::new());
    }
    let user = credentials_of(run_as)?;
    let dynamic = *run_as == RunAs::Dynamic;
    let hides_tmp = sandbox.hides_tmp(Scope::System) || dynamic;
    let mut passed = Vec::new();
    for (name, spec) in &config.sidecar {
        let Some(file) = spec.env_file.as_ref().filter(|file| file.is_absolute()) else {
            continue;
        };
        let hidden = hides_tmp && ["/tmp", "/var/tmp"].iter().any(|tmp| file.starts_with(tmp));
        // Who may not ask for another user is not root, and is refused before anything is written.
        let barrier = file_access::barrier(&user, sandbox == Sandbox::Off, file, Access::Read);
        if !hidden && barrier.unwrap_or_default().is_none() {
            continue;
        }
        refuse_unsafe(systemd, run_as, file)?;
        passed.push((name.clone(), file.clone()));
    }
    Ok(passed)
}

fn refuse_unsafe(systemd: u32, run_as: &RunAs, file: &Path) -> Result<(), ServiceError> {
    let shown = file.display();
    let who = match run_as {
        RunAs::Dynamic => "the service's temporary user".to_owned(),
        RunAs::User(name) => name.clone(),
    };
    let give = match run_as {
        RunAs::Dynamic => "--run-as USER   (a user who may)".to_owned(),
        RunAs::User(name) => {
            let group = account(name)?.gid;
            let file = shell::word(file);
            format!("chgrp {group} {file} && chmod 640 {file}")
        }
    };
    if systemd < CREDENTIALS {
        let message = format!(
            "{who} may not read {shown}, and systemd {systemd} cannot pass it on (it takes {CREDENTIALS})"
        );
        return Err(ServiceError::failed(message).next(give));
    }
    let Some((place, owner)) = of_another(file) else {
        return Ok(());
    };
    let owner = match User::from_uid(Uid::from_raw(owner)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {owner}"),
    };
    // systemd would read as root whatever the path leads to at the next start.
    let message = format!(
        "{who} may not read {shown}, and root must not read it for the service: {} belongs to {owner}, who could put a link to any file there",
        place.display()
    );
    let next = format!("{give}\n--env-file FILE   (in a directory of root's)");
    Err(ServiceError::refused(message).next(next))
}

/// What of a path, or of where it leads, somebody other than root and this user can replace, with the
/// owner of it.
fn of_another(file: &Path) -> Option<(PathBuf, u32)> {
    let owners = [0, geteuid().as_raw()];
    let real = file.canonicalize().ok();
    let parts = file
        .ancestors()
        .chain(real.iter().flat_map(|real| real.ancestors()));
    parts
        .filter_map(|part| Some((part, std::fs::symlink_metadata(part).ok()?)))
        .find(|(_, facts)| {
            let shared = !facts.is_symlink() && facts.mode() & 0o1002 == 0o002;
            shared || !owners.contains(&facts.uid())
        })
        .map(|(part, facts)| (part.to_owned(), facts.uid()))
}

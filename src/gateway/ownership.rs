//! A state directory has one owner: the first gateway takes its lock, and a second one learns who
//! holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tracing::warn;

use crate::config::{Config, Env, EnvFile, Loaded, SidecarSpec};
use crate::os::process;
use crate::os::working_directory::by_link;
use crate::state::atomic_file;
use crate::state::lock::{Lock, LockError};
use crate::state::owner::{self, Drainer, Owner};
use crate::state::paths::Paths;
use crate::state::private_dir::{self, NotPrivate};
use crate::text::{log, shell};

/// How long a second gateway waits for the owner's record: the owner takes the lock a moment before
/// it opens its sockets and writes the record.
const RECORD_WAIT: Duration = Duration::from_secs(2);

/// How often it looks for the record.
const RECORD_AGAIN: Duration = Duration::from_millis(20);

/// Who owns the state directory.
#[derive(Debug)]
pub enum Ownership {
    /// This process does. Without a lock only when the disk is full.
    Ours(Option<Lock>),
    /// The same gateway, which runs already; the text says where.
    Same(String),
    /// Another gateway of the same name; the text says which one, and what to do.
    Other(String),
}

/// Creates the state directory and takes its lock.
///
/// # Errors
/// When the directory cannot be created or locked; the text says where, and what to do.
pub async fn take(loaded: &Loaded, state: &Path) -> Result<Ownership, String> {
    let refused = |why: NotPrivate| refusal(&why, &loaded.instance, state);
    private_dir::make(state).map_err(refused)?;
    let until = Instant::now() + RECORD_WAIT;
    loop {
        match Lock::take(state) {
            Ok(lock) => return Ok(Ownership::Ours(Some(lock))),
            // The record of a process that has ended does not name the holder of the lock.
            Err(LockError::Held) => {
                match Owner::read(state).filter(|owner| owner.lives() != Some(false)) {
                    Some(owner) => return Ok(describe(loaded, &owner)),
                    None if Instant::now() < until => tokio::time::sleep(RECORD_AGAIN).await,
                    None => {
                        return Ok(Ownership::Other(format!(
                            "another gateway holds {}; choose another name with --instance",
                            state.display()
                        )));
                    }
                }
            }
            Err(error @ LockError::Foreign(_)) => return Err(error.to_string()),
            Err(LockError::Io(error)) if atomic_file::is_full(&error) => {
                warn!(
                    "[gateway] the state directory {} takes no lock: {error}; going on without one",
                    state.display()
                );
                return Ok(Ownership::Ours(None));
            }
            Err(LockError::Io(error)) => {
                let at = state.to_owned();
                return Err(refused(NotPrivate::Io { at, error }));
            }
        }
    }
}

/// Why the state directory is not used, and a command that works.
fn refusal(why: &NotPrivate, instance: &str, state: &Path) -> String {
    let mut ways: Vec<String> = Vec::new();
    if let Some(at) = why.to_narrow() {
        ways.push(format!("run chmod go-w {}", at.display()));
    }
    let usual = Paths::usual_states(&Env::real(), instance);
    let mut usual = usual.into_iter().filter(|dir| dir != state);
    ways.push(match usual.find(|dir| private_dir::can_be_made(dir)) {
        Some(dir) => format!("use --state-dir {}", dir.display()),
        None => "use --state-dir with a directory that only you can write to".to_owned(),
    });
    format!(
        "cannot use the state directory {}: {why}; {}",
        state.display(),
        ways.join(", or ")
    )
}

fn describe(loaded: &Loaded, owner: &Owner) -> Ownership {
    let name = &loaded.instance;
    let (pid, at) = (owner.pid, owner.listeners.join(", "));
    let started = owner.directory.as_deref();
    let place = started.map_or(String::new(), |place| format!(", started in {place}"));
    let selects = match &loaded.config.gateway.state_dir {
        Some(dir) => format!(" --state-dir {}", shell::word(dir)),
        None => format!(" --instance {}", shell::word(name)),
    };
    let end_first = format!("gatewayctl stop{selects}");
    let differs = if owner.command != fingerprint(&loaded.config) {
        let is_here =
            started.is_none_or(|place| directory(&loaded.config).as_deref() == Some(place));
        if is_here && owner.program == fingerprint(&without_variables(&loaded.config)) {
            let others = other_variables(loaded, owner);
            let what = match &others[..] {
                [] => "with other values of its variables".to_owned(),
                [one] => format!("with another value of {one}"),
                several => format!("with other values of {}", several.join(", ")),
            };
            let way = match is_of_env_files(&others, &loaded.config) {
                true => format!("gatewayctl restart{selects} applies what the env file says now"),
                false => format!("to start it with these, end it first: {end_first}"),
            };
            return Ownership::Other(format!(
                "instance {name} runs already {what}: pid {pid}, {at} ({way})"
            ));
        }
        "with another command or address"
    } else if started.is_some_and(|place| directory(&loaded.config).as_deref() != Some(place)) {
        "with the server of another directory"
    } else {
        return Ownership::Same(format!(
            "instance {name} runs already: pid {pid}, {at}{place}"
        ));
    };
    let what = match command_of(loaded, pid) {
        Some(command) => format!(" with `{command}`"),
        None => String::new(),
    };
    let here = directory(&loaded.config).map_or(String::new(), |here| format!(", not in {here}"));
    let place = if place.is_empty() {
        place
    } else {
        place + &here
    };
    Ownership::Other(format!(
        "instance {name} runs already {differs}: pid {pid}{what}, {at}{place} (end it first: {end_first}; or give this one a name of its own: --instance NAME, and another --listen)"
    ))
}

/// Which variables are others than those of the gateway that runs, by their names.
fn other_variables(loaded: &Loaded, owner: &Owner) -> Vec<String> {
    let theirs = &owner.variables;
    let ours = variables(&loaded.config, owner.pid, owner.start_time);
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let others = names.into_iter();
    let others = others.filter(|name| theirs.get(*name) != ours.get(*name));
    others.cloned().collect()
}

/// Whether all of these variables are set in files, which each restart reads.
fn is_of_env_files(names: &[String], config: &Config) -> bool {
    let sidecars = config.sidecar.iter();
    let in_files: BTreeSet<String> = sidecars
        .flat_map(|(sidecar, spec)| {
            let set = spec.of_env_file.variables().map(|(name, _)| name);
            let set = set.filter(|name| !spec.env.contains_key(*name));
            set.map(|name| variable_name(config, sidecar, name))
        })
        .collect();
    !names.is_empty() && names.iter().all(|name| in_files.contains(name))
}

/// The name of a variable, with its sidecar where there are several.
fn variable_name(config: &Config, sidecar: &str, name: &str) -> String {
    match config.sidecar.len() {
        1 => name.to_owned(),
        _ => format!("{name} of {sidecar}"),
    }
}

/// The server's command of a gateway that was started by hand, secrets hidden.
fn command_of(loaded: &Loaded, pid: u32) -> Option<String> {
    let line: Vec<String> = process::command_line(pid)?
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let dashes = line.iter().position(|word| word == "--")?;
    Some(loaded.config.redactor().command(&line[dashes + 1..]))
}

/// The directory of this process, where a sidecar depends on it. By the name it was entered with: a
/// link to a release is the same place after a deployment.
fn directory(config: &Config) -> Option<String> {
    let depends = |spec: &SidecarSpec| spec.cwd.as_ref().is_none_or(|cwd| cwd.is_relative());
    if !config.sidecar.values().any(depends) {
        return None;
    }
    let here = by_link(Env::real().path("PWD")).or_else(|| std::env::current_dir().ok())?;
    Some(here.to_string_lossy().into_owned())
}

/// The record of this process as the owner of the directory, with the generation that serves and the
/// predecessors that still drain.
pub fn of_this_process(
    loaded: &Loaded,
    listeners: Vec<String>,
    generation: u64,
    drainers: Vec<Drainer>,
) -> Owner {
    let pid = std::process::id();
    let port = listeners
        .iter()
        .find_map(|address| address.parse::<std::net::SocketAddr>().ok())
        .map(|address| address.port());
    let start_time = owner::start_time(pid).unwrap_or_default();
    Owner {
        pid,
        start_time,
        boot_id: owner::boot_id(),
        port,
        instance: loaded.instance.clone(),
        generation,
        drainers,
        listeners,
        command: fingerprint(&loaded.config),
        program: fingerprint(&without_variables(&loaded.config)),
        variables: variables(&loaded.config, pid, start_time),
        directory: directory(&loaded.config),
        output: log::destination(),
    }
}

/// A hash that is equal for two configurations with the same addresses and sidecars, so that no
/// command is stored.
fn fingerprint(config: &Config) -> String {
    let text = format!("{:?} {:?}", config.gateway.listen, config.sidecar);
    Sha256::digest(text.as_bytes())
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The same gateway, whatever the values of its variables are.
fn without_variables(config: &Config) -> Config {
    let mut config = config.clone();
    for spec in config.sidecar.values_mut() {
        spec.env.clear();
        spec.of_env_file = EnvFile::NotRead;
    }
    config
}

/// The variables of the sidecars, as the record of the process that started then has them: 16 bits of a hash
/// that is another one for each process. Most other values have others, and nobody learns a value from them.
fn variables(config: &Config, pid: u32, start_time: u64) -> BTreeMap<String, String> {
    let all = config.sidecar.iter().flat_map(|(sidecar, spec)| {
        let given = spec.of_env_file.variables().chain(&spec.env);
        given.map(move |(name, value)| (sidecar, name, value))
    });
    let hashed = all.map(|(sidecar, name, value)| {
        let text = format!("{pid} {start_time} {sidecar} {name} {value}");
        let hash = Sha256::digest(text.as_bytes());
        let name = variable_name(config, sidecar, name);
        (name, format!("{:02x}{:02x}", hash[0], hash[1]))
    });
    hashed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn a_state_directory_of_another_user_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(12_345), None).is_err() {
            return; // only root can give a directory away
        }
        let nothing = |_: &str| None;
        let loaded = crate::config::load(&Overrides::default(), &Env(&nothing)).unwrap();
        let why = take(&loaded, dir.path()).await.unwrap_err();
        assert!(why.contains("uid 12345"), "{why}");
        assert_eq!(std::fs::metadata(dir.path()).unwrap().uid(), 12_345);
        assert!(!dir.path().join("gateway.lock").exists());
    }
}

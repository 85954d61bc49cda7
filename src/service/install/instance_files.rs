//! What the files of a gateway will say, whatever manager starts it: the configuration, and the
//! variables that nobody else may read.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::config_text::{self, Invocation};
use super::file_transaction::PlannedFile;
use super::request::InstallRequest;
use crate::config::environment_file::{Secrets, is_name};
use crate::config::unit_quoting;
use crate::config::{self, Config, MAIN_SIDECAR};
use crate::service::error::ServiceError;
use crate::service::layout::Layout;
use crate::service::provenance::Written;
use crate::supervisor::HINTS;
use crate::text::redact::Redactor;

/// Configuration and variables of an instance, as they are and as they will be.
pub(super) struct InstanceFiles {
    pub instance: String,
    /// As the gateway will understand it.
    pub config: Config,
    /// As the gateway understood it before; the defaults where there was none, or none that can be
    /// understood is written over.
    pub former: Config,
    /// The configuration that the request was laid over.
    pub base: Table,
    pub secrets: Secrets,
    /// The configuration, where it or its access may change.
    pub config_file: Option<PlannedFile>,
    /// The variables, where they, their access or their being there may change.
    pub variables: Option<PlannedFile>,
    secrets_path: PathBuf,
}

impl InstanceFiles {
    /// Lays the request over what is there.
    pub fn make(
        request: &InstallRequest,
        instance: String,
        layout: &Layout,
        place: &Invocation,
    ) -> Result<Self, ServiceError> {
        check(request, &instance, place)?;
        let path = layout.config_file(&instance);
        let secrets_path = layout.secrets_file(&instance);
        let (before, secrets_before) = (Written::look(&path)?, Written::look(&secrets_path)?);
        let (base, former) = read_before(request, &before, &path, &instance)?;
        let mut secrets = match &secrets_before {
            Written::Foreign(_) => Secrets::default(),
            written => Secrets::parse(written.text().unwrap_or_default()),
        };
        let (hidden, open) = divide(&request.set, &former)?;
        let mut table = config_text::compose(&base, request, &open, place)?;
        for (key, value) in &hidden {
            secrets.set(key, value);
            // What stands in the configuration would win over the environment.
            forget(&mut table, key);
        }
        open.iter().for_each(|(key, _)| secrets.set(key, ""));
        let text = toml::to_string(&table).map_err(|error| {
            ServiceError::failed(format!("the configuration has no TOML form: {error}"))
        })?;
        let config = config_text::understand(&text, &path, &instance)?;
        let replaces = request.overwrite && !before.is_free() && !table.is_empty();
        let body = match before {
            _ if table != base || replaces => Some(text),
            Written::ByUs(before) => Some(before),
            _ => None,
        };
        Ok(Self {
            config_file: body
                .map(|body| PlannedFile::new(path, Some(body), 0o600))
                .transpose()?,
            variables: plan_variables(&secrets_path, &secrets_before, &secrets, &config)?,
            instance,
            config,
            former,
            base,
            secrets,
            secrets_path,
        })
    }

    /// The file of variables that the unit must name.
    pub fn secrets_file(&self) -> Option<PathBuf> {
        (!self.secrets.is_empty()).then(|| self.secrets_path.clone())
    }

    /// Teaches every secret that there is and that there will be.
    pub fn redactor(&self, request: &InstallRequest) -> Redactor {
        let redactor = Redactor::new(
            &[
                self.config.gateway.redact.as_slice(),
                &self.former.gateway.redact,
            ]
            .concat(),
        );
        redactor.learn_command(&request.command);
        request
            .set
            .iter()
            .for_each(|(key, value)| redactor.learn_env(key, value));
        self.config.teach(&redactor);
        self.former.teach(&redactor);
        self.secrets.teach(&redactor);
        redactor
    }

    /// How the command would change, where another one is installed.
    pub fn other_command(&self) -> Option<String> {
        let command = |config: &Config| {
            config
                .sidecar
                .get(MAIN_SIDECAR)
                .map(|main| (main.command.clone(), main.cwd.clone()))
        };
        let changed = command(&self.former)? != command(&self.config)?;
        let file = self.config_file.as_ref().filter(|_| changed)?;
        Some(file.diff())
    }

    /// Whether the addresses change.
    pub fn moves(&self) -> bool {
        self.former.gateway.listen != self.config.gateway.listen
    }

    /// Whether a command contains a secret, which every reader of the configuration sees.
    pub fn tells_in_command(&self) -> bool {
        let redactor = Redactor::new(&self.config.gateway.redact);
        self.config
            .sidecar
            .values()
            .any(|spec| redactor.arguments(&spec.command) != spec.command)
    }
}

/// Refuses what has no form that comes back as it was.
fn check(request: &InstallRequest, instance: &str, place: &Invocation) -> Result<(), ServiceError> {
    config::check_instance(instance).map_err(|error| ServiceError::usage(error.to_string()))?;
    for (key, value) in &request.set {
        if !is_name(key) {
            return Err(
                ServiceError::usage(format!("--set {key:?}: not a name of a variable"))
                    .next("letters, digits and _, not beginning with a digit"),
            );
        }
        if let Some(bad) = value.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(ServiceError::usage(format!(
                "--set {key}: its value has {bad:?}, and a variable of a service is one line of text"
            ))
            .next("put it into a file, and let the program read that"));
        }
    }
    if !request.command.is_empty() && place.cwd.to_string_lossy().chars().any(char::is_control) {
        return Err(ServiceError::usage(format!(
            "the current directory {:?} has a control character in its name",
            place.cwd
        ))
        .next("cd elsewhere, or rename it"));
    }
    Ok(())
}

/// The configuration that is there: as a table to lay the request over, and as the gateway
/// understands it.
fn read_before(
    request: &InstallRequest,
    before: &Written,
    path: &Path,
    instance: &str,
) -> Result<(Table, Config), ServiceError> {
    let Some(text) = before.text() else {
        return Ok((Table::new(), Config::default()));
    };
    let former = config_text::understand(text, path, instance);
    if request.overwrite && !before.is_free() && !request.command.is_empty() {
        // Nothing of it stays, but its secrets are not to be shown, and its addresses are ours.
        return Ok((Table::new(), former.unwrap_or_default()));
    }
    let former = former?;
    let table = text
        .parse()
        .map_err(|error| ServiceError::config(format!("{}: {error}", path.display())))?;
    Ok((table, former))
}

type Variables = Vec<(String, String)>;

/// Names of variables that change how any program runs, the gateway included: in its own environment
/// they would act on it, too. They say where things are, and are no secrets.
const OF_THE_RUN: [&str; 8] = [
    "PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_*", "LD_*", "DYLD_*",
];

/// Whether a variable goes into the configuration, which others may be able to read. Which values
/// are secrets is not guessed: nothing but what only the configuration can do.
fn is_open(redactor: &Redactor, key: &str, value: &str) -> bool {
    let of_the_run = OF_THE_RUN.iter().any(|name| match name.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == *name,
    });
    let for_gateways = key.starts_with("GATEWAY_") || HINTS.contains(&key);
    value.is_empty()
        || !redactor.is_secret(key, value)
            && (of_the_run || for_gateways || value.contains("{port}"))
}

/// Divides the variables of `--set` into those that nobody else may read and those of the
/// configuration.
fn divide(
    set: &[(String, String)],
    former: &Config,
) -> Result<(Variables, Variables), ServiceError> {
    let redactor = Redactor::new(&former.gateway.redact);
    let (open, hidden): (Variables, Variables) =
        (set.iter().cloned()).partition(|(key, value)| is_open(&redactor, key, value));
    match hidden.iter().find(|(_, value)| value.contains("{port}")) {
        None => Ok((hidden, open)),
        Some((key, _)) => Err(ServiceError::usage(format!(
            "--set {key}: a secret cannot hold {{port}}, which only the configuration knows"
        ))
        .next("the program can read $PORT")),
    }
}

fn has_env_file(config: &Config) -> bool {
    config.sidecar.values().any(|spec| spec.env_file.is_some())
}

fn plan_variables(
    path: &Path,
    before: &Written,
    secrets: &Secrets,
    config: &Config,
) -> Result<Option<PlannedFile>, ServiceError> {
    let former = Secrets::parse(before.text().unwrap_or_default());
    let unchanged = match before {
        Written::Foreign(_) => secrets.is_empty(),
        Written::Edited(_) => *secrets == former,
        _ => false,
    };
    if unchanged {
        return Ok(None);
    }
    let names = secrets.names().filter(|_| has_env_file(config));
    let names = names.map(|(key, names)| format!("{key}={}\n", unit_quoting::variable(&names)));
    let body = (!secrets.is_empty()).then(|| secrets.text() + &names.unwrap_or_default());
    Ok(Some(PlannedFile {
        shown: Some((former.shown(&former), secrets.shown(&former))),
        ..PlannedFile::new(path.to_owned(), body, 0o600)?
    }))
}

/// Takes a variable out of the configuration.
fn forget(table: &mut Table, key: &str) {
    let main = table
        .get_mut("sidecar")
        .and_then(|all| all.get_mut(MAIN_SIDECAR));
    if let Some(Value::Table(env)) = main.and_then(|main| main.get_mut("env")) {
        env.remove(key);
    }
}

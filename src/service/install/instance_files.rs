//! What the files of a gateway will say, whatever manager starts it: the configuration, and the
//! variables that nobody else may read.

use std::path::PathBuf;

use toml::{Table, Value};

use super::config_text::{self, Invocation};
use super::file_transaction::PlannedFile;
use super::request::InstallRequest;
use crate::config::{self, Config, MAIN_SIDECAR};
use crate::service::environment_file::{Secrets, is_name};
use crate::service::error::ServiceError;
use crate::service::layout::Layout;
use crate::service::provenance::{Written, diff};
use crate::text::redact::Redactor;

/// Configuration and variables of an instance, as they are and as they will be.
pub(super) struct InstanceFiles {
    pub instance: String,
    /// As the gateway will understand it.
    pub config: Config,
    /// As the gateway understood it before; the defaults where there was none, or none that can be
    /// understood is written over.
    pub former: Config,
    pub secrets: Secrets,
    config_file: PathBuf,
    before: Written,
    base: Table,
    table: Table,
    text: String,
    secrets_file: PathBuf,
    secrets_before: Written,
    overwrite: bool,
}

impl InstanceFiles {
    /// Lays the request over what is there.
    ///
    /// # Errors
    /// When it cannot be said, or what is there cannot be understood.
    pub fn make(
        request: &InstallRequest,
        instance: String,
        layout: &Layout,
        place: &Invocation,
    ) -> Result<Self, ServiceError> {
        check(request, &instance, place)?;
        let config_file = layout.config_file(&instance);
        let secrets_file = layout.secrets_file(&instance);
        let look = |path: &PathBuf| {
            Written::at(path).map_err(|error| ServiceError::file("read", path, &error))
        };
        let (before, secrets_before) = (look(&config_file)?, look(&secrets_file)?);
        let (base, former) = match before.text() {
            None => (Table::new(), Config::default()),
            // Nothing of it stays, but its secrets are not to be shown, and its addresses are ours.
            Some(text) if request.overwrite && !before.is_free() && !request.command.is_empty() => {
                (
                    Table::new(),
                    config_text::understand(text, &config_file, &instance).unwrap_or_default(),
                )
            }
            Some(text) => {
                let former = config_text::understand(text, &config_file, &instance)?;
                (
                    text.parse().map_err(|error| {
                        ServiceError::config(format!("{}: {error}", config_file.display()))
                    })?,
                    former,
                )
            }
        };
        let mut secrets = match &secrets_before {
            Written::Foreign(_) => Secrets::default(),
            written => Secrets::parse(written.text().unwrap_or_default()),
        };
        let redactor = Redactor::new(&former.gateway.redact);
        let (hidden, open): (Vec<_>, Vec<_>) =
            request.set.iter().cloned().partition(|(key, value)| {
                redactor.is_secret(key, value) || (secrets.has(key) && !value.is_empty())
            });
        if let Some((key, _)) = hidden.iter().find(|(_, value)| value.contains("{port}")) {
            return Err(ServiceError::usage(format!(
                "--set {key}: a secret cannot hold {{port}}, which only the configuration knows"
            ))
            .next("the program can read $PORT"));
        }
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
        let config = config_text::understand(&text, &config_file, &instance)?;
        let overwrite = request.overwrite;
        Ok(Self {
            instance,
            config,
            former,
            secrets,
            config_file,
            before,
            base,
            table,
            text,
            secrets_file,
            secrets_before,
            overwrite,
        })
    }

    /// The configuration, where there is something to be written or seen to.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn configuration(&self) -> Result<Option<PlannedFile>, ServiceError> {
        let body = if self.table != self.base
            || (self.overwrite && !self.before.is_free() && !self.table.is_empty())
        {
            Some(self.text.clone())
        } else if let Written::ByUs(text) = &self.before {
            Some(text.clone())
        } else {
            return Ok(None);
        };
        PlannedFile::new(self.config_file.clone(), body, 0o600).map(Some)
    }

    /// The variables, where there is something to be written, removed or seen to.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn variables(&self) -> Result<Option<PlannedFile>, ServiceError> {
        let former = Secrets::parse(self.secrets_before.text().unwrap_or_default());
        let body = match &self.secrets_before {
            Written::Foreign(_) if self.secrets.is_empty() => return Ok(None),
            Written::Edited(_) if self.secrets == former => return Ok(None),
            _ if self.secrets.is_empty() => None,
            _ => Some(self.secrets.text()),
        };
        let mut wanted = PlannedFile::new(self.secrets_file.clone(), body, 0o600)?;
        wanted.shown = Some((former.shown(&former), self.secrets.shown(&former)));
        Ok(Some(wanted))
    }

    /// The file of variables that the unit must name.
    pub fn secrets_file(&self) -> Option<PathBuf> {
        (!self.secrets.is_empty()).then(|| self.secrets_file.clone())
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
        for spec in self
            .config
            .sidecar
            .values()
            .chain(self.former.sidecar.values())
        {
            redactor.learn_command(&spec.command);
            redactor.learn_command(&spec.prepare);
            spec.env
                .iter()
                .for_each(|(key, value)| redactor.learn_env(key, value));
        }
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
        let (old, new) = (command(&self.former)?, command(&self.config)?);
        (old != new).then(|| {
            diff(
                &self.config_file,
                self.before.text().unwrap_or_default(),
                &self.text,
            )
        })
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
            "the current folder {:?} has a control character in its name",
            place.cwd
        ))
        .next("cd elsewhere, or rename it"));
    }
    Ok(())
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

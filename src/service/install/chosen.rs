//! What earlier installs chose, which stays until it is chosen otherwise or taken back.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use toml::Table;

use super::request::{ChosenOption, InstallRequest};
use crate::config::MAIN_SIDECAR;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::{RunAs, writable_of_unit};

impl ChosenOption {
    /// Where the configuration keeps it: a table, and a key of it.
    fn key(self) -> Option<(&'static [&'static str], &'static str)> {
        const MAIN: &[&str] = &["sidecar", MAIN_SIDECAR];
        match self {
            Self::Listen => Some((&["gateway"], "listen")),
            Self::Exclusive => Some((MAIN, "overlap")),
            Self::AppPort => Some((MAIN, "port")),
            Self::Ready => Some((MAIN, "ready")),
            Self::StartTimeout => Some((MAIN, "start_timeout")),
            Self::Reload => Some((MAIN, "reload")),
            Self::Stdin => Some((MAIN, "stdin")),
            Self::EnvFile => Some((MAIN, "env_file")),
            Self::Socket | Self::RunAs | Self::Writable | Self::Sandbox => None,
        }
    }

    /// Takes it out of a configuration: whether it was there.
    pub(super) fn forget(self, config: &mut Table) -> bool {
        let Some((path, key)) = self.key() else {
            return false;
        };
        let mut table = Some(config);
        for name in path {
            table = table.and_then(|table| table.get_mut(*name)?.as_table_mut());
        }
        table.is_some_and(|table| table.remove(key).is_some())
    }
}

/// What the unit that is there was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitChoices {
    run_as: Option<RunAs>,
    /// A file of variables that systemd reads, as earlier versions of install had it.
    env_file: Option<PathBuf>,
    writable: Vec<PathBuf>,
    sandbox: Option<Sandbox>,
    socket: bool,
}

impl UnitChoices {
    /// Reads the text of a unit that install wrote; `secrets` is the file of variables of our own, and
    /// `socket` says whether there is a socket unit of ours.
    pub fn read(text: &str, secrets: &Path, socket: bool) -> Self {
        let values = |key: &'static str| {
            text.lines()
                .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.replace("%%", "%"))
        };
        Self {
            run_as: RunAs::of_unit(text),
            env_file: values("EnvironmentFile")
                .map(PathBuf::from)
                .find(|file| file != secrets),
            writable: writable_of_unit(text),
            sandbox: Some(Sandbox::of_unit(text)),
            socket,
        }
    }

    /// Whether it differs from the default.
    fn has(&self, option: ChosenOption) -> bool {
        match option {
            ChosenOption::Socket => self.socket,
            ChosenOption::RunAs => matches!(self.run_as, Some(RunAs::User(_))),
            ChosenOption::EnvFile => self.env_file.is_some(),
            ChosenOption::Writable => !self.writable.is_empty(),
            ChosenOption::Sandbox => self.sandbox.is_some_and(|one| one != Sandbox::default()),
            _ => false,
        }
    }
}

/// The options of earlier installs that stay though the request does not name them, as flags: those of
/// the former configuration, and those of the former unit.
pub(super) fn kept(request: &InstallRequest, mut config: Table, unit: &UnitChoices) -> Vec<String> {
    let options = ChosenOption::value_variants().iter();
    let kept = options.filter(|option| {
        let chosen = option.forget(&mut config) || unit.has(**option);
        chosen && !request.names(**option) && !request.unset.contains(option)
    });
    kept.filter_map(|option| Some(format!("--{}", option.to_possible_value()?.get_name())))
        .collect()
}

impl InstallRequest {
    /// Whether it chooses this option.
    fn names(&self, option: ChosenOption) -> bool {
        match option {
            ChosenOption::Listen => !self.listen.is_empty(),
            ChosenOption::Exclusive => self.exclusive || self.port.is_some(),
            ChosenOption::AppPort => self.port.is_some(),
            ChosenOption::Ready => self.ready.is_some(),
            ChosenOption::StartTimeout => self.start_timeout.is_some(),
            ChosenOption::Reload => self.reload.is_some(),
            ChosenOption::Stdin => self.stdin.is_some(),
            ChosenOption::Socket => self.socket,
            ChosenOption::RunAs => self.run_as.is_some(),
            ChosenOption::EnvFile => self.env_file.is_some(),
            ChosenOption::Writable => !self.writable.is_empty(),
            ChosenOption::Sandbox => self.sandbox.is_some(),
        }
    }

    /// The request with what was chosen before and is not asked otherwise.
    pub(super) fn over(&self, before: UnitChoices) -> Self {
        let kept = |option| !self.unset.contains(&option);
        let mut request = self.clone();
        request.socket |= before.socket && kept(ChosenOption::Socket);
        request.run_as =
            (self.run_as.clone()).or_else(|| before.run_as.filter(|_| kept(ChosenOption::RunAs)));
        request.env_file = (self.env_file.clone())
            .or_else(|| before.env_file.filter(|_| kept(ChosenOption::EnvFile)));
        if request.writable.is_empty() && kept(ChosenOption::Writable) {
            request.writable = before.writable;
        }
        request.sandbox =
            (self.sandbox).or_else(|| before.sandbox.filter(|_| kept(ChosenOption::Sandbox)));
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::unit_text::UnitPlan;
    use crate::state::paths::Scope;

    #[test]
    fn a_unit_tells_what_it_was_made_with() {
        let secrets = PathBuf::from("/etc/gateway/gateway.secrets.env");
        let writable = vec![PathBuf::from("/srv/50% \"of\" it"), "/srv/data".into()];
        for scope in [Scope::System, Scope::User] {
            for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
                for run_as in [RunAs::Dynamic, RunAs::User("100%".into())] {
                    for env_file in [None, Some(PathBuf::from("/srv/50% off.env"))] {
                        let plan = UnitPlan {
                            scope,
                            sandbox,
                            run_as: run_as.clone(),
                            env_file: env_file.clone(),
                            secrets: Some(secrets.clone()),
                            writable: writable.clone(),
                            ..UnitPlan::default()
                        };
                        let read = UnitChoices::read(&plan.service().unwrap(), &secrets, false);
                        assert_eq!(read.env_file, env_file);
                        if scope == Scope::User {
                            assert_eq!(read.run_as, None, "a user's service runs as that user");
                            let strict = sandbox == Sandbox::Strict;
                            let same = if strict { Sandbox::App } else { sandbox };
                            assert_eq!(read.sandbox, Some(same));
                        } else {
                            assert_eq!(read.run_as, Some(run_as.clone()));
                            let walled = sandbox != Sandbox::Off || run_as == RunAs::Dynamic;
                            assert_eq!(read.writable.len(), if walled { 2 } else { 0 });
                            assert!(!walled || read.writable == writable);
                            assert_eq!(read.sandbox, Some(sandbox));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_chosen_stays_until_it_is_chosen_otherwise_or_taken_back() {
        let before = UnitChoices {
            run_as: Some(RunAs::User("ada".into())),
            env_file: Some("/srv/env".into()),
            writable: vec!["/srv/data".into()],
            sandbox: Some(Sandbox::Strict),
            socket: true,
        };
        let again = InstallRequest::default().over(before.clone());
        assert_eq!(again.run_as, before.run_as);
        assert_eq!(again.env_file, before.env_file);
        assert_eq!(again.sandbox, before.sandbox);
        assert_eq!(again.writable, before.writable);
        assert!(again.socket);

        let asked = InstallRequest {
            sandbox: Some(Sandbox::Off),
            unset: vec![ChosenOption::RunAs, ChosenOption::Socket],
            ..InstallRequest::default()
        };
        let other = asked.over(before.clone());
        assert_eq!(other.sandbox, Some(Sandbox::Off));
        assert_eq!((other.run_as, other.socket), (None, false));
        assert_eq!(other.env_file, before.env_file);
    }

    #[test]
    fn an_option_is_taken_out_of_the_configuration() {
        let text = "[gateway]\nlisten = [\"1\"]\n[sidecar.main]\ncommand = [\"x\"]\noverlap = false\nready = { http = \"/\" }\n";
        let mut config: Table = text.parse().unwrap();
        for option in [
            ChosenOption::Listen,
            ChosenOption::Exclusive,
            ChosenOption::Ready,
            ChosenOption::AppPort,
            ChosenOption::RunAs,
        ] {
            option.forget(&mut config);
        }
        let left = toml::to_string(&config).unwrap();
        assert_eq!(left, "[gateway]\n\n[sidecar.main]\ncommand = [\"x\"]\n");
    }
}

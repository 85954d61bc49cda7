//! What a generation is made of: the user's configuration, or what stands in for one that is not
//! valid. A bad file must never close a port that was open.

use std::path::Path;

use jiff::Timestamp;
use tracing::warn;

use super::handover::failpoint;
use super::recovery::ConfigOrigin;
use crate::config::{self, Config, ConfigError, Env, Listen, Loaded, Overrides};
use crate::os::working_directory::by_link;
use crate::proxy::open_access_log;
use crate::sidecar::unused_variables;
use crate::state::last_good_config;

/// Says which variables are not used that `before` did not have: the start said so of others.
fn tell_unused(before: &Config, now: &Config) {
    let said = unused_variables(before, None);
    let unused = unused_variables(now, None);
    for sentence in unused.iter().filter(|sentence| !said.contains(sentence)) {
        warn!("[gateway] {sentence}");
    }
}

/// Refuses a configuration whose access log cannot be written.
///
/// # Errors
/// Why not.
fn usable(loaded: Loaded) -> Result<Loaded, ConfigError> {
    match open_access_log(&loaded.config.gateway.access_log) {
        Ok(_) => Ok(loaded),
        Err(why) => Err(loaded.refuse(["gateway", "access_log"], &format!("access log: {why}"))),
    }
}

/// The configuration with the files of variables of its sidecars as they are now.
pub fn with_env_files(mut loaded: Loaded, env: &Env<'_>) -> Loaded {
    let directory = by_link(env.path("PWD"));
    loaded.config.read_env_files(env, directory);
    loaded
}

/// As [`usable`], for a generation that takes the place of one that serves: its files of variables
/// must be usable, too. At a start a bad one keeps only its sidecar from starting, which tries again.
///
/// # Errors
/// Why not.
pub fn usable_whole(loaded: Loaded, env: &Env<'_>) -> Result<Loaded, ConfigError> {
    with_env_files(usable(loaded)?, env).with_usable_env_files()
}

/// A configuration, and what it is worth.
#[derive(Clone, Debug)]
pub struct Material {
    pub loaded: Loaded,
    /// Whether it is the user's.
    pub configuration: ConfigOrigin,
}

fn about_to_read() {
    failpoint::pass("config.read");
}

impl Material {
    pub fn valid(loaded: Loaded) -> Self {
        Self {
            loaded,
            configuration: ConfigOrigin::Valid,
        }
    }

    /// A good one, where the user's is not valid.
    fn instead(loaded: Loaded, why: String) -> Self {
        let configuration = ConfigOrigin::LastGood { why };
        Self {
            loaded,
            configuration,
        }
    }

    /// For the start of a process: the user's, else the last good one, else nothing but a front
    /// door on the addresses that were passed on.
    ///
    /// # Errors
    /// What is wrong with the user's, when there is nothing to serve on.
    pub fn at_start(
        flags: &Overrides,
        env: &Env<'_>,
        passed: impl FnOnce() -> Vec<Listen>,
    ) -> Result<Self, ConfigError> {
        let error = match config::load(flags, env).and_then(usable) {
            Ok(loaded) => return Ok(Self::valid(with_env_files(loaded, env))),
            Err(error) => error,
        };
        let why = error.to_string();
        if let Some(loaded) = last_good_config::load(flags, env) {
            return Ok(Self::instead(with_env_files(loaded, env), why));
        }
        let listen = passed();
        if listen.is_empty() {
            return Err(error);
        }
        let whereabouts = config::whereabouts(flags, env);
        let mut config = Config::default();
        config.gateway.listen = listen;
        config.gateway.state_dir = whereabouts.state_dir;
        let loaded = Loaded {
            config,
            path: Some(whereabouts.path),
            instance: whereabouts.instance,
            text: None,
            read_at: Timestamp::now(),
        };
        Ok(Self {
            loaded,
            configuration: ConfigOrigin::Nothing { why },
        })
    }

    /// For the next generation of a process: the user's configuration as it is now. While the process
    /// serves nothing (`nobody_serves`), something stands in for one that is not valid.
    ///
    /// # Errors
    /// What is wrong with the user's.
    pub fn reread(
        &self,
        flags: &Overrides,
        state: &Path,
        nobody_serves: bool,
    ) -> Result<Self, String> {
        about_to_read();
        let env = Env::real();
        let (instance, path) = (&self.loaded.instance, self.loaded.path.as_deref());
        let read = config::load_again(flags, &env, instance, path);
        let read = match nobody_serves {
            true => read.and_then(usable).map(|read| with_env_files(read, &env)),
            false => read.and_then(|read| usable_whole(read, &env)),
        };
        let mut read = read.map_err(|error| error.to_string());
        if let Ok(read) = &mut read {
            // The name that this process insists on is no change of the user's.
            let before = &self.loaded.config.gateway.instance;
            read.config.gateway.instance.clone_from(before);
            tell_unused(&self.loaded.config, &read.config);
        }
        if nobody_serves {
            let flags = Overrides {
                config: self.loaded.path.clone().or(flags.config.clone()),
                instance: Some(instance.clone()),
                ..flags.clone()
            };
            self.clone().again(read, &flags, &env, state)
        } else {
            Ok(Self::valid(read?))
        }
    }

    /// For the restart of one sidecar: the same with its file of variables as that is now.
    ///
    /// # Errors
    /// Why that cannot be used.
    pub fn with_env_file_of(&self, sidecar: &str) -> Result<Self, String> {
        about_to_read();
        let env = Env::real();
        let mut material = self.clone();
        let config = &mut material.loaded.config;
        config.read_env_file(sidecar, &env, by_link(env.path("PWD")));
        let usable = material.loaded.check_env_file(sidecar);
        usable.map_err(|error| error.to_string())?;
        tell_unused(&self.loaded.config, &material.loaded.config);
        Ok(material)
    }

    /// For a later try of a process that serves nothing: `read` is the user's as it is now, with its
    /// files of variables. When
    /// that is not valid, the last good one of `state` stands in for it, else the one from before
    /// (`self`), unless that was nothing.
    ///
    /// # Errors
    /// What is wrong with the user's.
    pub fn again(
        self,
        read: Result<Loaded, String>,
        flags: &Overrides,
        env: &Env<'_>,
        state: &Path,
    ) -> Result<Self, String> {
        let why = match read {
            Ok(loaded) => return Ok(Self::valid(loaded)),
            Err(why) => why,
        };
        let loaded = match (
            last_good_config::load_from(state, flags, env),
            self.configuration,
        ) {
            (Some(good), _) => with_env_files(good, env),
            (None, ConfigOrigin::Nothing { .. }) => return Err(why),
            (None, ConfigOrigin::Valid | ConfigOrigin::LastGood { .. }) => self.loaded,
        };
        Ok(Self::instead(loaded, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::setting;

    fn none(_: &str) -> Option<std::ffi::OsString> {
        None
    }

    fn no_listeners() -> Vec<Listen> {
        Vec::new()
    }

    const BAD: &str = "[restart]\ndrian = 1\n";

    #[test]
    fn what_a_start_serves() {
        let (dir, flags) = setting("[restart]\ndrain = \"7s\"\n");
        let file = flags.config.clone().unwrap();
        let env = Env(&none);
        let first = Material::at_start(&flags, &env, no_listeners).unwrap();
        assert_eq!(first.configuration, ConfigOrigin::Valid);
        std::fs::write(&file, BAD).unwrap();
        assert!(Material::at_start(&flags, &env, no_listeners).is_err());
        let listen: Listen = "1007".parse().unwrap();
        let door = Material::at_start(&flags, &env, || vec![listen.clone()]).unwrap();
        assert!(
            matches!(&door.configuration, ConfigOrigin::Nothing { why } if why.contains("drian")),
            "{:?}",
            door.configuration
        );
        assert_eq!(
            (door.loaded.config.gateway.listen, door.loaded.path),
            (vec![listen], Some(file))
        );
        last_good_config::save(dir.path(), &first.loaded).unwrap();
        let good = Material::at_start(&flags, &env, no_listeners).unwrap();
        assert!(matches!(good.configuration, ConfigOrigin::LastGood { .. }));
        assert_eq!(good.loaded.config.restart, first.loaded.config.restart);
    }

    #[test]
    fn what_a_later_try_serves() {
        let (dir, flags) = setting("");
        let env = Env(&none);
        let first = Material::at_start(&flags, &env, no_listeners).unwrap();
        let again = |of: &Material, read: Result<Loaded, String>| {
            of.clone().again(read, &flags, &env, dir.path())
        };
        let bad = || Err("bad".to_owned());
        assert_eq!(
            again(&first, Ok(first.loaded.clone()))
                .unwrap()
                .configuration,
            ConfigOrigin::Valid
        );
        assert_eq!(
            again(&first, bad()).unwrap().configuration,
            ConfigOrigin::LastGood { why: "bad".into() }
        );
        let nothing = Material {
            configuration: ConfigOrigin::Nothing { why: String::new() },
            ..first.clone()
        };
        assert_eq!(again(&nothing, bad()).unwrap_err(), "bad");
        last_good_config::save(dir.path(), &first.loaded).unwrap();
        assert_eq!(
            again(&nothing, bad()).unwrap().configuration,
            ConfigOrigin::LastGood { why: "bad".into() }
        );
    }
}

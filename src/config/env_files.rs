//! The files of variables of a whole configuration.

use std::path::PathBuf;

use super::env_file::EnvFilePlaces;
use super::environment::Env;
use super::error::ConfigError;
use super::load::Loaded;
use super::model::Config;

impl Config {
    /// Reads the file of each sidecar that has one, relative paths from `directory` on. One that cannot
    /// be used is noted with its reason.
    pub fn read_env_files(&mut self, env: &Env<'_>, directory: Option<PathBuf>) {
        let places = places(env, directory);
        for (name, spec) in &mut self.sidecar {
            if let Some(file) = &spec.env_file {
                spec.of_env_file = places.read(name, file).into();
            }
        }
    }

    /// The same for one sidecar.
    pub fn read_env_file(&mut self, sidecar: &str, env: &Env<'_>, directory: Option<PathBuf>) {
        if let Some(spec) = self.sidecar.get_mut(sidecar)
            && let Some(file) = &spec.env_file
        {
            spec.of_env_file = places(env, directory).read(sidecar, file).into();
        }
    }
}

fn places(env: &Env<'_>, directory: Option<PathBuf>) -> EnvFilePlaces {
    EnvFilePlaces {
        directory,
        credentials: env.path("CREDENTIALS_DIRECTORY"),
    }
}

impl Loaded {
    /// Refuses a configuration with a file of variables that was read and cannot be used.
    ///
    /// # Errors
    /// Which, and why.
    pub fn with_usable_env_files(self) -> Result<Self, ConfigError> {
        for name in self.config.sidecar.keys() {
            self.check_env_file(name)?;
        }
        Ok(self)
    }

    /// The same for one sidecar.
    ///
    /// # Errors
    /// Why its file cannot be used.
    pub fn check_env_file(&self, sidecar: &str) -> Result<(), ConfigError> {
        let spec = self.config.sidecar.get(sidecar);
        match spec.and_then(|spec| spec.of_env_file.why_not()) {
            Some(why) => {
                let message = format!("the variables of sidecar `{sidecar}`: {why}");
                Err(self.refuse(["sidecar", sidecar, "env_file"], &message))
            }
            None => Ok(()),
        }
    }
}

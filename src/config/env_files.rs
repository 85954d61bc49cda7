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
        let places = EnvFilePlaces {
            directory,
            credentials: env.path("CREDENTIALS_DIRECTORY"),
        };
        for (name, spec) in &mut self.sidecar {
            if let Some(file) = &spec.env_file {
                spec.of_env_file = places.read(name, file).into();
            }
        }
    }
}

impl Loaded {
    /// Refuses a configuration with a file of variables that was read and cannot be used.
    ///
    /// # Errors
    /// Which, and why.
    pub fn with_usable_env_files(self) -> Result<Self, ConfigError> {
        for (name, spec) in &self.config.sidecar {
            if let Some(why) = spec.of_env_file.why_not() {
                let message = format!("the variables of sidecar `{name}`: {why}");
                return Err(self.refuse(["sidecar", name, "env_file"], &message));
            }
        }
        Ok(self)
    }
}

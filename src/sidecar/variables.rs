//! The variables of a sidecar beside those that it inherits: those of its file (`env_file`), then
//! `PORT`, then those of the configuration. A later one wins, and over those of the file also what
//! `gatewayctl install --set` set, which is inherited.

use tokio::task::spawn_blocking;

use super::environment::Inherited;
use super::runner::Runner;
use crate::config::{EnvFile, EnvFilePlaces};

impl Runner {
    pub(super) fn variables(&self, port: u16) -> Vec<(String, String)> {
        let port = port.to_string();
        let spec = &self.start.spec;
        let set = &self.start.inherited.set;
        let of_file = spec.of_env_file.variables();
        let of_file = of_file.filter(|(name, _)| !set.contains(name));
        let of_file = of_file.map(|(name, value)| (name.clone(), value.clone()));
        let written = spec.env.iter();
        let written = written.map(|(name, value)| (name.clone(), value.replace("{port}", &port)));
        of_file
            .chain([("PORT".to_owned(), port.clone())])
            .chain(written)
            .collect()
    }

    /// Reads the file of variables where it could not be used before: somebody may have mended it, and
    /// nothing else would bring the sidecar back.
    ///
    /// # Errors
    /// Why it still cannot be used.
    pub(super) async fn read_env_file(&mut self) -> Result<(), String> {
        let spec = &self.start.spec;
        let (Some(_), Some(file)) = (spec.of_env_file.why_not(), &spec.env_file) else {
            return Ok(());
        };
        let (name, file) = (self.start.name.clone(), file.clone());
        let places = self.start.inherited.env_file_places();
        // The disk may not answer.
        let read = spawn_blocking(move || EnvFile::from(places.read(&name, &file)));
        let read = read.await.map_err(|error| error.to_string())?;
        if let Some(why) = read.why_not() {
            return Err(format!("has no usable variables: {why}"));
        }
        self.start.spec.of_env_file = read;
        self.start.spec.teach(&self.start.redactor);
        Ok(())
    }
}

impl Inherited {
    /// Where files of variables lie for a process with this environment.
    fn env_file_places(&self) -> EnvFilePlaces {
        let mut variables = self.environment.iter();
        let credentials = variables.find(|(name, _)| name == "CREDENTIALS_DIRECTORY");
        EnvFilePlaces {
            directory: self.directory.clone(),
            credentials: credentials.map(|(_, value)| value.into()),
        }
    }
}

//! The secrets in a configuration: every command and variable of it may hold some.

use super::{Config, ReloadMeans, SidecarSpec};
use crate::text::redact::{MASK, Redactor};

impl Config {
    /// A redactor that knows every secret of this configuration.
    pub fn redactor(&self) -> Redactor {
        let redactor = Redactor::new(&self.gateway.redact);
        self.teach(&redactor);
        redactor
    }

    /// Teaches every secret of this configuration.
    pub fn teach(&self, redactor: &Redactor) {
        redactor.learn_command(&self.recovery.on_give_up);
        self.sidecar.values().for_each(|spec| spec.teach(redactor));
    }

    /// The configuration as it may be shown.
    pub fn without_secrets(mut self) -> Self {
        let redactor = self.redactor();
        self.recovery.on_give_up = redactor.arguments(&self.recovery.on_give_up);
        for spec in self.sidecar.values_mut() {
            spec.command = redactor.arguments(&spec.command);
            spec.prepare = redactor.arguments(&spec.prepare);
            if let Some(command) = spec.reload_command_mut() {
                *command = redactor.arguments(command);
            }
            for (key, value) in &mut spec.env {
                *value = redactor.value(key, value);
            }
        }
        self
    }

    /// The keys that hold secrets.
    pub fn secret_keys(&self) -> Vec<String> {
        let redactor = Redactor::new(&self.gateway.redact);
        let hides = |command: &Vec<String>| redactor.arguments(command) != *command;
        let mut found = Vec::new();
        for (name, spec) in &self.sidecar {
            let place = format!("[sidecar.{name}]");
            let commands = [("command", &spec.command), ("prepare", &spec.prepare)];
            let reload = spec.reload_command().map(|command| ("reload", command));
            for (key, command) in commands.into_iter().chain(reload) {
                if hides(command) {
                    found.push(format!("{place} {key}"));
                }
            }
            for (key, value) in &spec.env {
                if redactor.value(key, value).contains(MASK) && !value.contains(MASK) {
                    found.push(format!("{place} env.{key}"));
                }
            }
        }
        if hides(&self.recovery.on_give_up) {
            found.push("[recovery] on_give_up".to_owned());
        }
        found
    }
}

impl SidecarSpec {
    fn reload_command(&self) -> Option<&Vec<String>> {
        match &self.reload.as_ref()?.means {
            ReloadMeans::Command(command) => Some(command),
            _ => None,
        }
    }

    fn reload_command_mut(&mut self) -> Option<&mut Vec<String>> {
        match &mut self.reload.as_mut()?.means {
            ReloadMeans::Command(command) => Some(command),
            _ => None,
        }
    }

    /// Teaches the secrets of its commands and variables.
    pub fn teach(&self, redactor: &Redactor) {
        redactor.learn_command(&self.command);
        redactor.learn_command(&self.prepare);
        if let Some(command) = self.reload_command() {
            redactor.learn_command(command);
        }
        for (key, value) in self.of_env_file.variables().chain(&self.env) {
            redactor.learn_env(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, to_toml};

    #[test]
    fn no_command_and_no_variable_shows_its_secret() {
        let text = r#"
            [recovery]
            on_give_up = ["alert", "--api-key", "CANARY-4"]
            [sidecar.main]
            command = ["x", "--token", "CANARY-1", "--echo=CANARY-2"]
            prepare = ["y", "CANARY-2", "--password", "CANARY-3"]
            env = { API_KEY = "CANARY-2", A = "b" }
        "#;
        let config = parse(text, None).unwrap();
        let redactor = config.redactor();
        for secret in 1..=4 {
            let said = redactor.text(&format!("CANARY-{secret} was printed"));
            assert_eq!(said, "*** was printed");
        }
        let expected = [
            "[sidecar.main] command",
            "[sidecar.main] prepare",
            "[sidecar.main] env.API_KEY",
            "[recovery] on_give_up",
        ];
        assert_eq!(config.secret_keys(), expected);
        let shown = to_toml(&config.without_secrets()).unwrap();
        assert!(
            !shown.contains("CANARY") && shown.contains("A = \"b\""),
            "{shown}"
        );
    }
}

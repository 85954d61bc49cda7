//! What `gatewayctl config` prints: the schema, a commented starter, and a configuration as TOML.

use super::model::Config;

/// The JSON schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

/// A configuration as TOML, defaults included; an error for a path that is not text.
pub fn to_toml(config: &Config) -> Result<String, toml::ser::Error> {
    toml::to_string(config)
}

/// A commented file to start from.
pub fn starter() -> &'static str {
    include_str!("starter.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MAIN_SIDECAR, parse};

    #[test]
    fn the_starter_is_valid_and_says_the_defaults() {
        let text = starter();
        assert_eq!(
            parse(text, None).unwrap(),
            Config::default(),
            "every value in the starter is the default, and nothing is started unasked"
        );
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| {
                !line.starts_with(['"', '#']) && (line.contains(" = ") || line.starts_with('['))
            })
            .fold(String::new(), |all, line| all + line + "\n");
        let config = parse(&uncommented, None)
            .unwrap_or_else(|error| panic!("commented keys are known too: {error}\n{uncommented}"));
        let main = &config.sidecar[MAIN_SIDECAR];
        assert!(main.cwd.is_some() && main.command[0] == "node", "{main:?}");
    }

    #[test]
    fn a_configuration_round_trips_through_toml() {
        let sidecar = "[sidecar.main]\ncommand = [\"node\", \"a.js\"]\nenv = { A = \"b\" }\n";
        let config = parse(&format!("{}\n{sidecar}", starter()), None).unwrap();
        assert_eq!(parse(&to_toml(&config).unwrap(), None).unwrap(), config);
    }

    #[test]
    fn the_schema_names_every_section() {
        let schema = schema();
        for section in [
            "gateway", "restart", "recovery", "limits", "sidecar", "route",
        ] {
            assert!(schema["properties"][section].is_object(), "{section}");
        }
    }
}

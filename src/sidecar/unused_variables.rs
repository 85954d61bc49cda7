//! Variables that somebody set and that do not do what they look like: the gateway gives each server a
//! `PORT` of its own, and settings of the gateway in a file for a server set nothing of the gateway.

use super::environment::{Inherited, scrubbed};
use crate::config::{Config, SidecarSpec};

const PORT: &str = "PORT";

/// What is set for a server and not used, each in a sentence; `inherited` is the `PORT` that all servers
/// would get.
pub fn unused_variables(config: &Config, inherited: Option<&str>) -> Vec<String> {
    let all = config.sidecar.iter();
    let of_sidecar = |(name, spec): (&String, &SidecarSpec)| of_sidecar(config, name, spec);
    let has_server = !config.sidecar.is_empty();
    let inherited = inherited.filter(|_| has_server);
    let inherited = inherited.and_then(|value| replaced(config, None, value, "the environment"));
    all.flat_map(of_sidecar).chain(inherited).collect()
}

impl Inherited {
    /// The `PORT` that the gateway was started with.
    pub fn port(&self) -> Option<&str> {
        let mut variables = self.environment.iter();
        let (_, value) = variables.find(|(name, _)| name == PORT)?;
        value.to_str()
    }
}

fn of_sidecar(config: &Config, name: &str, spec: &SidecarSpec) -> Vec<String> {
    let file = spec.env_file.as_ref();
    let file = file
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    let in_file = |(variable, value): (&String, &String)| match variable.as_str() {
        PORT => replaced(config, Some((name, spec)), value, &file),
        _ if scrubbed(variable) && variable.starts_with("GATEWAY_") => Some(format!(
            "{variable} from {file} is for the server {name} alone and sets nothing of the gateway: set it in the environment of the gateway, or its key in the configuration"
        )),
        _ => None,
    };
    let mut found: Vec<String> = spec.of_env_file.variables().filter_map(in_file).collect();
    found.extend(
        spec.env
            .get(PORT)
            .and_then(|value| fixed(name, spec, value)),
    );
    found
}

/// A `PORT` in whose place the server gets another one. Nothing is said where clients or the server are at
/// that port anyway.
fn replaced(
    config: &Config,
    of: Option<(&str, &SidecarSpec)>,
    value: &str,
    from: &str,
) -> Option<String> {
    // What the configuration sets is told of by `fixed`.
    if of.is_some_and(|(_, spec)| spec.env.contains_key(PORT)) {
        return None;
    }
    let server = match of {
        Some((name, _)) => format!("the server {name} gets"),
        None => "each server gets".to_owned(),
    };
    let Ok(port) = value.trim().parse::<u16>() else {
        return (value != "{port}").then(|| {
            format!(
                "PORT from {from} is not used: {server} a port of the gateway's choice in $PORT"
            )
        });
    };
    let mut listeners = config.gateway.listen.iter();
    let mut specs = config.sidecar.values();
    let is_there = listeners.any(|listen| listen.port() == Some(port))
        || specs.any(|spec| spec.port == Some(port));
    (!is_there).then(|| {
        format!(
            "PORT={port} from {from} is not used: {server} a port of the gateway's choice in $PORT. If clients are to connect to port {port}: --listen {port} (`listen` in [gateway]); if the server can listen nowhere else: --app-port {port} (`port` in [sidecar.NAME])"
        )
    })
}

/// A `PORT` that a server does get, and that is not the port at which it is looked for.
fn fixed(name: &str, spec: &SidecarSpec, value: &str) -> Option<String> {
    let port: u16 = value.trim().parse().ok()?;
    (spec.port != Some(port)).then(|| {
        format!(
            "the server {name} is told to listen on {port} (PORT={port} of --env or `env`) and looked for on {}: leave PORT out, or, if it can listen nowhere else: --app-port {port} (`port`)",
            spec.port.map_or_else(|| "a port of the gateway's choice".to_owned(), |port| port.to_string())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EnvFile, parse};

    fn said(more: &str, file: &str, inherited: Option<&str>) -> Vec<String> {
        let text = format!(
            "[gateway]\nlisten = [\"8080\"]\n[sidecar.main]\ncommand = [\"x\"]\nenv_file = \".env\"\n{more}"
        );
        let mut config = parse(&text, None).unwrap();
        let variables = file.lines().filter_map(|line| line.split_once('='));
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let main = config.sidecar.get_mut("main").unwrap();
        main.of_env_file = EnvFile::Read(variables.collect());
        unused_variables(&config, inherited)
    }

    #[test]
    fn a_port_is_told_of_where_it_is_not_the_one_that_is_used() {
        for (more, file, inherited, expected) in [
            ("", "A=1", None, &[][..]),
            ("", "PORT=8080", Some("8080"), &[]),
            ("port = 3000\n", "PORT=3000", Some("3000"), &[]),
            ("", "PORT=3000", None, &["PORT=3000 from .env is not used"]),
            ("", "PORT=canary", None, &["PORT from .env is not used"]),
            (
                "",
                "",
                Some("3000"),
                &["PORT=3000 from the environment is not used"],
            ),
            ("env.PORT = \"{port}\"\n", "PORT=3000", None, &[]),
            (
                "env.PORT = \"3000\"\n",
                "PORT=3000",
                None,
                &["the server main is told to listen on 3000"],
            ),
            ("port = 3000\nenv.PORT = \"3000\"\n", "", None, &[]),
            (
                "",
                "GATEWAY_LISTEN=3000\nGATEWAY_URL=x",
                None,
                &["GATEWAY_LISTEN from .env is for the server main alone"],
            ),
        ] {
            let said = said(more, file, inherited);
            assert_eq!(said.len(), expected.len(), "{more}{file}: {said:?}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(
                    said.starts_with(expected) && !said.contains("canary"),
                    "{said}"
                );
            }
        }
        let nothing_behind = parse("[[route]]\nto = \"http://127.0.0.1:1\"\n", None).unwrap();
        assert!(unused_variables(&nothing_behind, Some("3000")).is_empty());
    }
}

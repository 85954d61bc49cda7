//! Which sidecars get requests: those that a route names, and one that gets what no route takes.

use super::model::{Config, RestartMode};
use super::{MAIN_SIDECAR, normal_form};

impl Config {
    /// The sidecar that gets every request that no route takes: the only one, or the one of
    /// `gateway run -- COMMAND`, where no route names it.
    pub fn remainder(&self) -> Option<&str> {
        let takes_all = self.route.iter().any(|route| {
            let path = normal_form::path(&route.path);
            route.host.is_none() && path.trim_end_matches('/').is_empty()
        });
        let only = self.sidecar.len() == 1;
        let mut unnamed = self.unnamed();
        unnamed.find(|name| !takes_all && (only || *name == MAIN_SIDECAR))
    }

    /// The sidecars that get no request.
    pub fn unreached(&self) -> Vec<&str> {
        let remainder = self.remainder();
        let unnamed = self.unnamed();
        unnamed.filter(|name| Some(*name) != remainder).collect()
    }

    /// The sidecars that no route names.
    fn unnamed(&self) -> impl Iterator<Item = &str> {
        let named = |name: &&str| self.route.iter().any(|route| route.to == **name);
        let names = self.sidecar.keys().map(String::as_str);
        names.filter(move |name| !named(name))
    }

    /// What is valid and most likely not meant, each in a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let sentence = |name: &&str| {
            format!(
                "no route leads to sidecar {name}, so it gets no request: add [[route]] with to = \"{name}\""
            )
        };
        let unreached = self.unreached();
        let unreached = unreached.iter().map(sentence);
        unreached.chain(self.unused_reload()).collect()
    }

    /// A fresh process starts its servers anew.
    fn unused_reload(&self) -> Option<String> {
        let mode = &self.restart.mode;
        let anew = matches!(mode, RestartMode::Respawn | RestartMode::Exit);
        let mut sidecars = self.sidecar.iter();
        let (name, _) = sidecars.find(|(_, spec)| anew && spec.reload.is_some())?;
        Some(format!(
            "a restart does not use the `reload` of sidecar {name}, because [restart] mode is \"{mode}\": leave `mode` out"
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn what_no_route_takes_goes_to_the_only_sidecar_or_to_that_of_the_command() {
        for (sidecars, routes, remainder, unreached) in [
            (&["a"][..], &[][..], Some("a"), &[][..]),
            (&["a"], &[("", "/x", "http://x")], Some("a"), &[]),
            (&["a"], &[("h", "/", "http://x")], Some("a"), &[]),
            (&["a"], &[("", "/x", "a")], None, &[]),
            (&["a"], &[("", "/", "http://x")], None, &["a"]),
            (&["a"], &[("", "/./", "http://x")], None, &["a"]),
            (&["main", "b"], &[], Some("main"), &["b"]),
            (&["main", "b"], &[("", "/b", "b")], Some("main"), &[]),
            (&["main", "b"], &[("", "/", "b")], None, &["main"]),
            (&["a", "b"], &[], None, &["a", "b"]),
            (&["a", "b"], &[("", "/b", "b")], None, &["a"]),
        ] {
            let mut text = String::new();
            for name in sidecars {
                text.push_str(&format!("[sidecar.{name}]\ncommand = [\"x\"]\n"));
            }
            for (host, path, to) in routes {
                text.push_str(&format!("[[route]]\npath = \"{path}\"\nto = \"{to}\"\n"));
                if !host.is_empty() {
                    text.push_str(&format!("host = \"{host}\"\n"));
                }
            }
            let config = parse(&text, None).unwrap();
            assert_eq!(config.remainder(), remainder, "{text}");
            assert_eq!(config.unreached(), unreached, "{text}");
            assert_eq!(config.warnings().len(), unreached.len());
        }
    }

    #[test]
    fn a_way_to_restart_that_no_restart_uses_is_named() {
        let text =
            "[sidecar.a]\ncommand = [\"x\"]\nreload = { signal = \"HUP\" }\n[restart]\nmode = ";
        for (mode, warnings) in [("auto", 0), ("in-process", 0), ("respawn", 1), ("exit", 1)] {
            let config = parse(&format!("{text}\"{mode}\"\n"), None).unwrap();
            assert_eq!(config.warnings().len(), warnings, "{mode}");
        }
    }
}

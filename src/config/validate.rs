//! Contradictions that a parser cannot see.

use std::collections::HashSet;
use std::path::Path;

use super::error::ConfigError;

use super::model::{Config, DrainNotice, Ready, RecoverySection, SidecarSpec};
use super::position::{locate, nearest};

/// Refuses a configuration that contradicts itself. `from` is the file and its text, to name the
/// place.
pub(super) fn check(config: &Config, from: Option<(&Path, &str)>) -> Result<(), ConfigError> {
    let refuse = |keys: &[&str], message: String| {
        let place = from.and_then(|(_, text)| locate(text, keys));
        ConfigError::invalid(from.map(|(path, _)| path), place, message)
    };
    if config.gateway.listen.is_empty() {
        return Err(refuse(
            &["gateway", "listen"],
            "`listen` is empty: the front door needs an address".into(),
        ));
    }
    let mut seen = HashSet::new();
    for (index, listen) in config.gateway.listen.iter().enumerate() {
        if !seen.insert(listen) {
            return Err(refuse(
                &["gateway", "listen", &index.to_string()],
                format!("`{listen}` is listed twice"),
            ));
        }
    }
    for text in &config.gateway.trusted_proxies {
        if text != "unix" && parse_net(text).is_none() {
            let message =
                format!("`{text}` is neither an address, a network like 10.0.0.0/8, nor \"unix\"");
            return Err(refuse(&["gateway", "trusted_proxies"], message));
        }
    }
    check_recovery(&config.recovery)
        .map_err(|(key, message)| refuse(&["recovery", key], message))?;
    let mut ports = HashSet::new();
    for (name, spec) in &config.sidecar {
        let at = |key| ["sidecar", name.as_str(), key];
        check_sidecar(name, spec).map_err(|(key, message)| refuse(&at(key), message))?;
        if let Some(port) = spec.port {
            if !ports.insert(port) {
                return Err(refuse(
                    &at("port"),
                    format!("two sidecars have port {port}"),
                ));
            }
            if config
                .gateway
                .listen
                .iter()
                .any(|listen| listen.port() == Some(port))
            {
                let message = format!(
                    "port {port} is the front door's own: give the sidecar another one, or none for a private one"
                );
                return Err(refuse(&at("port"), message));
            }
        }
    }
    let mut taken = HashSet::new();
    for (index, route) in config.route.iter().enumerate() {
        let index = index.to_string();
        let at = |key| ["route", index.as_str(), key];
        if !route.path.starts_with('/') {
            return Err(refuse(
                &at("path"),
                format!("path `{}` must begin with `/`", route.path),
            ));
        }
        if !taken.insert((
            route.host.as_deref().unwrap_or("").to_ascii_lowercase(),
            route.path.trim_end_matches('/'),
        )) {
            return Err(refuse(
                &at("path"),
                format!("two routes have path `{}` and the same host", route.path),
            ));
        }
        if route.to.contains("://") {
            parse_upstream(&route.to).map_err(|message| refuse(&at("to"), message))?;
        } else if !config.sidecar.contains_key(&route.to) {
            let message = format!("there is no sidecar `{}`", route.to);
            let error = refuse(&at("to"), message);
            return Err(
                match nearest(&route.to, config.sidecar.keys().map(String::as_str)) {
                    Some(near) => error.with_help(format!("did you mean `{near}`?")),
                    None => error,
                },
            );
        }
    }
    Ok(())
}

fn check_recovery(recovery: &RecoverySection) -> Result<(), (&'static str, String)> {
    let throttle = &recovery.throttle;
    if throttle.base.0.is_zero() {
        return Err((
            "throttle",
            "a first wait (`base`) of 0 s is none: `window = \"0s\"` turns the throttle off".into(),
        ));
    }
    if throttle.max < throttle.base {
        let message = format!(
            "the longest wait (`max = \"{}\"`) is shorter than the first (`base = \"{}\"`)",
            throttle.max, throttle.base
        );
        return Err(("throttle", message));
    }
    if recovery.on_give_up.first().is_some_and(String::is_empty) {
        return Err((
            "on_give_up",
            "`on_give_up` begins with an empty text: leave it out, or name a program".into(),
        ));
    }
    Ok(())
}

fn check_sidecar(name: &str, spec: &SidecarSpec) -> Result<(), (&'static str, String)> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err((
            "command",
            format!("`{name}` is not a sidecar name: letters, digits, `-`, `_` and `.`"),
        ));
    }
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(("command", format!("sidecar `{name}` has no command")));
    }
    if spec.port == Some(0) {
        return Err((
            "port",
            "port 0 is no fixed port: leave `port` out for a private one".into(),
        ));
    }
    if spec.port.is_some() && spec.overlap == Some(true) {
        return Err((
            "overlap",
            format!(
                "sidecar `{name}` has a fixed port, so two copies cannot run side by side: leave `port` out and use {{port}}, or drop `overlap`"
            ),
        ));
    }
    if let Ready::Http(path) = &spec.ready
        && !path.starts_with('/')
    {
        return Err(("ready", format!("ready path `{path}` must begin with `/`")));
    }
    if let Some(DrainNotice::Path(path)) = &spec.drain
        && (!path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return Err((
            "drain",
            format!(
                "drain path `{}` must begin with `/` and have no blanks",
                crate::text::escape::escape(path)
            ),
        ));
    }
    if spec.start_timeout.0.is_zero() {
        return Err((
            "start_timeout",
            "a start timeout of 0 s lets nothing start".into(),
        ));
    }
    Ok(())
}

/// The host and port of a plain upstream URL.
pub(crate) fn parse_upstream(url: &str) -> Result<(String, u16), String> {
    let shown = crate::text::redact::Redactor::default().text(url);
    let uri: http::Uri = url.parse().map_err(|_| format!("`{shown}` is not a URL"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("`{shown}`: only http:// upstreams are spoken to"));
    };
    if !matches!(uri.path(), "" | "/") {
        return Err(format!(
            "`{shown}`: an upstream is http://HOST:PORT, without a path"
        ));
    }
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => 80,
        Some(port) => port
            .strip_prefix(':')
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| format!("`{shown}`: its port is no port"))?,
        // It would be shown wherever the upstream is named, and is never sent.
        None => {
            return Err(format!(
                "`{shown}`: an upstream has no user name and no password"
            ));
        }
    };
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// An address with a prefix length, as in `10.0.0.0/8`; a lone address is the network of itself.
pub(crate) fn parse_net(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (addr, prefix) = match text.split_once('/') {
        Some((addr, prefix)) => (addr, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let addr: std::net::IpAddr = addr.parse().ok()?;
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest);
    (prefix <= longest).then_some((addr, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn upstreams_are_a_host_and_a_port() {
        for (url, expected) in [
            ("http://127.0.0.1:3000", Ok(("127.0.0.1", 3000))),
            ("http://[::1]:3000/", Ok(("::1", 3000))),
            ("http://app", Ok(("app", 80))),
            ("http://app:99999", Err("no port")),
            ("http://app:x", Err("no port")),
            ("http://app/x", Err("without a path")),
            ("https://app", Err("only http://")),
            ("http://me:canary@app:1", Err("no user name")),
        ] {
            match (parse_upstream(url), expected) {
                (Ok((host, port)), Ok(expected)) => assert_eq!((host.as_str(), port), expected),
                (Err(why), Err(expected)) => {
                    assert!(why.contains(expected) && !why.contains("canary"), "{why}")
                }
                (got, _) => panic!("{url}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_text_of_the_wrong_type_is_not_repeated() {
        let why = parse(
            "[sidecar.main]\ncommand = \"x --token canary, \\\", expected\"\n",
            None,
        )
        .unwrap_err()
        .to_string();
        assert!(
            why.contains("`command` must be a list: [\"node\", \"server.js\"]")
                && !why.contains("canary"),
            "{why}"
        );
    }

    #[test]
    fn a_signal_that_means_the_end_is_no_notice() {
        let with = |signal: &str| {
            parse(
                &format!("[sidecar.a]\ncommand = [\"x\"]\ndrain = {{ signal = \"{signal}\" }}\n"),
                None,
            )
        };
        assert_eq!(
            with("USR1").unwrap().sidecar["a"].drain,
            Some(DrainNotice::Signal(crate::config::NoticeSignal::Usr1))
        );
        let why = with("KILL").unwrap_err().to_string();
        assert!(why.contains("KILL") && why.contains("USR1"), "{why}");
    }

    fn refusal(text: &str) -> String {
        let config = parse(text, None).unwrap();
        check(&config, Some((Path::new("g.toml"), text)))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        for (text, expected) in [
            ("[gateway]\nlisten = []\n", "g.toml:2:1: `listen` is empty"),
            (
                "[sidecar.a]\ncommand = []\n",
                "g.toml:2:1: sidecar `a` has no command",
            ),
            (
                "[sidecar.a]\ncommand = [\"x\"]\nport = 5\noverlap = true\n",
                "g.toml:4:1: sidecar `a` has a fixed port",
            ),
            (
                "[sidecar.a]\ncommand = [\"x\"]\nport = 18789\n",
                "g.toml:3:1: port 18789 is the front door's own",
            ),
            (
                "[sidecar.a]\ncommand = [\"x\"]\ndrain = { path = \"x\" }\n",
                "g.toml:3:1: drain path `x` must begin",
            ),
            (
                "[sidecar.a]\ncommand = [\"x\"]\ndrain = { path = \"/x y\" }\n",
                "g.toml:3:1: drain path `/x y` must begin",
            ),
            (
                "[sidecar.web]\ncommand = [\"x\"]\n[[route]]\nto = \"wbe\"\n",
                "g.toml:4:1: there is no sidecar `wbe` (did you mean `web`?)",
            ),
            (
                "[recovery]\nthrottle = { base = \"9s\", max = \"5s\" }\n",
                "g.toml:2:1: the longest wait (`max = \"5s\"`) is shorter",
            ),
            (
                "[recovery.throttle]\nbase = \"0s\"\n",
                "g.toml:1:11: a first wait (`base`) of 0 s",
            ),
            (
                "[recovery]\non_give_up = [\"\"]\n",
                "g.toml:2:1: `on_give_up` begins with an empty text",
            ),
            (
                "[[route]]\nto = \"https://x\"\n",
                "g.toml:2:1: `https://x`: only http://",
            ),
            (
                "[[route]]\npath = \"x\"\nto = \"http://x\"\n",
                "g.toml:2:1: path `x` must begin",
            ),
        ] {
            assert!(
                refusal(text).starts_with(expected),
                "{text}: {}",
                refusal(text)
            );
        }
    }

    #[test]
    fn networks() {
        assert_eq!(
            parse_net("10.0.0.0/8"),
            Some(("10.0.0.0".parse().unwrap(), 8))
        );
        assert_eq!(parse_net("::1"), Some(("::1".parse().unwrap(), 128)));
        assert_eq!(parse_net("10.0.0.0/33"), None);
        assert_eq!(parse_net("x"), None);
    }
}

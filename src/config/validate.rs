//! Contradictions that a parser cannot see.

use std::collections::HashSet;
use std::path::Path;

use super::error::ConfigError;
use super::model::{Config, GatewaySection, RecoverySection, RestartSection, RouteSpec};
use super::normal_form;
use super::notice::{DrainNotice, Ready};
use super::own_address::{UpstreamUrl, listener_at};
use super::position::{locate, nearest};
use super::reload::{Reload, ReloadMeans};
use super::sidecar::{SidecarSpec, is_sidecar_name};
use super::start_order;

/// Refuses a configuration that contradicts itself. `from` is the file and its text, to name the
/// place.
pub(super) fn check(config: &Config, from: Option<(&Path, &str)>) -> Result<(), ConfigError> {
    let checked = check_gateway(&config.gateway)
        .and_then(|()| check_restart(&config.restart))
        .and_then(|()| check_recovery(&config.recovery))
        .and_then(|()| check_sidecars(config))
        .and_then(|()| check_routes(config));
    checked.map_err(|(keys, message)| {
        let place = from.and_then(|(_, text)| locate(text, &keys));
        ConfigError::invalid(from.map(|(path, _)| path), place, message)
    })
}

/// A contradiction: the way to the key from the outside in, and the message.
type Refusal = (Vec<String>, String);

/// The error at a key.
fn refuse<const N: usize>(at: [&str; N], why: impl Into<String>) -> Result<(), Refusal> {
    Err((at.map(str::to_owned).into(), why.into()))
}

fn check_gateway(gateway: &GatewaySection) -> Result<(), Refusal> {
    if gateway.listen.is_empty() {
        let message = "`listen` is empty: the front door needs an address";
        return refuse(["gateway", "listen"], message);
    }
    let mut seen = HashSet::new();
    for (index, listen) in gateway.listen.iter().enumerate() {
        if !seen.insert(listen) {
            let message = format!("`{listen}` is listed twice");
            return refuse(["gateway", "listen", &index.to_string()], message);
        }
    }
    for (index, listen) in gateway.proxy_protocol.iter().enumerate() {
        let message = if !gateway.listen.contains(listen) {
            format!("`{listen}` is none of the addresses in `listen`")
        } else if gateway.listen.first() == Some(listen) {
            format!(
                "`{listen}` is the first address in `listen`, at which gatewayctl and health checks ask: put another one before it, such as \"127.0.0.1:{}\"",
                crate::config::DEFAULT_PORT
            )
        } else {
            continue;
        };
        return refuse(["gateway", "proxy_protocol", &index.to_string()], message);
    }
    for text in &gateway.trusted_proxies {
        if text != "unix" && parse_net(text).is_none() {
            let message =
                format!("`{text}` is neither an address, a network like 10.0.0.0/8, nor \"unix\"");
            return refuse(["gateway", "trusted_proxies"], message);
        }
    }
    Ok(())
}

fn check_restart(restart: &RestartSection) -> Result<(), Refusal> {
    let copies = restart.max_copies;
    if copies < 2 {
        let message = format!(
            "max_copies = {copies} leaves no room for a new copy beside the one that serves: at least 2, or `overlap = false` in [sidecar.NAME] (--exclusive) where two must never run at once"
        );
        return refuse(["restart", "max_copies"], message);
    }
    Ok(())
}

fn check_recovery(recovery: &RecoverySection) -> Result<(), Refusal> {
    let throttle = &recovery.throttle;
    if throttle.base.0.is_zero() {
        let message =
            "a first wait (`base`) of 0 s is none: `window = \"0s\"` turns the throttle off";
        return refuse(["recovery", "throttle"], message);
    }
    if throttle.max < throttle.base {
        let message = format!(
            "the longest wait (`max = \"{}\"`) is shorter than the first (`base = \"{}\"`)",
            throttle.max, throttle.base
        );
        return refuse(["recovery", "throttle"], message);
    }
    if recovery.on_give_up.first().is_some_and(String::is_empty) {
        let message = "`on_give_up` begins with an empty text: leave it out, or name a program";
        return refuse(["recovery", "on_give_up"], message);
    }
    Ok(())
}

fn check_sidecars(config: &Config) -> Result<(), Refusal> {
    let mut ports = HashSet::new();
    for (name, spec) in &config.sidecar {
        check_sidecar(name, spec)?;
        let why = start_order::contradiction(&config.sidecar, name);
        why.map_or(Ok(()), |why| refuse(["sidecar", name, "after"], why))?;
        let Some(port) = spec.port else { continue };
        let at = ["sidecar", name, "port"];
        if !ports.insert(port) {
            return refuse(at, format!("two sidecars have port {port}"));
        }
        let mut listeners = config.gateway.listen.iter();
        if listeners.any(|listen| listen.port() == Some(port)) {
            let message = format!(
                "port {port} is the front door's own: give the sidecar another one, or none for a private one"
            );
            return refuse(at, message);
        }
    }
    Ok(())
}

fn check_routes(config: &Config) -> Result<(), Refusal> {
    let mut taken = HashSet::new();
    for (index, route) in config.route.iter().enumerate() {
        let index = index.to_string();
        let at = |key| ["route", index.as_str(), key];
        let RouteSpec { path, host, to } = route;
        if !path.starts_with('/') {
            return refuse(at("path"), format!("path `{path}` must begin with `/`"));
        }
        if path.contains(['?', '#']) {
            let message = format!("path `{path}` has a `?` or `#`: no request's path has one");
            return refuse(at("path"), message);
        }
        if let Some(host) = host
            && let Err(message) = check_route_host(host)
        {
            return refuse(at("host"), message);
        }
        let host = normal_form::host(host.as_deref().unwrap_or("")).into_owned();
        let normal = normal_form::path(path).trim_end_matches('/').to_owned();
        if !taken.insert((host, normal)) {
            let message = format!("two routes have path `{path}` and the same host");
            return refuse(at("path"), message);
        }
        if to.contains("://") || to.starts_with("unix:") {
            let upstream = match parse_upstream(to) {
                Ok(upstream) => upstream,
                Err(message) => return refuse(at("to"), message),
            };
            if let Some(own) = listener_at(&config.gateway.listen, &upstream) {
                let message = format!(
                    "`{to}` leads to this gateway itself, which listens on {own}: name the address of the server behind"
                );
                return refuse(at("to"), message);
            }
        } else if !config.sidecar.contains_key(to) {
            let meant = nearest(to, config.sidecar.keys().map(String::as_str))
                .map(|near| format!(" (did you mean `{near}`?)"))
                .unwrap_or_default();
            return refuse(at("to"), format!("there is no sidecar `{to}`{meant}"));
        }
    }
    Ok(())
}

fn check_route_host(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if !name.is_ascii() {
        return Err(format!(
            "host `{host}`: requests name it in ASCII, as in xn--mller-kva.example"
        ));
    }
    if name.contains('*') || !normal_form::is_host(name) {
        let host = crate::text::escape::escape(host);
        return Err(format!(
            "`{host}` is not a host: write \"example.org\" or \"*.example.org\""
        ));
    }
    if http::uri::Authority::try_from(name).is_ok_and(|name| name.port().is_some()) {
        return Err(format!(
            "host `{host}` has a port: every port of the front door has the same routes"
        ));
    }
    Ok(())
}

fn check_sidecar(name: &str, spec: &SidecarSpec) -> Result<(), Refusal> {
    let at = |key| ["sidecar", name, key];
    if !is_sidecar_name(name) {
        let message = format!("`{name}` is not a sidecar name: letters, digits, `-`, `_` and `.`");
        return refuse(at("command"), message);
    }
    if spec.command.first().is_none_or(String::is_empty) {
        return refuse(at("command"), format!("sidecar `{name}` has no command"));
    }
    if spec.port == Some(0) {
        let message = "port 0 is no fixed port: leave `port` out for a private one";
        return refuse(at("port"), message);
    }
    if spec.port.is_some() && spec.overlap == Some(true) {
        let message = format!(
            "sidecar `{name}` has a fixed port, so two copies cannot run side by side: leave `port` out and use {{port}}, or drop `overlap`"
        );
        return refuse(at("overlap"), message);
    }
    if spec.sticky.is_some() && !spec.overlaps() {
        let message = format!(
            "`sticky` leads sessions to the older of two copies side by side, and sidecar `{name}` has one at a time: leave `sticky` out, or `port` and `overlap`"
        );
        return refuse(at("sticky"), message);
    }
    if let Ready::Http(path) = &spec.ready
        && !path.starts_with('/')
    {
        let message = format!("ready path `{path}` must begin with `/`");
        return refuse(at("ready"), message);
    }
    if let Some(DrainNotice::Path(path)) = &spec.drain
        && !is_request_path(path)
    {
        let path = crate::text::escape::escape(path);
        let message = format!("drain path `{path}` must begin with `/` and have no blanks");
        return refuse(at("drain"), message);
    }
    if let Some(reload) = &spec.reload
        && let Err(message) = check_reload(reload)
    {
        return refuse(at("reload"), message);
    }
    if spec.start_timeout.0.is_zero() {
        let message = "a start timeout of 0 s lets nothing start";
        return refuse(at("start_timeout"), message);
    }
    Ok(())
}

fn is_request_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn check_reload(reload: &Reload) -> Result<(), String> {
    let blank = |path: &str| {
        let path = crate::text::escape::escape(path);
        format!("reload path `{path}` must begin with `/` and have no blanks")
    };
    match (&reload.means, &reload.ready) {
        (ReloadMeans::Path(path), _) | (_, Some(Ready::Http(path))) if !is_request_path(path) => {
            Err(blank(path))
        }
        (ReloadMeans::Command(command), _) if command.first().is_none_or(String::is_empty) => {
            Err("the `command` of `reload` begins with an empty text: name a program".to_owned())
        }
        _ => Ok(()),
    }
}

/// The address of a plain upstream.
pub(crate) fn parse_upstream(url: &str) -> Result<UpstreamUrl, String> {
    let shown = crate::text::redact::Redactor::default().text(url);
    if let Some(path) = url.strip_prefix("unix:") {
        let fits = path.starts_with('/') && !path.contains('\0') && !path.ends_with('/');
        return match fits {
            true => Ok(UpstreamUrl::Unix(path.into())),
            false => Err(format!(
                "`{}`: a unix upstream needs an absolute path, as in \"unix:/run/app.sock\"",
                crate::text::escape::escape(&shown)
            )),
        };
    }
    let uri: http::Uri = url.parse().map_err(|_| format!("`{shown}` is not a URL"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!(
            "`{shown}`: only http:// and unix: upstreams are spoken to"
        ));
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
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(UpstreamUrl::Tcp { host, port })
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
            ("unix:/run/app.sock", Ok(("/run/app.sock", 0))),
            ("unix:app.sock", Err("an absolute path")),
            ("unix:/run/", Err("an absolute path")),
            ("http://unix:/run/app.sock", Err("without a path")),
            ("http://me:canary@app:1", Err("no user name")),
        ] {
            match (parse_upstream(url), expected) {
                (Ok(UpstreamUrl::Tcp { host, port }), Ok(expected)) => {
                    assert_eq!((host.as_str(), port), expected);
                }
                (Ok(UpstreamUrl::Unix(path)), Ok((expected, 0))) => {
                    assert_eq!(path, Path::new(expected));
                }
                (Err(why), Err(expected)) => {
                    assert!(why.contains(expected) && !why.contains("canary"), "{why}")
                }
                (got, _) => panic!("{url}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_text_of_the_wrong_type_is_not_repeated() {
        let text = "[sidecar.main]\ncommand = \"x --token canary, \\\", expected\"\n";
        let why = parse(text, None).unwrap_err().to_string();
        let expected = "`command` must be a list: [\"node\", \"server.js\"]";
        assert!(why.contains(expected) && !why.contains("canary"), "{why}");
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
                "[gateway]\nlisten = [\"1\", \"2\"]\nproxy_protocol = [\"2\", \"3\"]\n",
                "g.toml:3:24: `127.0.0.1:3` is none of the addresses in `listen`",
            ),
            (
                "[gateway]\nproxy_protocol = [\"18789\"]\n",
                "g.toml:2:19: `127.0.0.1:18789` is the first address",
            ),
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
                "[sidecar.a]\ncommand = [\"x\"]\nsticky = { cookie = \"io\" }\noverlap = false\n",
                "g.toml:3:1: `sticky` leads sessions to the older of two copies",
            ),
            (
                "[sidecar.a]\ncommand = [\"x\"]\nport = 5\nsticky = { query = \"sid\" }\n",
                "g.toml:4:1: `sticky` leads sessions to the older of two copies",
            ),
            (
                "[sidecar.web]\ncommand = [\"x\"]\n[[route]]\nto = \"wbe\"\n",
                "g.toml:4:1: there is no sidecar `wbe` (did you mean `web`?)",
            ),
            (
                "[restart]\nmax_copies = 1\n",
                "g.toml:2:1: max_copies = 1 leaves no room",
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
                "[gateway]\nlisten = [\"unix:/run/a\"]\n[[route]]\nto = \"unix:/run/a\"\n",
                "g.toml:4:1: `unix:/run/a` leads to this gateway itself",
            ),
            (
                "[[route]]\npath = \"x\"\nto = \"http://x\"\n",
                "g.toml:2:1: path `x` must begin",
            ),
            (
                "[[route]]\npath = \"/a?b\"\nto = \"http://x\"\n",
                "g.toml:2:1: path `/a?b` has a `?` or `#`",
            ),
            (
                "[[route]]\nto = \"http://localhost:18789\"\n",
                "g.toml:2:1: `http://localhost:18789` leads to this gateway itself",
            ),
            (
                "[[route]]\nto = \"http://x\"\nhost = \"a..b\"\n",
                "g.toml:3:1: `a..b` is not a host",
            ),
            (
                "[[route]]\nto = \"http://x\"\nhost = \"a.*\"\n",
                "g.toml:3:1: `a.*` is not a host",
            ),
            (
                "[[route]]\nto = \"http://x\"\nhost = \"a:80\"\n",
                "g.toml:3:1: host `a:80` has a port",
            ),
            (
                "[[route]]\nto = \"http://x\"\nhost = \"*.bär.org\"\n",
                "g.toml:3:1: host `*.bär.org`: requests name it in ASCII",
            ),
            (
                "[[route]]\nto = \"http://x\"\npath = \"/%6aobs\"\n[[route]]\nto = \"http://x\"\npath = \"//jobs/\"\n",
                "g.toml:6:1: two routes have path `//jobs/`",
            ),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(expected), "{text}: {refusal}");
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

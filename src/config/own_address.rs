//! Whether an upstream is the front door itself: such a route would forward every request to itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::normal_form;
use super::types::Listen;

/// Where a server listens that the gateway does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamUrl {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// The listener that an upstream is, as far as this can be told without asking a name server or the
/// network interfaces.
pub(super) fn listener_at<'a>(
    listeners: &'a [Listen],
    upstream: &UpstreamUrl,
) -> Option<&'a Listen> {
    let leads_to = |listen: &&Listen| match (listen, upstream) {
        (Listen::Unix(ours), UpstreamUrl::Unix(path)) => ours == path,
        (Listen::Tcp(address), UpstreamUrl::Tcp { host, port }) if address.port() == *port => {
            let ip = address.ip().to_canonical();
            addresses(host)
                .into_iter()
                .any(|reached| takes(ip, reached))
        }
        _ => false,
    };
    listeners.iter().find(leads_to)
}

/// The addresses that a host certainly means.
fn addresses(host: &str) -> Vec<IpAddr> {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        // A connection to the address of no interface goes to loopback.
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => vec![loopback[0]],
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => vec![loopback[1]],
        Ok(ip) => vec![ip],
        Err(_) => {
            let name = normal_form::host(host);
            // RFC 6761, 6.3
            match &*name == "localhost" || name.ends_with(".localhost") {
                true => loopback.to_vec(),
                false => Vec::new(),
            }
        }
    }
}

/// Whether a listener at `ip` takes a connection to `reached`; an IPv6 listener takes no IPv4.
fn takes(ip: IpAddr, reached: IpAddr) -> bool {
    ip == reached
        || ip.is_unspecified() && ip.is_ipv4() == reached.is_ipv4() && reached.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_is_the_front_door_is_known_in_every_spelling() {
        for (listen, host, port, ours) in [
            ("127.0.0.1:80", "127.0.0.1", 80, true),
            ("127.0.0.1:80", "127.0.0.1", 81, false),
            ("127.0.0.1:80", "127.0.0.2", 80, false),
            ("127.0.0.1:80", "localhost", 80, true),
            ("127.0.0.1:80", "LocalHost.", 80, true),
            ("127.0.0.1:80", "a.localhost", 80, true),
            ("127.0.0.1:80", "0.0.0.0", 80, true),
            ("127.0.0.1:80", "::ffff:127.0.0.1", 80, true),
            ("127.0.0.1:80", "::1", 80, false),
            ("[::1]:80", "::1", 80, true),
            ("[::1]:80", "0:0:0:0:0:0:0:1", 80, true),
            ("[::1]:80", "::", 80, true),
            ("[::1]:80", "localhost", 80, true),
            (":80", "127.0.0.1", 80, true),
            (":80", "127.9.9.9", 80, true),
            (":80", "localhost", 80, true),
            (":80", "::1", 80, false),
            (":80", "10.0.0.1", 80, false),
            ("[::]:80", "::1", 80, true),
            ("[::]:80", "127.0.0.1", 80, false),
            ("10.0.0.1:80", "10.0.0.1", 80, true),
            ("10.0.0.1:80", "app", 80, false),
            ("unix:/run/a.sock", "localhost", 80, false),
        ] {
            let listeners = [listen.parse().unwrap()];
            let host = host.to_owned();
            let upstream = UpstreamUrl::Tcp { host, port };
            let found = listener_at(&listeners, &upstream).is_some();
            assert_eq!(found, ours, "{listen} {upstream:?}");
        }
        let listeners = ["unix:/run/a.sock".parse().unwrap()];
        for (path, ours) in [("/run//./a.sock", true), ("/run/b.sock", false)] {
            let upstream = UpstreamUrl::Unix(path.into());
            assert_eq!(listener_at(&listeners, &upstream).is_some(), ours, "{path}");
        }
    }
}

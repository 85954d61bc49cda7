//! The addresses of the front door, and who else wants them.

use super::super::facts::{Facts, Port, Stranger};
use super::super::finding::{Check, Level, Seen, advice, command};
use crate::config::Listen;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "port-taken",
        level: Level::Error,
        what: "another program holds an address",
        why: "The gateway cannot listen there, or shares the address with a stranger who takes a part of its clients.",
        cure: "Stop the other program, or give one of the two another address. It is never killed.",
        mends: false,
        judge: taken,
    },
    Check {
        code: "port-stale",
        level: Level::Error,
        what: "another gateway process holds an address",
        why: "A gateway that an earlier life left behind, or that was started by hand, keeps the service from its own port.",
        cure: "gatewayctl clean ends it when it is proven stale, and says why not when it is not.",
        mends: false,
        judge: stale,
    },
    Check {
        code: "port-shared",
        level: Level::Error,
        what: "two gateways are installed for one address",
        why: "Whichever starts first gets the address, and the other never serves.",
        cure: "Give one of them another address.",
        mends: false,
        judge: shared,
    },
    Check {
        code: "port-ephemeral",
        level: Level::Warning,
        what: "a port lies where the kernel takes ports for outgoing connections",
        why: "While the gateway is down, any outgoing connection of the machine may get its port; then it cannot listen, now and then \
              and for no visible reason.",
        cure: "Take a port below the range, or reserve it: net.ipv4.ip_local_reserved_ports.",
        mends: false,
        judge: ephemeral,
    },
    Check {
        code: "listen-everywhere",
        level: Level::Note,
        what: "it listens on every address of the machine",
        why: "Everybody who reaches the machine reaches the server. Traffic that passes through is not guarded by the gateway.",
        cure: "127.0.0.1 if only this machine is meant; else a firewall and the server's own access control.",
        mends: false,
        judge: everywhere,
    },
];

fn who(stranger: &Stranger) -> String {
    let name = if stranger.name.is_empty() {
        "a process that is hidden from you"
    } else {
        &stranger.name
    };
    let pid = if stranger.pid == 0 {
        String::new()
    } else {
        format!("pid {}, ", stranger.pid)
    };
    let unit = stranger
        .unit
        .as_ref()
        .map_or(String::new(), |unit| format!(", {unit}"));
    format!("{name} ({pid}uid {}{unit})", stranger.uid)
}

fn held(facts: &Facts, by_gateway: bool) -> Option<(&Port, &Stranger)> {
    facts.ports.iter().find_map(|port| {
        port.strangers
            .iter()
            .find(|stranger| stranger.is_gateway == by_gateway)
            .map(|stranger| (port, stranger))
    })
}

fn taken(facts: &Facts) -> Option<Seen> {
    let (port, stranger) = held(facts, false)?;
    let next = match (&stranger.unit, stranger.pid) {
        (Some(unit), _) => format!("sudo systemctl stop {unit}   (if it is not needed)"),
        (None, 0) => format!("sudo gatewayctl doctor{}", facts.flags),
        (None, pid) => {
            format!("ps -fp {pid}   (then end it, or give the gateway another --listen)")
        }
    };
    Seen::at(
        &port.listen,
        format!("{} listens there", who(stranger)),
        command(next),
    )
}

fn stale(facts: &Facts) -> Option<Seen> {
    let (port, stranger) = held(facts, true)?;
    Seen::at(
        &port.listen,
        format!("{} listens there", who(stranger)),
        command(format!("gatewayctl clean{}", facts.flags)),
    )
}

/// Whether two addresses cannot be had by two processes at once.
fn clash(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            let whole = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port()
                && a.port() != 0
                && (a.ip() == b.ip()
                    || (whole && (a.is_ipv4() == b.is_ipv4() || a.is_ipv6() || b.is_ipv6())))
        }
        (Listen::Unix(a), Listen::Unix(b)) => a == b,
        _ => false,
    }
}

fn shared(facts: &Facts) -> Option<Seen> {
    let others = facts
        .neighbours
        .iter()
        .filter(|other| other.instance != facts.instance);
    let mut pairs = others.flat_map(|other| other.listen.iter().map(move |listen| (other, listen)));
    let (port, other, listen) = pairs.find_map(|(other, listen)| {
        facts
            .ports
            .iter()
            .find(|port| clash(&port.listen, listen))
            .map(|port| (port, other, listen))
    })?;
    let next = command(format!(
        "gatewayctl install --instance {} --listen ADDRESS",
        other.instance
    ));
    Seen::at(
        &port.listen,
        format!(
            "{} ({}) is installed for {listen}",
            other.instance,
            other.path.display()
        ),
        next,
    )
}

fn ephemeral(facts: &Facts) -> Option<Seen> {
    let (low, high) = facts.machine.ephemeral?;
    let inside = facts.ports.iter().find_map(|port| {
        port.listen
            .port()
            .filter(|number| (low..=high).contains(number))
            .map(|number| (port, number))
    });
    let (port, number) =
        inside.filter(|(_, number)| !reserved(&facts.machine.reserved, *number))?;
    let next = command(format!(
        "sudo sysctl -w net.ipv4.ip_local_reserved_ports={number}   (and in /etc/sysctl.d, or --listen another port)"
    ));
    Seen::at(
        &port.listen,
        format!("the kernel gives ports from {low} to {high} to outgoing connections"),
        next,
    )
}

/// Whether a port is in a list like `8080,9000-9010`.
fn reserved(list: &str, port: u16) -> bool {
    list.split(',')
        .filter_map(|item| {
            let (low, high) = item
                .trim()
                .split_once('-')
                .unwrap_or((item.trim(), item.trim()));
            Some(low.parse::<u16>().ok()?..=high.parse::<u16>().ok()?)
        })
        .any(|range| range.contains(&port))
}

fn everywhere(facts: &Facts) -> Option<Seen> {
    let open =
        |listen: &Listen| matches!(listen, Listen::Tcp(address) if address.ip().is_unspecified());
    let port = facts.ports.iter().find(|port| open(&port.listen))?;
    Seen::at(
        &port.listen,
        "everybody who reaches the machine reaches it",
        advice("--listen 127.0.0.1:PORT if only this machine is meant"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_shared() {
        let clash = |a: &str, b: &str| clash(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(
            clash("127.0.0.1:1", "127.0.0.1:1")
                && clash("0.0.0.0:1", "127.0.0.1:1")
                && clash("[::]:1", "127.0.0.1:1")
        );
        assert!(
            !clash("127.0.0.1:1", "127.0.0.2:1")
                && !clash("127.0.0.1:1", "127.0.0.1:2")
                && !clash("0.0.0.0:1", "unix:/x")
        );
        assert!(clash("unix:/x", "unix:/x"));
    }

    #[test]
    fn reserved_ports_are_understood() {
        assert!(reserved("8080,9000-9010", 9005) && reserved("8080", 8080));
        assert!(!reserved("", 8080) && !reserved("8080,x-y", 8081));
    }
}

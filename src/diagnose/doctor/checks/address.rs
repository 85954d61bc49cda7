//! The addresses of the front door, and other programs that use them.

use crate::config::Listen;
use crate::diagnose::doctor::facts::{AddressHolder, DoctorFacts, FrontAddress};
use crate::diagnose::doctor::finding::{Check, Level, Problem, advice, command};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "port-taken",
        level: Level::Error,
        title: "another program holds an address",
        why: "The gateway cannot listen there, or shares the address with a program that takes \
               part of its clients.",
        cure: "Stop the other program, or give one of the two another address. gatewayctl never \
               kills it.",
        fixable: false,
        judge: taken,
    },
    Check {
        code: "port-stale",
        level: Level::Error,
        title: "another gateway process holds an address",
        why: "A gateway from an earlier run, or one that was started by hand, keeps the service \
               from its own port.",
        cure: "gatewayctl clean ends the process if it is proven stale, and otherwise says why not.",
        fixable: false,
        judge: stale,
    },
    Check {
        code: "port-shared",
        level: Level::Error,
        title: "two gateways are installed for one address",
        why: "The gateway that starts first gets the address; the other one never serves.",
        cure: "Give one of them another address.",
        fixable: false,
        judge: shared,
    },
    Check {
        code: "port-ephemeral",
        level: Level::Warning,
        title: "a port is in the kernel's range for outgoing connections",
        why: "While the gateway is down, any outgoing connection of the machine may take its port. \
               Then the gateway now and then cannot listen, for no visible reason.",
        cure: "Choose a port below the range, or reserve it in net.ipv4.ip_local_reserved_ports.",
        fixable: false,
        judge: ephemeral,
    },
    Check {
        code: "listen-everywhere",
        level: Level::Note,
        title: "the gateway listens on every address of the machine",
        why: "Every host that reaches the machine reaches the sidecar. The gateway does not filter \
               its traffic.",
        cure: "Listen on 127.0.0.1 if only this machine needs access; otherwise use a firewall and \
               the sidecar's own access control.",
        fixable: false,
        judge: everywhere,
    },
];

fn name(holder: &AddressHolder) -> String {
    let name = if holder.name.is_empty() {
        "a hidden process"
    } else {
        &holder.name
    };
    let pid = if holder.pid == 0 {
        String::new()
    } else {
        format!("pid {}, ", holder.pid)
    };
    let unit = holder
        .unit
        .as_ref()
        .map_or(String::new(), |unit| format!(", {unit}"));
    format!("{name} ({pid}uid {}{unit})", holder.uid)
}

fn held(facts: &DoctorFacts, by_gateway: bool) -> Option<(&FrontAddress, &AddressHolder)> {
    facts.addresses.iter().find_map(|address| {
        address
            .others
            .iter()
            .find(|holder| holder.is_gateway == by_gateway)
            .map(|holder| (address, holder))
    })
}

fn taken(facts: &DoctorFacts) -> Option<Problem> {
    let (port, holder) = held(facts, false)?;
    let next = match (&holder.unit, holder.pid) {
        (Some(unit), _) => format!("sudo systemctl stop {unit}   (if it is not needed)"),
        (None, 0) => format!("sudo gatewayctl doctor{}", facts.flags),
        (None, pid) => {
            format!("ps -fp {pid}   (then end it, or install with another --listen)")
        }
    };
    Problem::at(
        &port.listen,
        format!("{} is listening there", name(holder)),
        command(next),
    )
}

fn stale(facts: &DoctorFacts) -> Option<Problem> {
    let (port, holder) = held(facts, true)?;
    Problem::at(
        &port.listen,
        format!("{} is listening there", name(holder)),
        command(format!("gatewayctl clean{}", facts.flags)),
    )
}

/// Whether two processes cannot listen on these two addresses at once.
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

fn shared(facts: &DoctorFacts) -> Option<Problem> {
    let others = facts
        .other_gateways
        .iter()
        .filter(|other| other.instance != facts.instance);
    let mut pairs = others.flat_map(|other| other.listen.iter().map(move |listen| (other, listen)));
    let (port, other, listen) = pairs.find_map(|(other, listen)| {
        facts
            .addresses
            .iter()
            .find(|port| clash(&port.listen, listen))
            .map(|port| (port, other, listen))
    })?;
    let next = command(format!(
        "gatewayctl install --instance {} --listen ADDRESS",
        other.instance
    ));
    Problem::at(
        &port.listen,
        format!(
            "{} ({}) is installed for {listen}",
            other.instance,
            other.path.display()
        ),
        next,
    )
}

fn ephemeral(facts: &DoctorFacts) -> Option<Problem> {
    let (low, high) = facts.machine.ephemeral_ports?;
    let inside = facts.addresses.iter().find_map(|port| {
        port.listen
            .port()
            .filter(|number| (low..=high).contains(number))
            .map(|number| (port, number))
    });
    let (port, number) =
        inside.filter(|(_, number)| !reserved(&facts.machine.reserved_ports, *number))?;
    let next = command(format!(
        "sudo sysctl -w net.ipv4.ip_local_reserved_ports={number}   (and in /etc/sysctl.d; or choose another port with --listen)"
    ));
    Problem::at(
        &port.listen,
        format!("the kernel uses ports {low} to {high} for outgoing connections"),
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

fn everywhere(facts: &DoctorFacts) -> Option<Problem> {
    let open =
        |listen: &Listen| matches!(listen, Listen::Tcp(address) if address.ip().is_unspecified());
    let port = facts.addresses.iter().find(|port| open(&port.listen))?;
    Problem::at(
        &port.listen,
        "every host that reaches the machine can connect",
        advice("use --listen 127.0.0.1:PORT if only this machine needs access"),
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

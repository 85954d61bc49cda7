//! The addresses of the front door, and other programs that use them.

use crate::config::Listen;
use crate::diagnose::doctor::facts::{AddressHolder, DoctorFacts, FrontAddress};
use crate::diagnose::doctor::finding::{Check, Problem, advice, command, root_command};
use crate::text::shell;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "port-taken",
        title: "another program holds an address",
        why: "The gateway cannot listen there, or shares the address with a program that takes \
               part of its clients.",
        cure: "Stop the other program, or give one of the two another address. gatewayctl never \
               kills it.",
        judge: |facts| {
            let (address, holder) = held(facts, false)?;
            let next = match (&holder.unit, holder.pid) {
                (Some(unit), _) => root_command(
                    facts,
                    &format!(
                        "systemctl stop {}   (if it is not needed)",
                        shell::word(unit)
                    ),
                ),
                (None, 0) => root_command(facts, &format!("gatewayctl doctor{}", facts.flags)),
                (None, pid) => command(format!(
                    "ps -fp {pid}   (then end it, or install with another --listen)"
                )),
            };
            let message = format!("{} is listening there", name(holder));
            Problem::at(&address.listen, message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "port-stale",
        title: "another gateway process holds an address",
        why: "A gateway from an earlier run, or one that was started by hand, keeps the service \
               from its own port.",
        cure: "gatewayctl clean ends the process if it is proven stale, and otherwise says why not.",
        judge: |facts| {
            let (address, holder) = held(facts, true)?;
            let message = format!("{} is listening there", name(holder));
            let next = command(format!("gatewayctl clean{}", facts.flags));
            Problem::at(&address.listen, message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "port-shared",
        title: "two gateways are installed for one address",
        why: "The gateway that starts first gets the address; the other one never serves.",
        cure: "Give one of them another address.",
        judge: |facts| {
            let others = facts
                .other_gateways
                .iter()
                .filter(|other| other.instance != facts.instance);
            let mut pairs =
                others.flat_map(|other| other.listen.iter().map(move |listen| (other, listen)));
            let (ours, other, listen) = pairs.find_map(|(other, listen)| {
                let mut ours = facts.addresses.iter().map(|address| &address.listen);
                Some((ours.find(|ours| clash(ours, listen))?, other, listen))
            })?;
            let (instance, path) = (&other.instance, other.path.display());
            let next = format!("gatewayctl install --instance {instance} --listen ADDRESS");
            let message = format!("{instance} ({path}) is installed for {listen}");
            Problem::at(ours, message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "port-ephemeral",
        title: "a port is in the kernel's range for outgoing connections",
        why: "While the gateway is down, any outgoing connection of the machine may take its port. \
               Then the gateway now and then cannot listen, for no visible reason.",
        cure: "Choose a port below the range, or reserve it in net.ipv4.ip_local_reserved_ports.",
        judge: |facts| {
            let (low, high) = facts.machine.ephemeral_ports?;
            let mut listens = facts.addresses.iter().map(|address| &address.listen);
            let (listen, port) = listens.find_map(|listen| {
                let port = listen.port().filter(|port| (low..=high).contains(port))?;
                Some((listen, port))
            })?;
            if reserved(&facts.machine.reserved_ports, port) {
                return None;
            }
            let message = format!("the kernel uses ports {low} to {high} for outgoing connections");
            let next = root_command(
                facts,
                &format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports={port}   (and in /etc/sysctl.d; or choose another port with --listen)"
                ),
            );
            Problem::at(listen, message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "listen-everywhere",
        title: "the gateway listens on every address of the machine",
        why: "Every host that reaches the machine reaches the sidecar. The gateway does not filter \
               its traffic.",
        cure: "Listen on 127.0.0.1 if only this machine needs access; otherwise use a firewall and \
               the sidecar's own access control.",
        judge: |facts| {
            let mut listens = facts.addresses.iter().map(|address| &address.listen);
            let listen = listens.find(
                |listen| matches!(listen, Listen::Tcp(address) if address.ip().is_unspecified()),
            )?;
            Problem::at(
                listen,
                "every host that reaches the machine can connect",
                advice("use --listen 127.0.0.1:PORT if only this machine needs access"),
            )
        },
        ..Check::NOTE
    },
];

fn name(holder: &AddressHolder) -> String {
    let name = match holder.name.as_str() {
        "" => "a hidden process",
        name => name,
    };
    let pid = match holder.pid {
        0 => String::new(),
        pid => format!("pid {pid}, "),
    };
    let unit = holder.unit.iter().map(|unit| format!(", {unit}"));
    format!(
        "{name} ({pid}uid {}{})",
        holder.uid,
        unit.collect::<String>()
    )
}

fn held(facts: &DoctorFacts, by_gateway: bool) -> Option<(&FrontAddress, &AddressHolder)> {
    facts.addresses.iter().find_map(|address| {
        let mut holders = address.others.iter();
        Some((
            address,
            holders.find(|holder| holder.is_gateway == by_gateway)?,
        ))
    })
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

/// Whether a port is in a list like `8080,9000-9010`.
fn reserved(list: &str, port: u16) -> bool {
    list.split(',').map(str::trim).any(|item| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        matches!((low.parse(), high.parse()), (Ok(low), Ok(high)) if (low..=high).contains(&port))
    })
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

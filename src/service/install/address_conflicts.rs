//! Whether an address is taken: by another installed gateway, or by a process that listens there now.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::config::{Env, Listen, check_instance};
use crate::os::port::{self, Holder};
use crate::service::error::ServiceError;
use crate::service::layout::Installed;
use crate::service::neighbours::{Neighbour, neighbours};

/// Compares with every other installed gateway that can be seen; what the operator should know,
/// where nothing stands against it.
///
/// # Errors
/// Kind Refused when another one of this user or of the machine has one of the addresses.
pub(super) fn check_installed(
    env: &Env<'_>,
    subject: &Installed,
    listen: &[Listen],
) -> Result<Vec<String>, ServiceError> {
    let mut notes = Vec::new();
    let mut warned = BTreeSet::new();
    for other in neighbours(env) {
        let Neighbour { unit, home } = &other;
        let is_subject = unit.instance == subject.instance && unit.scope == subject.scope;
        if home.is_none() && (is_subject || !other.is_wanted(env)) {
            continue;
        }
        let whose = match home {
            Some(home) => format!("{} of the user whose home is {}", unit.unit, home.display()),
            None => format!("{} ({} scope)", unit.unit, unit.scope),
        };
        let theirs = other.listeners(env);
        let is_shared = |ours: &&Listen| theirs.iter().any(|theirs| overlap(ours, theirs));
        if let Some(shared) = listen.iter().find(is_shared) {
            let config = other.config_file(env).unwrap_or_default();
            // Whoever may write it can claim every address there is.
            if let Some(home) = home {
                if warned.insert(home.clone()) {
                    notes.push(format!(
                        "{shared} is claimed by {whose}, too, by {}: whichever starts first has it",
                        config.display()
                    ));
                }
                continue;
            }
            let instance = &unit.instance;
            let away = format!(
                "gatewayctl uninstall --{} --instance {instance}",
                unit.scope
            );
            return Err(ServiceError::refused(format!(
                "{shared} belongs to {whose}, by {}: two gateways cannot have one address; nothing was changed",
                config.display()
            ))
            .next(format!("gatewayctl install --listen ADDRESS …   (another address for {})\n{away}", subject.instance)));
        }
        if home.is_none() && unit.instance == subject.instance {
            notes.push(format!(
                "{whose} has the same name: say --user or --system to mean one of them"
            ));
        }
    }
    Ok(notes)
}

/// Whether both cannot be bound at once.
fn overlap(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(one), Listen::Tcp(other)) => covers(one, other) || covers(other, one),
        (Listen::Unix(one), Listen::Unix(other)) => one == other,
        _ => false,
    }
}

/// An unspecified IPv6 address covers IPv4 too, unless the machine says otherwise.
fn covers(one: &SocketAddr, other: &SocketAddr) -> bool {
    let every = one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (every || one.ip() == other.ip())
}

/// Tries each address as the gateway would. What is not "in use" is the gateway's own to report.
///
/// # Errors
/// Kind Refused when somebody listens there: who.
pub(super) fn check_free<'a>(
    listen: impl IntoIterator<Item = &'a Listen>,
) -> Result<(), ServiceError> {
    for one in listen {
        if matches!(one, Listen::Tcp(_)) && port::can_be_had(one).is_ok_and(|free| !free) {
            return Err(taken(one));
        }
    }
    Ok(())
}

fn taken(listen: &Listen) -> ServiceError {
    let port = listen.port().unwrap_or_default();
    let holder = port::holder(listen);
    let who = holder
        .as_ref()
        .map_or_else(|| "another program".to_owned(), Holder::to_string);
    let (who, next) = match holder {
        Some(Holder::Seen(process)) if process.is_gateway() => {
            let (who, scope) = match process.unit() {
                None => (format!("a gateway that was started by hand, {who}"), ""),
                Some((_, true)) => (who, " --user"),
                Some((_, false)) => (who, " --system"),
            };
            let name = named(&process.arguments).unwrap_or("NAME");
            let own = process.uid == nix::unistd::geteuid().as_raw();
            let by = match scope {
                " --user" if !own => format!("as uid {}; ", process.uid),
                _ => String::new(),
            };
            let stop = format!(
                "gatewayctl{scope} stop --instance {name}   ({by}ends it, and what it has begun is finished)"
            );
            (
                who,
                format!(
                    "{stop}\ngatewayctl clean --dry-run --port {port}   (whether it is a stale one)"
                ),
            )
        }
        Some(Holder::Seen(process)) if process.is_systemd() => (
            format!("a socket unit, {who}"),
            "systemctl list-sockets   (which it is)".to_owned(),
        ),
        Some(Holder::Seen(process)) if process.is_launchd() => (
            format!("a job, {who}"),
            "launchctl print gui/UID   (which jobs there are)".to_owned(),
        ),
        Some(Holder::Seen(process)) => (who, format!("{}   (ends it)", process.stop_command())),
        _ => (
            who,
            format!("sudo ss -ltnp 'sport = :{port}'   (who it is)"),
        ),
    };
    ServiceError::refused(format!("{listen} is taken by {who}; nothing was changed")).next(format!(
        "{next}\ngatewayctl install --listen ADDRESS …   (another address)"
    ))
}

/// The instance that a gateway's command line names.
fn named(arguments: &[String]) -> Option<&str> {
    let at = arguments.iter().position(|word| word == "--instance")?;
    let name = arguments.get(at + 1).map(String::as_str);
    // Another user's process may have any arguments.
    name.filter(|name| check_instance(name).is_ok())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_taken_address_is_refused_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = [Listen::Tcp(taken.local_addr().unwrap())];
        let error = check_free(&listen).unwrap_err();
        assert_eq!(error.kind, crate::service::error::ServiceErrorKind::Refused);
        assert!(
            error
                .message
                .contains(&format!("(pid {}, uid ", std::process::id())),
            "{error}"
        );
        drop(taken);
        check_free(&listen).unwrap();
    }

    #[test]
    fn addresses_overlap_when_both_cannot_be_bound() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("127.0.0.2:80", "[::]:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/run/a", "unix:/run/a", true),
            ("unix:/run/a", "127.0.0.1:80", false),
        ] {
            assert_eq!(
                overlap(&one.parse().unwrap(), &other.parse().unwrap()),
                expected,
                "{one} {other}"
            );
        }
    }
}

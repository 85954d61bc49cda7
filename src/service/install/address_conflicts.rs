//! Whether an address is taken: by another installed gateway, or by a process that listens there now.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Config, Env, Listen};
use crate::os::port::{self, Depth, Holder};
use crate::service::error::ServiceError;
use crate::service::layout::{Installed, Layout, installed, user_homes};
use crate::service::start_stop::configuration;
use crate::state::paths::Scope;

/// Compares with every other installed gateway that can be seen; what the operator should know,
/// where nothing stands against it.
///
/// # Errors
/// Kind Refused when another one has one of the addresses.
pub(super) fn check_installed(
    env: &Env<'_>,
    subject: &Installed,
    listen: &[Listen],
) -> Result<Vec<String>, ServiceError> {
    let mut notes = Vec::new();
    for (home, other) in others(env, subject) {
        let here = |name: &str| match (&home, name) {
            (Some(home), "HOME") => Some(home.clone().into_os_string()),
            (Some(_), _) => None,
            (None, name) => (env.0)(name),
        };
        let theirs = listeners(&Env(&here), &other);
        let whose = match &home {
            Some(home) => format!(
                "{} of the user whose home is {}",
                other.unit,
                home.display()
            ),
            None => format!("{} ({} scope)", other.unit, other.scope),
        };
        if let Some(shared) = listen
            .iter()
            .find(|ours| theirs.iter().any(|theirs| overlap(ours, theirs)))
        {
            let config = Layout::of(other.scope, &Env(&here))?.config_file(&other.instance);
            let away = match &home {
                Some(_) => format!(
                    "gatewayctl uninstall --user --instance {}   (as that user)",
                    other.instance
                ),
                None => format!(
                    "gatewayctl uninstall --{} --instance {}",
                    other.scope, other.instance
                ),
            };
            return Err(ServiceError::refused(format!(
                "{shared} belongs to {whose}, by {}: two gateways cannot have one address; nothing was changed",
                config.display()
            ))
            .next(format!("gatewayctl install --listen ADDRESS …   (another address for {})\n{away}", subject.instance)));
        }
        if home.is_none() && other.instance == subject.instance {
            notes.push(format!(
                "{whose} has the same name: say --user or --system to mean one of them"
            ));
        }
    }
    Ok(notes)
}

/// The other installed gateways, each with the home of its user where that is neither the caller
/// nor the machine.
fn others(env: &Env<'_>, subject: &Installed) -> Vec<(Option<PathBuf>, Installed)> {
    let mut found: Vec<(Option<PathBuf>, Installed)> = installed(env, None)
        .into_iter()
        .filter(|one| one.instance != subject.instance || one.scope != subject.scope)
        .map(|one| (None, one))
        .collect();
    if subject.scope == Scope::System {
        for home in user_homes() {
            let of_user = |name: &str| (name == "HOME").then(|| home.clone().into_os_string());
            for one in installed(&Env(&of_user), Some(Scope::User)) {
                let known = found.iter().any(|(_, known)| known.path == one.path);
                if one.path.starts_with(&home) && !known {
                    found.push((Some(home.clone()), one));
                }
            }
        }
    }
    // What a distribution ships and nobody enabled will not run.
    found.retain(|(home, one)| home.is_some() || is_wanted(env, one));
    found
}

/// Whether a unit was put there by an operator, or is enabled.
fn is_wanted(env: &Env<'_>, one: &Installed) -> bool {
    let Ok(layout) = Layout::of(one.scope, env) else {
        return false;
    };
    let linked = |target: &str| {
        layout
            .units
            .join(format!("{target}.target.wants"))
            .join(&one.unit)
            .symlink_metadata()
            .is_ok()
    };
    one.path.starts_with(&layout.units) || linked("multi-user") || linked("default")
}

/// Where an installed gateway listens; nothing where its configuration cannot be read or
/// understood.
fn listeners(env: &Env<'_>, one: &Installed) -> Vec<Listen> {
    let missing = Layout::of(one.scope, env).is_ok_and(|layout| {
        layout
            .config_file(&one.instance)
            .symlink_metadata()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
    });
    if missing {
        return Config::default().gateway.listen;
    }
    configuration(env, one)
        .ok()
        .flatten()
        .map(|(_, config)| config.gateway.listen)
        .unwrap_or_default()
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
    let holder = port::who(listen, &[], Depth::First).into_iter().next();
    let who = holder
        .as_ref()
        .map_or_else(|| "another program".to_owned(), Holder::to_string);
    let (who, next) = match holder {
        Some(Holder::Seen(process)) if process.is_gateway() => {
            let place = process.service().and_then(|group| group.rsplit('/').next());
            let how = place.map_or_else(
                || "a gateway that was started by hand".to_owned(),
                |unit| format!("the gateway of {unit}"),
            );
            let name = named(&process.arguments).unwrap_or("NAME");
            let stop = format!(
                "gatewayctl stop --instance {name}   (ends it, and what it has begun is finished)"
            );
            (
                format!("{how}, {who}"),
                format!(
                    "{stop}\ngatewayctl clean --dry-run --port {port}   (whether it is a stale one)"
                ),
            )
        }
        Some(Holder::Seen(process)) if process.is_systemd() => (
            format!("a socket unit, {who}"),
            "systemctl list-sockets   (which it is)".to_owned(),
        ),
        _ => (who, format!("ss -ltnp 'sport = :{port}'   (who it is)")),
    };
    ServiceError::refused(format!("{listen} is taken by {who}; nothing was changed")).next(format!(
        "{next}\ngatewayctl install --listen ADDRESS …   (another address)"
    ))
}

/// The instance that a gateway's command line names.
fn named(arguments: &[String]) -> Option<&str> {
    let at = arguments.iter().position(|word| word == "--instance")?;
    arguments.get(at + 1).map(String::as_str)
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

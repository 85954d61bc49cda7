//! Errors of D-Bus, made ones for people.

use super::error::ServiceError;
use crate::config::Env;
use crate::state::paths::Scope;
use crate::systemd::bus::{Unreachable, runtime_dir};

/// What to do where no manager answers.
pub(super) fn unreachable(scope: Scope, env: &Env<'_>, why: &Unreachable) -> ServiceError {
    let tried = match why {
        Unreachable::NotBooted { .. } => {
            return ServiceError::failed(why.to_string())
                .next("gateway run -- COMMAND   (under the supervisor that it has)");
        }
        Unreachable::NoAnswer { .. } => why.to_string(),
    };
    match scope {
        Scope::System => {
            ServiceError::failed(format!("cannot reach the service manager ({tried})"))
                .next("the same command with sudo   (root needs no bus)")
        }
        Scope::User => {
            let user = super::accounts::own_name();
            let error = ServiceError::failed(format!(
                "cannot reach the service manager of user {user} ({tried})"
            ));
            if runtime_dir(env).is_dir() {
                error.next(format!(
                    "systemctl status user@{}.service",
                    nix::unistd::geteuid()
                ))
            } else {
                error.next(format!("sudo loginctl enable-linger {user}   (starts one)\nthe same command with sudo and --system"))
            }
        }
    }
}

/// Makes an error of D-Bus one for people. `doing` is what was asked, as in "start
/// gateway.service".
pub(super) fn explain(error: &zbus::Error, doing: &str) -> ServiceError {
    let denied = match error {
        zbus::Error::FDO(error) => {
            matches!(
                **error,
                zbus::fdo::Error::AccessDenied(_)
                    | zbus::fdo::Error::InteractiveAuthorizationRequired(_)
            )
        }
        zbus::Error::MethodError(name, ..) => {
            name.as_str().ends_with("InteractiveAuthorizationRequired")
        }
        _ => false,
    };
    if denied {
        return ServiceError::permission(format!("not permitted to {doing}"))
            .next("the same command with sudo");
    }
    match error {
        zbus::Error::MethodError(_, Some(text), _) => {
            ServiceError::failed(format!("cannot {doing}: {text}"))
        }
        error => ServiceError::failed(format!("cannot {doing}: {error}")),
    }
}

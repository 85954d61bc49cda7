//! Users by name and number.

use nix::unistd::{Uid, User, geteuid};

use super::error::ServiceError;

/// The name of the caller, or its number where it has none.
pub(super) fn own_name() -> String {
    name_of(geteuid())
}

fn name_of(uid: Uid) -> String {
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// The account of a name.
///
/// # Errors
/// `ServiceError` when there is none.
pub(super) fn account(name: &str) -> Result<User, ServiceError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(ServiceError::usage(format!("there is no user `{name}`"))
            .next(format!("sudo useradd --system {name}"))),
        Err(error) => Err(ServiceError::failed(format!(
            "cannot look up user `{name}`: {error}"
        ))),
    }
}

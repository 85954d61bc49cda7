//! The user that a service will run as.

use nix::unistd::{Gid, Uid, User};

use crate::os::credentials::Credentials;
use crate::os::mapped_owner;
use crate::service::error::ServiceError;
use crate::service::rights::Rights;
use crate::service::unit_text::RunAs;

/// A number that systemd may give to a temporary user: it owns nothing but what it makes itself.
const TEMPORARY: u32 = *mapped_owner::TEMPORARY.end();

pub(super) fn account(name: &str) -> Result<User, ServiceError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => {
            let next = match cfg!(target_os = "macos") {
                true => "dscl . -list /Users   (the users that there are)".to_owned(),
                false => Rights::now().as_root(&format!("useradd --system {name}")),
            };
            Err(ServiceError::usage(format!("there is no user `{name}`")).next(next))
        }
        Err(error) => Err(ServiceError::failed(format!(
            "cannot look up user `{name}`: {error}"
        ))),
    }
}

/// The user and the groups with which the service will run. Of a temporary user, one that owns nothing.
///
/// # Errors
/// When there is no such user.
pub(super) fn credentials_of(run_as: &RunAs) -> Result<Credentials, ServiceError> {
    Ok(match run_as {
        RunAs::User(name) => {
            let account = account(name)?;
            Credentials::new(account.uid, account.gid, Some(&account), [])
        }
        RunAs::Dynamic => {
            let (uid, gid) = (Uid::from_raw(TEMPORARY), Gid::from_raw(TEMPORARY));
            Credentials::new(uid, gid, None, [])
        }
    })
}

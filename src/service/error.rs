//! Why installing or driving a service did not work, each with its exit code.

use std::io;
use std::path::Path;

use nix::unistd::geteuid;

use super::rights::{Rights, more_rights};
use crate::config::Env;
use crate::launchd::launchctl::NoLaunchctl;
use crate::state::paths::Scope;
use crate::state::paths::runtime_dir;
use crate::systemd::bus::{Unreachable, user_name};

/// What sort of ending it is; each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceErrorKind {
    /// It was tried and did not work: 1.
    Failed,
    /// The command line asks for something that has no meaning: 2.
    Usage,
    /// There is no such service: 3.
    NotInstalled,
    /// The limit ended before the gateway was ready; not a failure: 4.
    StillStarting,
    /// Refused, because it would destroy or cut something: 5.
    Refused,
    /// The caller may not do this: 77.
    Permission,
    /// The configuration is invalid: 78.
    Config,
}

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// What sort of ending it is.
    pub kind: ServiceErrorKind,
    /// Cause and place, in one sentence. It is printed as one line, whatever names in it contain.
    pub message: String,
    /// What else is to be known, each on a line of its own.
    pub lines: Vec<String>,
    /// The next command, one a line.
    pub next: Option<String>,
}

macro_rules! kinds {
    ($($name:ident => $kind:ident),*) => {$(
        pub(crate) fn $name(message: impl Into<String>) -> Self {
            Self { kind: ServiceErrorKind::$kind, message: message.into(), lines: Vec::new(), next: None }
        }
    )*};
}

impl ServiceError {
    kinds! {
        failed => Failed, usage => Usage, not_installed => NotInstalled, still_starting => StillStarting,
        refused => Refused, permission => Permission, config => Config
    }

    /// Adds lines below the message.
    #[must_use]
    pub(crate) fn lines(mut self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.lines.extend(lines.into_iter().map(Into::into));
        self
    }

    /// Adds lines of a text of somebody else below the message, each marked as such.
    #[must_use]
    pub(crate) fn quoting(self, lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Self {
        self.lines(lines.into_iter().map(|line| format!("  | {line}")))
    }

    /// Adds the next command.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// What was done to which file, and why it failed; a missing permission is told apart.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("cannot {doing} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::permission(text).next(more_rights()),
            _ => Self::failed(text),
        }
    }

    /// The refusal for a file that is not ours to change.
    pub(crate) fn not_ours(path: &Path, why: &str, diff: &str) -> Self {
        let message = format!("{} {why}; nothing was changed", path.display());
        Self::refused(message).lines(diff.trim_end().lines())
    }
}

impl From<NoLaunchctl> for ServiceError {
    fn from(error: NoLaunchctl) -> Self {
        Self::failed(error.to_string())
    }
}

/// The refusal of what would end the process that asks.
pub(super) fn inside(unit: &str, instance: &str, verb: &str) -> ServiceError {
    ServiceError::refused(format!(
        "refused to {verb} {unit} from inside of it: that would end this very command half-way"
    ))
    .next(format!(
        "gatewayctl {verb} --instance {instance}   (from another session)"
    ))
}

/// What to do where no manager answers.
pub(super) fn unreachable(scope: Scope, env: &Env<'_>, why: &Unreachable) -> ServiceError {
    if let Unreachable::NotBooted { .. } = why {
        return ServiceError::failed(why.to_string())
            .next("gateway run -- COMMAND   (under the supervisor that it has)");
    }
    match scope {
        Scope::System => ServiceError::failed(format!("cannot reach the service manager ({why})"))
            .next(match Rights::now() {
                Rights::Root => "systemctl is-system-running",
                Rights::User => "the same command with sudo   (root needs no bus)",
            }),
        Scope::User => {
            let user = user_name();
            let error = ServiceError::failed(format!(
                "cannot reach the service manager of user {user} ({why})"
            ));
            if runtime_dir(env).is_dir() {
                error.next(format!("systemctl status user@{}.service", geteuid()))
            } else {
                let caller = Rights::now();
                let linger = caller.as_root(&format!("loginctl enable-linger {user}"));
                let again = caller.again_as_root("--system");
                error.next(format!("{linger}   (starts one)\n{again}"))
            }
        }
    }
}

/// Makes an error of D-Bus one for people. `doing` is what was asked, as in "start
/// gateway.service".
pub(super) fn or_explain<T>(result: zbus::Result<T>, doing: &str) -> Result<T, ServiceError> {
    use zbus::fdo::Error::{AccessDenied, InteractiveAuthorizationRequired};
    result.map_err(|error| {
        let denied = match &error {
            zbus::Error::FDO(error) => matches!(
                **error,
                AccessDenied(_) | InteractiveAuthorizationRequired(_)
            ),
            zbus::Error::MethodError(name, ..) => {
                name.as_str().ends_with("InteractiveAuthorizationRequired")
            }
            _ => false,
        };
        match error {
            _ if denied => {
                ServiceError::permission(format!("not permitted to {doing}")).next(more_rights())
            }
            zbus::Error::MethodError(_, Some(text), _) => {
                ServiceError::failed(format!("cannot {doing}: {text}"))
            }
            error => ServiceError::failed(format!("cannot {doing}: {error}")),
        }
    })
}

//! Agents of launchd belong to a user, and `gatewayctl --user` under sudo means the one who called it: root has none.
//! The whole command runs as that user, so every file, and the domain of launchd, is that user's by itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::args::Global;
use super::{CliError, Exit};
use crate::config::Env;
use crate::launchd::launchctl::Launchctl;

/// What sudo and root's own session say, and that user's do not.
const OF_ROOT: [&str; 9] = [
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_USER",
    "SUDO_COMMAND",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "MAIL",
    "OLDPWD",
];

/// Goes on as the user who called sudo, where the command is about agents. Returns where it is not.
///
/// # Errors
/// When that user is not known, or the command cannot be run again.
pub fn become_invoker(global: &Global) -> Result<(), CliError> {
    if !global.user || !geteuid().is_root() || Launchctl::find().is_none() {
        return Ok(());
    }
    let Some(user) = invoker(&Env::real())? else {
        return Ok(());
    };
    // It returns only where it failed.
    let error = run_as(&user);
    let message = format!("cannot run this command as {}: {error}", user.name);
    Err(Exit::Failed
        .error(message)
        .with_help("the same command without sudo"))
}

/// None where nobody but root called.
fn invoker(env: &Env<'_>) -> Result<Option<User>, CliError> {
    let Some(uid) = env.text("SUDO_UID") else {
        return Ok(None);
    };
    let number = uid.parse().ok();
    let user = number.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    match user {
        Some(user) if user.uid.is_root() => Ok(None),
        Some(user) => Ok(Some(user)),
        None => Err(Exit::Usage
            .error(format!(
                "SUDO_UID is {uid:?}, which is no user: whose agent is meant?"
            ))
            .with_help("the same command without sudo")),
    }
}

fn run_as(user: &User) -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .env("HOME", &user.dir)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .env("SHELL", &user.shell);
    for name in OF_ROOT {
        command.env_remove(name);
    }
    command.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_called_sudo_is_a_user_or_the_question_comes_back() {
        let called = |uid: Option<&'static str>| {
            let env = move |name: &str| (name == "SUDO_UID").then_some(uid?.into());
            invoker(&Env(&env)).map(|user| user.map(|user| user.uid.as_raw()))
        };
        assert!(matches!(called(None), Ok(None)));
        assert!(matches!(called(Some("0")), Ok(None)));
        for nobody in ["501; id", "-1", "4294967294"] {
            assert!(called(Some(nobody)).is_err(), "{nobody}");
        }
        if let Ok(Some(user)) = User::from_name("nobody") {
            let uid: &'static str = Box::leak(user.uid.to_string().into_boxed_str());
            assert_eq!(called(Some(uid)).ok(), Some(Some(user.uid.as_raw())));
        }
    }
}

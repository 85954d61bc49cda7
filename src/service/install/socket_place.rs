//! Whether the user of a service may make the unix listeners that its configuration asks for. A service
//! that may not waits for that, and nobody who starts it would know.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::User;

use crate::config::Listen;
use crate::os::credentials::Credentials;
use crate::service::error::ServiceError;
use crate::service::layout::Layout;
use crate::service::unit_text::{RunAs, UnitPlan};
use crate::state::paths::Scope;

/// What POSIX has for "may I write there?". It asks the kernel, which knows groups and access lists.
const TEST: &str = "/usr/bin/test";

/// Refuses a unix listener in a directory that is there and in which the user of the service may make
/// nothing. A directory that is not there yet is waited for, and drop-ins of the unit may allow more
/// than can be seen here.
///
/// # Errors
/// Kind Refused with the places that are open to the service.
pub(super) fn refuse_closed(
    unit: &UnitPlan,
    layout: &Layout,
    instance: &str,
    listen: &[Listen],
) -> Result<(), ServiceError> {
    let by_root = !unit.sockets.is_empty() && unit.scope == Scope::System;
    let drop_ins = layout.units.join(format!("{}.d", unit.service_name()));
    if by_root || drop_ins.exists() {
        return Ok(());
    }
    // What systemd makes for the service at each start.
    let own: Vec<PathBuf> = layout.leftovers(instance);
    for one in listen {
        let Listen::Unix(path) = one else { continue };
        let Some(dir) = path.parent().filter(|dir| dir.is_dir()) else {
            continue;
        };
        if own.iter().any(|own| dir.starts_with(own)) || may_write(unit, dir) {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let place = layout.runtime.join("gateway").join(instance).join(name);
        let user = match (&unit.run_as, unit.scope) {
            (_, Scope::User) => "this user".to_owned(),
            (RunAs::User(name), Scope::System) => name.clone(),
            (RunAs::Dynamic, Scope::System) => "a temporary user".to_owned(),
        };
        let socket = match unit.scope {
            Scope::System => "\nthe same command with --socket   (systemd makes it, as root)",
            Scope::User => "",
        };
        let message = format!(
            "the service runs as {user}, who may make no socket in {}: it would wait for that for ever; nothing was changed",
            dir.display()
        );
        return Err(ServiceError::refused(message).next(format!(
            "gatewayctl install --listen unix:{} …   (a directory that systemd makes for the service){socket}",
            place.display()
        )));
    }
    Ok(())
}

/// Whether the user of the service may make files in a directory; true where that cannot be found out.
fn may_write(unit: &UnitPlan, dir: &Path) -> bool {
    let user = match (&unit.run_as, unit.scope) {
        (_, Scope::User) => Credentials::of_this_process(),
        // DynamicUser= comes with a file system that is read-only but for what systemd makes.
        (RunAs::Dynamic, Scope::System) => return false,
        (RunAs::User(name), Scope::System) => match User::from_name(name) {
            Ok(Some(account)) => Credentials::new(account.uid, account.gid, Some(&account), []),
            _ => return true,
        },
    };
    let tested = user.command(Path::new(TEST)).and_then(|mut test| {
        test.arg("-w")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    // 1 is "no"; anything above is a failure of the program.
    !tested.is_ok_and(|status| status.code() == Some(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn refused(run_as: &str, listen: &str) -> Option<ServiceError> {
        let layout = Layout::of(Scope::System, &Env(&|_| None)).unwrap();
        let unit = UnitPlan {
            scope: Scope::System,
            run_as: match run_as {
                "" => RunAs::Dynamic,
                name => RunAs::User(name.to_owned()),
            },
            ..UnitPlan::default()
        };
        refuse_closed(&unit, &layout, "api", &[listen.parse().unwrap()]).err()
    }

    #[test]
    fn a_socket_is_refused_only_where_the_services_user_may_make_none() {
        assert!(refused("root", "unix:/run/app.sock").is_none());
        assert!(refused("root", "127.0.0.1:1").is_none());
        let error = refused("", "unix:/run/app.sock").unwrap();
        assert!(error.message.contains("no socket in /run: "), "{error}");
        let next = error.next.unwrap();
        assert!(next.contains("unix:/run/gateway/api/app.sock"), "{next}");
        assert!(next.contains("--socket"), "{next}");
        assert!(refused("", "unix:/run/gateway/api/app.sock").is_none());
        assert!(refused("", "unix:/nonexistent/app.sock").is_none());
        if nix::unistd::geteuid().is_root() {
            assert!(refused("nobody", "unix:/run/app.sock").is_some());
            assert!(refused("nobody", "unix:/tmp/app.sock").is_none());
        }
    }
}

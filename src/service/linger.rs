//! Lingering: a user's services run without a login, and from boot on.

use std::path::Path;

use nix::unistd::geteuid;

use super::error::ServiceError;
use super::layout::Layout;
use super::rights::Rights;
use crate::systemd::bus::{self, LoginProxy, user_name};

/// Where logind keeps who lingers.
const LINGERING: &str = "/var/lib/systemd/linger";

async fn set(on: bool) -> zbus::Result<()> {
    let connection = bus::system_bus().await?;
    let login = LoginProxy::new(&connection).await?;
    login.set_user_linger(geteuid().as_raw(), on, false).await
}

/// Whether the caller's manager stays up without a session.
pub fn is_on() -> bool {
    Path::new(LINGERING).join(user_name()).exists()
}

/// What somebody should know for whom it was turned on.
pub(super) const IS_ON: &str = "lingering is on now: your services run without a login, and from boot on; uninstall of your last gateway turns it off again";

/// Turns it on and remembers that it was us. What the caller must do instead, where that is not
/// permitted.
///
/// # Errors
/// When the note cannot be written; lingering is then turned off again.
pub async fn turn_on(layout: &Layout) -> Result<Option<String>, ServiceError> {
    let Some(mark) = layout.linger_mark() else {
        return Ok(None);
    };
    if is_on() {
        return Ok(None);
    }
    if let Err(error) = set(true).await {
        return Ok(Some(format!(
            "without lingering it ends with your last session and does not start at boot, and turning it on failed ({error}): {}",
            loginctl("enable-linger")
        )));
    }
    let noted = mark
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&mark, ""));
    if let Err(error) = noted {
        let _ = set(false).await;
        return Err(ServiceError::file("write", &mark, &error));
    }
    Ok(None)
}

/// Turns it off if it was us who turned it on. What the caller must do instead, where that is not
/// permitted.
pub(super) async fn turn_off(layout: &Layout) -> Option<String> {
    let mark = layout.linger_mark().filter(|mark| mark.exists())?;
    let failed = set(false).await.err();
    // Removed even then: who turns it on again by hand must not lose it to a later uninstall.
    let _ = std::fs::remove_file(mark);
    failed.map(|error| {
        format!(
            "lingering stays on ({error}): {}",
            loginctl("disable-linger")
        )
    })
}

/// The command that root types.
fn loginctl(verb: &str) -> String {
    Rights::now().as_root(&format!("loginctl {verb} {}", user_name()))
}

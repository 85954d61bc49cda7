//! Lingering: a user's services run without a login, and from boot on.

use std::path::Path;

use super::accounts::own_name;
use super::error::ServiceError;
use super::layout::Layout;
use super::manager::set_linger;

/// Where logind keeps who lingers.
const LINGERING: &str = "/var/lib/systemd/linger";

/// Whether the caller's manager stays up without a session.
pub(super) fn is_on() -> bool {
    Path::new(LINGERING).join(own_name()).exists()
}

/// Turns it on and remembers that it was us. What the caller must do instead, where that is not
/// permitted.
///
/// # Errors
/// When the note cannot be written; lingering is then turned off again.
pub(super) async fn turn_on(layout: &Layout) -> Result<Option<String>, ServiceError> {
    let Some(mark) = layout.linger_mark() else {
        return Ok(None);
    };
    if is_on() {
        return Ok(None);
    }
    let uid = nix::unistd::geteuid().as_raw();
    if let Err(error) = set_linger(uid, true).await {
        return Ok(Some(format!(
            "without lingering it ends with your last session and does not start at boot, and turning it on failed ({error}): sudo loginctl enable-linger {}",
            own_name()
        )));
    }
    let noted = mark
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&mark, ""));
    if let Err(error) = noted {
        let _ = set_linger(uid, false).await;
        return Err(ServiceError::file("write", &mark, &error));
    }
    Ok(None)
}

/// Turns it off if it was us who turned it on. What the caller must do instead, where that is not
/// permitted.
pub(super) async fn turn_off(layout: &Layout) -> Option<String> {
    let mark = layout.linger_mark().filter(|mark| mark.exists())?;
    let failed = set_linger(nix::unistd::geteuid().as_raw(), false)
        .await
        .err();
    // Removed even then: who turns it on again by hand must not lose it to a later uninstall.
    let _ = std::fs::remove_file(mark);
    failed.map(|error| {
        format!(
            "lingering stays on ({error}): sudo loginctl disable-linger {}",
            own_name()
        )
    })
}

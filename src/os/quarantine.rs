//! The mark that macOS puts on what came from elsewhere: launchd does not start a program with it.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::platform;

#[cfg(target_os = "macos")]
const ATTRIBUTE: &CStr = c"com.apple.quarantine";

/// Its stand-in, so that tests on Linux find one: there, users name attributes in a space of their own.
#[cfg(not(target_os = "macos"))]
const ATTRIBUTE: &CStr = c"user.com.apple.quarantine";

/// Whether a file has the mark; false where that cannot be asked.
pub fn is_quarantined(path: &Path) -> bool {
    let path = CString::new(path.as_os_str().as_bytes());
    path.is_ok_and(|path| platform::has_attribute(&path, ATTRIBUTE))
}

//! launch_activate_socket(3) of launch.h.
#![allow(
    unsafe_code,
    reason = "it has no wrapper: it allocates what its caller frees"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::RawFd;

unsafe extern "C" {
    fn launch_activate_socket(
        name: *const c_char,
        fds: *mut *mut c_int,
        count: *mut usize,
    ) -> c_int;
}

/// The descriptors that launchd passes under a name. It passes each name once in the life of a process.
///
/// # Errors
/// ESRCH where this process is no job, ENOENT where its property list has no such name, EALREADY the second
/// time.
pub fn activate_socket(name: &CStr) -> io::Result<Vec<RawFd>> {
    let (mut fds, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the name ends with a zero byte, and both places are there to be written.
    let error = unsafe { launch_activate_socket(name.as_ptr(), &mut fds, &mut count) };
    // It returns an error number, and leaves errno alone.
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    if fds.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: on success `fds` is an array of `count` numbers.
    let passed = unsafe { std::slice::from_raw_parts(fds, count) }.to_vec();
    // SAFETY: it was allocated by malloc for the caller, and nothing points to it any more.
    unsafe { libc::free(fds.cast::<c_void>()) };
    Ok(passed)
}

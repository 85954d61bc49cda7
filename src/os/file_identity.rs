//! The identity with which one thread, and no other of this process, asks for files.
#![allow(
    unsafe_code,
    reason = "the calls of the C library change every thread, and nix has neither capset nor faccessat2"
)]

use std::fmt;
use std::io;
use std::path::Path;

use super::credentials::Credentials;

/// What is to be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Go through a directory, or start in it.
    Enter,
    Read,
    /// Change a file, or make files in a directory.
    Write,
    /// Run a program.
    Run,
}

/// "enter", for "cannot enter /root".
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enter => "enter",
            Self::Read => "read",
            Self::Write => "write to",
            Self::Run => "run",
        })
    }
}

#[cfg(target_os = "linux")]
mod calls {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use nix::errno::Errno;
    use nix::unistd::{setfsgid, setfsuid};

    use super::{Access, Credentials, Path, io};

    /// `_LINUX_CAPABILITY_VERSION_3` (capget(2)): two sets of 32 bits each.
    const VERSION: u32 = 0x2008_0522;

    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    pub fn take(user: &Credentials) -> io::Result<()> {
        let groups: Vec<libc::gid_t> = user.groups.iter().map(|group| group.as_raw()).collect();
        // SAFETY: the kernel reads so many numbers, which outlive the call.
        let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        Errno::result(done)?;
        setfsgid(user.gid);
        setfsuid(user.uid);
        // They tell no error; what they return is the identity before.
        match (setfsuid(user.uid), setfsgid(user.gid)) {
            (uid, gid) if uid == user.uid && gid == user.gid => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    pub fn drop_capabilities() -> io::Result<()> {
        let mut header = Header {
            version: VERSION,
            pid: 0,
        };
        let mut sets = [Sets::default(); 2];
        // SAFETY: both have the form that this version wants, and outlive the calls.
        unsafe {
            let read = libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr());
            Errno::result(read)?;
            sets.iter_mut().for_each(|set| set.effective = 0);
            let set = libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr());
            Errno::result(set)?;
        }
        Ok(())
    }

    pub fn may(path: &Path, access: Access) -> io::Result<()> {
        let mode = match access {
            Access::Enter | Access::Run => libc::X_OK,
            Access::Read => libc::R_OK,
            Access::Write if path.is_dir() => libc::W_OK | libc::X_OK,
            Access::Write => libc::W_OK,
        };
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a text with its end, which outlives the call, and numbers.
        let asked = unsafe {
            let (at, flags) = (libc::AT_FDCWD, libc::AT_EACCESS);
            libc::syscall(libc::SYS_faccessat2, at, name.as_ptr(), mode, flags)
        };
        match Errno::result(asked) {
            // Before Linux 5.8 only the way can be asked about.
            Err(Errno::ENOSYS) => std::fs::symlink_metadata(path).map(drop),
            asked => Ok(asked.map(drop)?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod calls {
    use super::{Access, Credentials, Path, io};

    pub fn take(_: &Credentials) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn drop_capabilities() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn may(path: &Path, access: Access) -> io::Result<()> {
        use nix::unistd::{AccessFlags, access as ask};
        let flags = match access {
            Access::Enter | Access::Run => AccessFlags::X_OK,
            Access::Read => AccessFlags::R_OK,
            Access::Write => AccessFlags::W_OK,
        };
        Ok(ask(path, flags)?)
    }
}

/// This thread asks for files as that user from now on, for as long as it lives.
///
/// # Errors
/// When it may not.
pub(super) fn take(user: &Credentials) -> io::Result<()> {
    calls::take(user)
}

/// This thread has no capability any more, not even root's.
///
/// # Errors
/// When the kernel has none.
pub(super) fn drop_capabilities() -> io::Result<()> {
    calls::drop_capabilities()
}

/// Asks whether this thread may do that.
///
/// # Errors
/// Why not.
pub(super) fn may(path: &Path, access: Access) -> io::Result<()> {
    calls::may(path, access)
}

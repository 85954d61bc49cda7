//! The twin of linux.rs, which describes the functions; here stands what is different.
//!
//! macOS cannot create a descriptor close-on-exec: it is marked right after. A program that another
//! thread starts in between inherits it, unless it marks all its descriptors between fork and exec, as
//! a sidecar does.
#![allow(
    unsafe_code,
    reason = "getxattr and getdtablesize have no safe wrapper in nix, and descriptors come as bare numbers"
)]

use std::ffi::{CStr, OsStr, c_int};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::sys::statfs::statfs;
use nix::unistd::{Gid, Pid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    let fd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// Whether a file has an extended attribute.
pub fn has_attribute(path: &CStr, name: &CStr) -> bool {
    // SAFETY: both texts end with a zero, and no byte of the value is asked for.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0, 0, 0) >= 0 }
}

/// Nothing here drops a packet: who comes between the last look at the queue and the end is reset.
pub fn drop_new_connections(_: &impl AsRawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing here tells it of a connection that was reset.
pub fn unacknowledged(_: &impl AsRawFd) -> bool {
    false
}

/// Nothing here tells the kernel to acknowledge what came.
pub fn acknowledge(_: &tokio::net::TcpStream) {}

unsafe extern "C" {
    /// Since macOS 10.12: the working directory of this thread alone; -1 for that of the process.
    fn pthread_fchdir_np(dir: c_int) -> c_int;
}

/// On macOS, no path leads through a descriptor: the thread goes into the directory for that long.
pub fn with_entry_of<T>(
    dir: &Path,
    name: &OsStr,
    with: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = open(dir, flags, Mode::empty())?;
    // SAFETY: takes a number; the descriptor is open.
    if unsafe { pthread_fchdir_np(dir.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let done = with(Path::new(name));
    // SAFETY: takes a number.
    unsafe { pthread_fchdir_np(-1) };
    done
}

/// No thread has a umask of its own.
pub fn with_umask<T: Send>(_: u32, _: impl FnOnce() -> T + Send) -> Option<T> {
    None
}

/// No descriptor leads to a socket in the file system: another socket may take its place meanwhile,
/// but no link is followed.
pub fn set_socket_mode(path: &Path, mode: u32) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other(
            "another file took the place of the socket",
        ));
    }
    let mode = Mode::from_bits_truncate(mode as libc::mode_t);
    let flags = FchmodatFlags::NoFollowSymlink;
    Ok(fchmodat(AT_FDCWD, path, mode, flags)?)
}

pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe()?;
    for end in [&read, &write] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((read, write))
}

/// No service of systemd runs here, and so no program as its user.
pub fn groups_of(_: &str, first: Gid) -> Vec<Gid> {
    vec![first]
}

pub fn set_groups(_: &[Gid]) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOTSUP)
}

/// On macOS, an option of the socket.
pub fn send_flags(socket: &impl AsRawFd) -> MsgFlags {
    let yes: libc::c_int = 1;
    // SAFETY: reads an int of the given size. If it fails, the signal is ignored by the runtime of
    // Rust.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    MsgFlags::empty()
}

/// Received descriptors are marked close-on-exec afterwards.
pub fn receive_flags() -> MsgFlags {
    MsgFlags::empty()
}

/// # Safety
/// As the twin.
pub unsafe fn descriptors_from(raw: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: as above.
    let descriptors: Vec<OwnedFd> = raw
        .into_iter()
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    for descriptor in &descriptors {
        // On an open descriptor this does not fail.
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    descriptors
}

/// One more than the highest possible descriptor: the limit of the process, which the kernel keeps
/// below kern.maxfilesperproc.
fn descriptors_end() -> RawFd {
    // SAFETY: takes nothing, returns a number.
    unsafe { libc::getdtablesize() }
}

/// Tries every number: reading /dev/fd would allocate memory, which is not allowed between fork and
/// exec.
///
/// # Safety
/// As the twin.
pub unsafe fn close_others(keep: RawFd) {
    for fd in (0..descriptors_end()).filter(|fd| *fd != keep) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

pub fn mark_rest_close_on_exec() {
    for fd in 3..descriptors_end() {
        // SAFETY: only sets a flag; a number without a descriptor is an error and nothing more.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Does nothing: macOS has no such signal. The children of a gateway that is killed by SIGKILL run
/// until launchd ends its process group, or the next gateway finds their ports taken.
pub fn die_with_parent(_: Signal) -> nix::Result<()> {
    Ok(())
}

/// None: macOS cannot leave out the children of other threads, and launchd reaps orphans.
pub fn ended_child() -> Option<Pid> {
    None
}

pub fn boot_id() -> Option<String> {
    let id = crate::os::darwin::calls::sysctl(c"kern.bootsessionuuid").ok()?;
    Some(
        String::from_utf8_lossy(&id)
            .trim_end_matches('\0')
            .to_owned(),
    )
}

/// File systems in memory, over a network, or of a program (statfs(2), `f_fstypename`).
const POOR: [&str; 7] = [
    "tmpfs", "nfs", "smbfs", "afpfs", "webdav", "macfuse", "osxfuse",
];

pub fn poor_file_system(dir: &Path) -> Option<String> {
    let found = statfs(dir).ok()?;
    let name = found.filesystem_type_name();
    POOR.contains(&name).then(|| name.to_owned())
}

/// What launchd and a terminal give is 256, too few for a server with some hundred clients. The units of
/// systemd have 1024, too.
pub fn server_descriptors(given: u64) -> u64 {
    given.max(1024)
}

/// The hard limit is none, and setrlimit(2) takes no soft one above this.
pub fn descriptors_most() -> Option<u64> {
    let most = crate::os::darwin::calls::sysctl(c"kern.maxfilesperproc").ok()?;
    crate::os::record::number(&most, 0).map(u64::from)
}

pub fn can_watch() -> nix::Result<()> {
    Kqueue::new().map(drop)
}

/// Watches directories for changes: kqueue, EVFILT_VNODE. A new or removed file changes its
/// directory; a change of a file itself, for example of its permissions, is not noticed on macOS.
pub struct Watcher {
    queue: AsyncFd<OwnedFd>,
    // Watched as long as they are open.
    _directories: Vec<OwnedFd>,
}

impl Watcher {
    pub fn new<'a>(directories: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let queue = Kqueue::new()?;
        let flags = OFlag::from_bits_retain(libc::O_EVTONLY) | OFlag::O_CLOEXEC;
        let directories = directories
            .map(|directory| open(directory, flags, Mode::empty()))
            .collect::<nix::Result<Vec<OwnedFd>>>()?;
        let what = FilterFlag::NOTE_WRITE
            | FilterFlag::NOTE_ATTRIB
            | FilterFlag::NOTE_DELETE
            | FilterFlag::NOTE_RENAME
            | FilterFlag::NOTE_REVOKE;
        let watch = |directory: &OwnedFd| {
            KEvent::new(
                directory.as_raw_fd() as usize,
                EventFilter::EVFILT_VNODE,
                EvFlags::EV_ADD | EvFlags::EV_CLEAR,
                what,
                0,
                0,
            )
        };
        let watches: Vec<KEvent> = directories.iter().map(watch).collect();
        queue.kevent(&watches, &mut [], None)?;
        // SAFETY: an OwnedFd always gives the same open descriptor, and AsyncFd owns it from here
        // on.
        let queue =
            unsafe { AsyncFd::register_with_interest(OwnedFd::from(queue), Interest::READABLE) }?;
        Ok(Self {
            queue,
            _directories: directories,
        })
    }

    pub async fn changed(&self) -> io::Result<()> {
        // The events themselves do not matter: the caller looks at everything, and watches again.
        self.queue.readable().await.map(drop)
    }
}

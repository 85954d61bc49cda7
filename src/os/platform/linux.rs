//! Linux.
#![allow(
    unsafe_code,
    reason = "getxattr, close_range, unshare, the send queue and socket filters have no safe wrapper in nix, and descriptors come as bare numbers in a control message"
)]

use std::ffi::{CStr, OsStr};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Gid, Pid};
use tokio::net::unix::pipe;

/// Whether a file has an extended attribute.
pub fn has_attribute(path: &CStr, name: &CStr) -> bool {
    // SAFETY: both texts end with a zero, and no byte of the value is asked for.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// A TCP socket, close-on-exec and non-blocking.
pub fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Stream, flags, None)
}

/// Drops the first packet (SYN) of every connection to a listener from now on; handshakes that have
/// begun end. A client sends it again after a second, and is refused once the listener is closed.
///
/// # Errors
/// Where the kernel or a sandbox asks for a privilege.
pub fn drop_new_connections(listener: &impl AsRawFd) -> io::Result<()> {
    // The flags of a TCP header are its byte 13, SYN is the bit of value 2 (RFC 9293, 3.1).
    let filter = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = [
        filter(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
        filter(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, 2),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Ok(nix::errno::Errno::result(result).map(drop)?)
}

/// Whether the kernel of the other side has not acknowledged all that was sent on a TCP connection.
pub fn unacknowledged(stream: &impl AsRawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes an int, for which there is room. (SIOCOUTQ is this number, too.)
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    result == 0 && bytes > 0
}

/// Acknowledges at once what came on a TCP connection; on a unix socket, nothing needs it.
pub fn acknowledge(stream: &tokio::net::TcpStream) {
    // Without it, the other side sends its next piece a little later.
    let _ = stream.set_quickack(true);
}

/// Calls `with` with a short path that leads to the entry `name` of a directory, for as long as the
/// call takes.
pub fn with_entry_of<T>(
    dir: &Path,
    name: &OsStr,
    with: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::open(dir, flags, Mode::empty())?;
    with(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

/// Calls `with` in a thread that has a umask of its own; none, without a call, where a thread cannot
/// have one.
pub fn with_umask<T: Send>(mask: u32, with: impl FnOnce() -> T + Send) -> Option<T> {
    let alone = || {
        // SAFETY: takes a number. This thread ends, and no other sees that it left the others.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return None;
        }
        nix::sys::stat::umask(Mode::from_bits_truncate(mask));
        Some(with())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("umask".to_owned());
        thread.spawn_scoped(scope, alone).ok()?.join().ok()?
    })
}

/// Sets the permission bits of a socket of this user, by its descriptor.
///
/// # Errors
/// When something else is there.
pub fn set_socket_mode(path: &Path, mode: u32) -> io::Result<()> {
    let place = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let found = place.metadata()?;
    if !found.file_type().is_socket() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(
            "another file took the place of the socket",
        ));
    }
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The reading and the writing end of a pipe, close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// The groups of an account, `first` among them; none where the list cannot be read.
pub fn groups_of(account: &str, first: Gid) -> Vec<Gid> {
    let name = std::ffi::CString::new(account);
    let groups = name.map(|name| nix::unistd::getgrouplist(&name, first));
    groups.ok().and_then(Result::ok).unwrap_or_default()
}

/// Sets the supplementary groups of this process.
pub fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    nix::unistd::setgroups(groups)
}

/// Flags for sending, so that a closed other side causes an error instead of a signal.
pub fn send_flags(_: &impl AsRawFd) -> MsgFlags {
    MsgFlags::MSG_NOSIGNAL
}

/// Flags for receiving descriptors, so that they are close-on-exec.
pub fn receive_flags() -> MsgFlags {
    MsgFlags::MSG_CMSG_CLOEXEC
}

/// Descriptors of a control message that was received with [`receive_flags`].
///
/// # Safety
/// The kernel has just made them for this process, and each is taken once.
pub unsafe fn descriptors_from(raw: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: as above.
    raw.into_iter()
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// Closes every descriptor but `keep`; async-signal-safe. Before Linux 5.9 nothing is closed.
///
/// # Safety
/// Nothing in this process uses another descriptor afterwards.
pub unsafe fn close_others(keep: RawFd) {
    // SAFETY: as above; plain system calls.
    unsafe {
        if keep > 0 {
            libc::syscall(libc::SYS_close_range, 0, keep - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, keep + 1, libc::c_uint::MAX, 0);
    }
}

/// Marks every descriptor from 3 on to be closed on exec; async-signal-safe.
pub fn mark_rest_close_on_exec() {
    let (last, flag) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: only sets a flag on descriptors. Before Linux 5.11 it fails: then only our own
    // descriptors are close-on-exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3, last, flag) };
}

/// Lets the kernel send `signal` to this process when its parent ends; async-signal-safe.
pub fn die_with_parent(signal: Signal) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)
}

/// A child of this thread that has ended and was not reaped, which this leaves as it is.
pub fn ended_child() -> Option<Pid> {
    let flags = WaitPidFlag::WEXITED
        | WaitPidFlag::WNOHANG
        | WaitPidFlag::WNOWAIT
        | WaitPidFlag::__WNOTHREAD;
    waitid(Id::All, flags).ok()?.pid()
}

/// The identity of this boot; none where it is hidden.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// File systems in memory, which lose their files, and over a network (proc(5), statfs(2)).
const POOR: [(i64, &str); 7] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
];

/// The file system of a directory, if it is no place for a state directory: in memory, or over a
/// network.
pub fn poor_file_system(dir: &Path) -> Option<String> {
    let kind = statfs(dir).ok()?.filesystem_type().0 as i64 & 0xffff_ffff;
    let poor = POOR.iter().find(|(magic, _)| *magic == kind);
    poor.map(|(_, name)| (*name).to_owned())
}

/// The soft limit of descriptors that a server gets where the gateway was given this one.
pub fn server_descriptors(given: u64) -> u64 {
    given
}

/// The most descriptors that a process may have below its hard limit; none where that is all.
pub fn descriptors_most() -> Option<u64> {
    None
}

/// Whether a [`Watcher`] can be made.
///
/// # Errors
/// When the system has no inotify left.
pub fn can_watch() -> nix::Result<()> {
    Inotify::init(InitFlags::IN_CLOEXEC).map(drop)
}

/// An inotify event with the longest name (inotify(7)).
const EVENT_MAX: usize = 16 + 256;

/// Watches directories for changes: inotify.
pub struct Watcher {
    // An inotify descriptor is read like the end of a pipe.
    events: pipe::Receiver,
}

impl Watcher {
    /// # Errors
    /// When the system has no inotify left (fs.inotify.max_user_instances).
    pub fn new<'a>(directories: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let what = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF;
        for directory in directories {
            inotify.add_watch(directory, what)?;
        }
        Ok(Self {
            events: pipe::Receiver::from_file_unchecked(File::from(OwnedFd::from(inotify)))?,
        })
    }

    /// Returns when something changed.
    pub async fn changed(&self) -> io::Result<()> {
        let mut event = [0; EVENT_MAX];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut event) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

//! The calls: sysctl(3) and libproc (libproc.h).
//!
//! The kernel writes into plain bytes, or into a zeroed structure of plain numbers, and only what
//! it says that it wrote is read.
#![allow(unsafe_code, reason = "sysctl and libproc have no safe wrapper in nix")]

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{arguments, fdinfo};

/// PROC_ALL_PIDS and PROC_PIDFDSOCKETINFO of sys/proc_info.h.
const ALL_PIDS: u32 = 1;
const FD_SOCKET_INFO: c_int = 3;

/// A list may grow between the call that asks for its size and the call that reads it.
const TRIES: usize = 4;

/// What `struct proc_bsdinfo` and `struct proc_bsdshortinfo` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// 16 bytes at most.
    pub name: String,
    /// Whether it is a zombie: it has ended and waits to be reaped.
    pub zombie: bool,
    pub stopped: bool,
    pub parent: u32,
    pub group: u32,
    pub uid: u32,
    /// In microseconds since 1970; 0 where it is not known.
    pub start_time: u64,
}

/// The value of a sysctl by its name, as in `c"kern.bootsessionuuid"`.
///
/// # Errors
/// When there is none of that name, or it may not be read.
pub fn sysctl(name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer, length| {
        // SAFETY: the name ends with a zero byte; the kernel writes at most `length` bytes to
        // `buffer`, or only the length where that is null.
        unsafe { libc::sysctlbyname(name.as_ptr(), buffer, length, std::ptr::null_mut(), 0) }
    })
}

/// The value of a sysctl by its four numbers.
fn sysctl_of(mut mib: [c_int; 4]) -> io::Result<Vec<u8>> {
    grow(|buffer, length| {
        // SAFETY: as above.
        unsafe { libc::sysctl(mib.as_mut_ptr(), 4, buffer, length, std::ptr::null_mut(), 0) }
    })
}

/// Asks for the size, then for the value, until the buffer is large enough.
fn grow(mut ask: impl FnMut(*mut c_void, *mut usize) -> c_int) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::OutOfMemory);
    for _ in 0..TRIES {
        let mut length = 0;
        if ask(std::ptr::null_mut(), &mut length) != 0 {
            return Err(io::Error::last_os_error());
        }
        length += length / 8 + 64;
        let mut buffer = vec![0_u8; length];
        if ask(buffer.as_mut_ptr().cast(), &mut length) == 0 {
            buffer.truncate(length);
            return Ok(buffer);
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::ENOMEM) {
            break;
        }
    }
    Err(last)
}

pub fn pids() -> Vec<u32> {
    let found = list(|buffer, length| {
        // SAFETY: writes at most `length` bytes to `buffer`, or tells how many there are where that
        // is null.
        unsafe { libc::proc_listpids(ALL_PIDS, 0, buffer, length) }
    });
    found
        .chunks_exact(4)
        .filter_map(|pid| super::number(pid, 0))
        .filter(|pid| *pid != 0)
        .collect()
}

/// Reads a list of libproc: asks for its size first, and again while the answer fills the buffer.
fn list(mut ask: impl FnMut(*mut c_void, c_int) -> c_int) -> Vec<u8> {
    for _ in 0..TRIES {
        let Ok(size @ 1..) = usize::try_from(ask(std::ptr::null_mut(), 0)) else {
            break;
        };
        let mut buffer = vec![0_u8; size + size / 8 + 256];
        let Ok(offered) = c_int::try_from(buffer.len()) else {
            break;
        };
        let Ok(written @ 1..) = usize::try_from(ask(buffer.as_mut_ptr().cast(), offered)) else {
            break;
        };
        if written < buffer.len() {
            buffer.truncate(written);
            return buffer;
        }
    }
    Vec::new()
}

/// None when there is no such process. A zombie is one.
pub fn process_info(pid: u32) -> Option<ProcessInfo> {
    full(pid).or_else(|| short(pid))
}

/// The memory of a process of the own user that is in RAM, in bytes.
pub fn resident(pid: u32) -> Option<u64> {
    let info: libc::proc_taskinfo = info(pid, libc::PROC_PIDTASKINFO)?;
    Some(info.pti_resident_size)
}

/// For the processes of the own user, and for root all of them.
fn full(pid: u32) -> Option<ProcessInfo> {
    let info: libc::proc_bsdinfo = info(pid, libc::PROC_PIDTBSDINFO)?;
    Some(ProcessInfo {
        name: name(&info.pbi_comm),
        zombie: info.pbi_status == libc::SZOMB,
        stopped: info.pbi_status == libc::SSTOP,
        parent: info.pbi_ppid,
        group: info.pbi_pgid,
        uid: info.pbi_uid,
        start_time: micros(info.pbi_start_tvsec, info.pbi_start_tvusec),
    })
}

/// For the processes of other users too, which may be ancestors of ours.
fn short(pid: u32) -> Option<ProcessInfo> {
    let info: libc::proc_bsdshortinfo = info(pid, libc::PROC_PIDT_SHORTBSDINFO)?;
    Some(ProcessInfo {
        name: name(&info.pbsi_comm),
        zombie: info.pbsi_status == libc::SZOMB,
        stopped: info.pbsi_status == libc::SSTOP,
        parent: info.pbsi_ppid,
        group: info.pbsi_pgid,
        uid: info.pbsi_uid,
        start_time: start_of(pid).unwrap_or_default(),
    })
}

/// The start of any user's process: `struct kinfo_proc` (sys/sysctl.h) begins with it, as a
/// `timeval`.
fn start_of(pid: u32) -> Option<u64> {
    let found = sysctl_of([
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_PID,
        c_int::try_from(pid).ok()?,
    ])
    .ok()?;
    let seconds = super::bytes(&found, 0).map(u64::from_ne_bytes)?;
    Some(micros(seconds, super::number(&found, 8)?.into()))
}

fn micros(seconds: u64, micros: u64) -> u64 {
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

/// Structures of libc that consist of numbers alone, so that any bytes are one.
trait Plain: Copy {}
impl Plain for libc::proc_bsdinfo {}
impl Plain for libc::proc_bsdshortinfo {}
impl Plain for libc::proc_taskinfo {}

// sys/proc_info.h: the kernel refuses less than its own size, and tells it.
const _: () =
    assert!(size_of::<libc::proc_bsdinfo>() == 136 && size_of::<libc::proc_bsdshortinfo>() == 64);

fn info<T: Plain>(pid: u32, flavor: c_int) -> Option<T> {
    /// Finds zombies too.
    const ZOMBIES: u64 = 1;
    let size = c_int::try_from(size_of::<T>()).ok()?;
    let mut info = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: writes at most `size` bytes to the structure.
    let written = unsafe {
        libc::proc_pidinfo(
            c_int::try_from(pid).ok()?,
            flavor,
            ZOMBIES,
            info.as_mut_ptr().cast(),
            size,
        )
    };
    // SAFETY: zeroed, then written by the kernel; any bytes are a value of it.
    (written == size).then(|| unsafe { info.assume_init() })
}

/// A name in a field of fixed length. A process chooses its name itself.
fn name(field: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = field
        .iter()
        .map(|byte| byte.cast_unsigned())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path of a process's program; none for a zombie, or when the file is gone.
pub fn path(pid: u32) -> Option<PathBuf> {
    let mut buffer = vec![0_u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
    // SAFETY: writes at most the buffer's length to it.
    let written = unsafe {
        libc::proc_pidpath(
            c_int::try_from(pid).ok()?,
            buffer.as_mut_ptr().cast(),
            buffer.len() as u32,
        )
    };
    let path = buffer
        .get(..usize::try_from(written).ok()?)
        .filter(|path| !path.is_empty())?;
    Some(OsStr::from_bytes(path).into())
}

/// The arguments of a process, the program's name first; none where they may not be read.
pub fn arguments_of(pid: u32) -> Option<Vec<String>> {
    // This sysctl does not tell its size: all of it fits in kern.argmax.
    let mut length = usize::try_from(super::number(&sysctl(c"kern.argmax").ok()?, 0)?).ok()?;
    let mut block = vec![0_u8; length];
    let mut mib = [
        libc::CTL_KERN,
        libc::KERN_PROCARGS2,
        c_int::try_from(pid).ok()?,
    ];
    // SAFETY: three numbers; writes at most `length` bytes to the block.
    let result = unsafe {
        libc::sysctl(
            mib.as_mut_ptr(),
            3,
            block.as_mut_ptr().cast(),
            &mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    match result {
        0 => arguments::parse(block.get(..length)?),
        _ => None,
    }
}

/// The sockets that a process has open, each as [`fdinfo`] reads it; none where that may not be
/// seen, or it is gone.
pub fn sockets(pid: u32) -> Option<Vec<[u8; fdinfo::SIZE]>> {
    let number = c_int::try_from(pid).ok()?;
    let found = list(|buffer, length| {
        // SAFETY: writes at most `length` bytes to `buffer`, or tells how many there are where that
        // is null.
        unsafe { libc::proc_pidinfo(number, libc::PROC_PIDLISTFDS, 0, buffer, length) }
    });
    // The answer is the same for a process without descriptors and for one that may not be looked
    // into: `full` tells them apart.
    if found.is_empty() {
        return full(pid).filter(|info| !info.zombie).map(|_| Vec::new());
    }
    // `struct proc_fdinfo`: the descriptor and what it is.
    let sockets = found
        .chunks_exact(8)
        .filter(|entry| super::number(entry, 4) == Some(libc::PROX_FDTYPE_SOCKET.cast_unsigned()));
    Some(
        sockets
            .filter_map(|entry| socket(number, super::number(entry, 0)?.cast_signed()))
            .collect(),
    )
}

fn socket(pid: c_int, fd: c_int) -> Option<[u8; fdinfo::SIZE]> {
    let mut info = [0; fdinfo::SIZE];
    // SAFETY: writes at most the buffer's length to it.
    let written = unsafe {
        libc::proc_pidfdinfo(
            pid,
            fd,
            FD_SOCKET_INFO,
            info.as_mut_ptr().cast(),
            fdinfo::SIZE as c_int,
        )
    };
    // Another size would be another layout.
    (usize::try_from(written) == Ok(fdinfo::SIZE)).then_some(info)
}

//! The heap of this process.

/// Gives free memory back to the system. glibc keeps what lies between two pieces in use until it is
/// told; other allocators do so by themselves.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn trim() {
    #![allow(unsafe_code, reason = "nix has no wrapper for it")]
    // SAFETY: malloc_trim touches only what is free, and may be called on any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Gives free memory back to the system.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim() {}

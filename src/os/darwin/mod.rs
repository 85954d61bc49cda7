//! Processes and sockets on macOS: its calls behind safe functions, and parsers for its records.
//!
//! The parsers work on plain bytes and are tested on every system; the calls exist on macOS alone.
//!
//! The crate `libproc` cannot take their place: version 0.15 has neither the arguments of a process
//! nor the list of TCP sockets nor a sysctl by name, its socket records cannot be tested on Linux,
//! and its build script runs bindgen, which needs libclang and 11 more packages.

#[cfg(target_os = "macos")]
mod activation;
pub mod arguments;
#[cfg(target_os = "macos")]
pub mod calls;
pub mod fdinfo;
pub mod pcb;

#[cfg(target_os = "macos")]
pub use activation::activate_socket;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::accept_queue::AcceptQueue;
use super::record::{bytes, number};
use crate::config::Listen;

/// AF_INET and AF_INET6 of Darwin's sys/socket.h; the second is another number on Linux.
const INET: i32 = 2;
const INET6: i32 = 30;

/// INP_IPV4 of netinet/in_pcb.h, a bit of `inp_vflag`: the socket takes IPv4. An IPv6 socket that
/// is bound to all addresses has it as well, unless it has IPV6_V6ONLY.
const TAKES_IPV4: u8 = 0x1;

/// TCPS_LISTEN of netinet/tcp_fsm.h; TSI_S_LISTEN of sys/proc_info.h is the same.
const LISTENS: u32 = 1;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The kernel's handle of the socket, the same from each source: its address, made unreadable
    /// (VM_KERNEL_ADDRPERM).
    pub handle: u64,
    pub listen: Listen,
    /// An IPv6 socket that takes no IPv4 connections.
    pub v6only: bool,
    /// The user that created it, where the source tells.
    pub uid: Option<u32>,
    /// Its accept queue, where the source tells.
    pub queue: AcceptQueue,
}

/// The address that a socket of `family` has by its control block: port in network byte order, and
/// the 16 bytes of the union of `in_addr_4in6` and `in6_addr`, whose last four are an IPv4 address.
fn tcp_address(family: i32, port: [u8; 2], address: [u8; 16]) -> Option<Listen> {
    let ip: IpAddr = match family {
        INET => Ipv4Addr::new(address[12], address[13], address[14], address[15]).into(),
        INET6 => Ipv6Addr::from(address).into(),
        _ => return None,
    };
    Some(Listen::tcp(SocketAddr::new(ip, u16::from_be_bytes(port))))
}

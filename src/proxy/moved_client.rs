//! A client between two requests on its way to another process.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// Its socket, and what a proxy said of it on this connection: the next process cannot read that again.
#[derive(Debug)]
pub struct MovedClient {
    pub socket: OwnedFd,
    pub announced: Announcement,
}

/// Who a client is besides its socket's peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announcement {
    /// The peer itself.
    #[default]
    None,
    /// A client that the peer passes on, at this address where it is told.
    Client(Option<IpAddr>),
}

/// What stands for a client whose address is not told.
const UNTOLD: &str = "x";

impl Announcement {
    /// In letters and digits, as a name in the fd store takes them: nothing for the peer itself, else the
    /// address in hexadecimal digits.
    pub fn to_text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Client(None) => UNTOLD.to_owned(),
            Self::Client(Some(IpAddr::V4(address))) => format!("{:08x}", address.to_bits()),
            Self::Client(Some(IpAddr::V6(address))) => format!("{:032x}", address.to_bits()),
        }
    }

    /// Reads [`to_text`](Self::to_text). A text that is none stands for a client whose address is not told:
    /// it is not taken for the proxy.
    pub fn from_text(text: &str) -> Self {
        let address = match text.len() {
            0 => return Self::None,
            8 => u32::from_str_radix(text, 16)
                .ok()
                .map(|bits| IpAddr::V4(bits.into())),
            32 => u128::from_str_radix(text, 16)
                .ok()
                .map(|bits| IpAddr::V6(bits.into())),
            _ => None,
        };
        Self::Client(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_is_read_back() {
        for address in ["203.0.113.7", "0.0.0.1", "2001:db8::7", "::1"] {
            let announced = Announcement::Client(Some(address.parse().unwrap()));
            let text = announced.to_text();
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{text}"
            );
            assert_eq!(Announcement::from_text(&text), announced);
        }
        for other in [Announcement::None, Announcement::Client(None)] {
            assert_eq!(Announcement::from_text(&other.to_text()), other);
        }
        for text in ["zzzzzzzz", "1", "203.0.113.7"] {
            assert_eq!(Announcement::from_text(text), Announcement::Client(None));
        }
    }
}

//! Values with a syntax of their own: durations, listen addresses, and where the access log goes.

use std::fmt;
use std::mem::offset_of;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

use crate::text::words::as_text;

/// A length of time, written as `"300s"`, `"1500ms"`, `"5m"` or `"1h 30m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dur(pub Duration);

impl Dur {
    /// The longest that is taken, a hundred years: any clock can reach its end.
    pub const LONGEST: Duration = Duration::from_secs(876_000 * 3600);

    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl FromStr for Dur {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad =
            || format!("`{text}` is not a duration: write it like \"300s\", \"1500ms\" or \"5m\"");
        let parsed: SignedDuration = text.trim().parse().map_err(|_| bad())?;
        let duration = Duration::try_from(parsed).map_err(|_| bad())?;
        if duration > Self::LONGEST {
            return Err(format!("`{text}` is too long: write at most \"876000h\""));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if !self.0.subsec_nanos().is_multiple_of(1_000_000) {
            // A sum of units, down to nanoseconds.
            let exact = SignedDuration::try_from(self.0).map_err(|_| fmt::Error)?;
            write!(f, "{exact:#}")
        } else if millis == 0 {
            f.write_str("0s")
        } else if !millis.is_multiple_of(1000) {
            write!(f, "{millis}ms")
        } else if millis.is_multiple_of(3_600_000) {
            write!(f, "{}h", millis / 3_600_000)
        } else {
            write!(f, "{}s", millis / 1000)
        }
    }
}

impl fmt::Debug for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

as_text!(Dur as "Duration", {
    "type": "string",
    "description": "A length of time: \"300s\", \"1500ms\", \"5m\"",
    "examples": ["300s"],
});

/// Where the front door listens: a TCP address or a unix socket path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// A TCP address. An IPv4 address that is written as an IPv6 one (`[::ffff:127.0.0.1]`, as Java
    /// binds it) is the IPv4 address: its clients come by IPv4.
    pub fn tcp(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            ip if ip == address.ip() => Self::Tcp(address),
            ip => Self::Tcp(SocketAddr::new(ip, address.port())),
        }
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(addr) => Some(addr.port()),
            Self::Unix(_) => None,
        }
    }
}

/// The longest path that names a unix socket for everybody: an address has room for it and its end
/// (unix(7)).
const UNIX_PATH_MAX: usize =
    size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

fn unix_listener(path: &str) -> Result<Listen, String> {
    let shown = crate::text::escape::escape(path);
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(format!(
            "`unix:{shown}`: a unix listener needs an absolute path, as in \"unix:/run/app.sock\""
        ));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "`unix:{shown}`: the path of a unix listener has at most {UNIX_PATH_MAX} bytes, this one has {}",
            path.len()
        ));
    }
    Ok(Listen::Unix(path.into()))
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_listener(path);
        }
        if let Ok(addr) = text.parse() {
            return Ok(Self::tcp(addr));
        }
        if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
            let host = if text.starts_with(':') {
                Ipv4Addr::UNSPECIFIED
            } else {
                Ipv4Addr::LOCALHOST
            };
            return Ok(Self::Tcp((host, port).into()));
        }
        if let Some(("localhost", port)) = text.rsplit_once(':')
            && let Ok(port) = port.parse::<u16>()
        {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        let port = text.rsplit(':').next().unwrap_or(text);
        if !port.is_empty()
            && port.chars().all(|c| c.is_ascii_digit())
            && port.parse::<u16>().is_err()
        {
            return Err(format!(
                "`{text}` is not an address: a port is a number from 1 to 65535, as in \"8080\" or \"127.0.0.1:8080\""
            ));
        }
        Err(format!(
            "`{text}` is not an address: write \"127.0.0.1:18789\", \"[::1]:18789\", \"18789\" or \"unix:/run/app.sock\""
        ))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

as_text!(Listen as "Listen", {
    "type": "string",
    "description": "A listen address",
    "examples": ["127.0.0.1:18789", "unix:/run/app.sock"],
});

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    #[default]
    Off,
    /// The journal of systemd.
    Journal,
    /// Standard error, beside the gateway's own log.
    Stderr,
    /// The file at this absolute path.
    File(PathBuf),
}

impl FromStr for AccessLogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "journal" => Ok(Self::Journal),
            "stderr" => Ok(Self::Stderr),
            path if path.starts_with('/') => Ok(Self::File(path.into())),
            _ => Err(format!(
                "`{text}` is no place for the access log: write \"off\", \"journal\", \"stderr\" or an absolute path"
            )),
        }
    }
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Journal => f.write_str("journal"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

as_text!(AccessLogTarget as "AccessLogTarget", {
    "type": "string",
    "description": "Where the access log goes: \"off\", \"journal\", \"stderr\", or an absolute path",
    "examples": ["off", "journal", "/var/log/gateway/access.log"],
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_access_log_round_trip() {
        for text in ["off", "journal", "stderr", "/var/log/a.log"] {
            let target: AccessLogTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "on", "access.log", "Journal"] {
            assert!(text.parse::<AccessLogTarget>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_round_trip() {
        for (text, shown) in [
            ("300s", "300s"),
            ("1500ms", "1500ms"),
            ("5m", "300s"),
            ("1h", "1h"),
            ("0s", "0s"),
            ("1h 30m", "5400s"),
            ("1.0005s", "1s 500µs"),
            ("1ns", "1ns"),
            ("876000h", "876000h"),
        ] {
            let dur: Dur = text.parse().unwrap();
            assert_eq!(dur.to_string(), shown);
            assert_eq!(shown.parse::<Dur>().unwrap(), dur);
        }
        for text in ["", "5", "-3s", "fast", "876001h", "9223372036854775807s"] {
            assert!(text.parse::<Dur>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_round_trip() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("8080", "127.0.0.1:8080"),
            (":8080", "0.0.0.0:8080"),
            ("localhost:9", "127.0.0.1:9"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), shown);
            assert_eq!(shown.parse::<Listen>().unwrap(), listen);
        }
        for text in ["", "unix:a.sock", "example.org:80", "127.0.0.1", "99999"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        let longest = format!("unix:/{}", "a".repeat(UNIX_PATH_MAX - 1));
        assert!(longest.parse::<Listen>().is_ok());
        for text in ["unix:/", "unix:/run/", "unix:/a\0b", &format!("{longest}a")] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}

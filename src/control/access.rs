//! Who may do what over the control protocol, and the tokens by which clients of the front door show it.

use std::fmt;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// What a client may do; who may do more stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// Reads how things stand, and follows what happens.
    Reader,
    /// Does everything.
    Owner,
}

/// What a token opens; what opens more stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenGrant {
    /// The gateway's own pages: others than those for whom it is meant may know it.
    Pages,
    /// The control protocol, too.
    Control(Authority),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process on the control socket: root's, or our own user's.
    Local {
        uid: u32,
        /// 0 where the system does not tell.
        pid: i32,
    },
    /// A client of the front door that has a token.
    Remote {
        /// None for a unix listener.
        address: Option<IpAddr>,
        authority: Authority,
    },
}

impl Caller {
    pub fn authority(self) -> Authority {
        match self {
            Self::Local { .. } => Authority::Owner,
            Self::Remote { authority, .. } => authority,
        }
    }

    /// Its process; 0 where that is not known.
    pub fn pid(self) -> u32 {
        match self {
            Self::Local { pid, .. } => u32::try_from(pid).unwrap_or(0),
            Self::Remote { .. } => 0,
        }
    }

    /// Who holds something, in short.
    pub fn holder(self) -> String {
        match self {
            Self::Local { pid, .. } => format!("pid {pid}"),
            Self::Remote { .. } => self.to_string(),
        }
    }

    pub fn is_remote(self) -> bool {
        matches!(self, Self::Remote { .. })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => write!(f, "uid {uid} (pid {pid})"),
            Self::Remote { address, authority } => {
                let token = match authority {
                    Authority::Owner => "the token",
                    Authority::Reader => "the reader's token",
                };
                match address {
                    Some(address) => write!(f, "{token} (from {address})"),
                    None => write!(f, "{token} (from a unix socket)"),
                }
            }
        }
    }
}

/// The hash of a token: two of them are compared in a time that says nothing of either token, not
/// even how long it is.
type TokenHash = [u8; 32];

/// The tokens that open the gateway's own pages and the control protocol on its listeners.
#[derive(Debug, Default)]
pub struct AccessTokens(Vec<(TokenHash, TokenGrant)>);

impl AccessTokens {
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, TokenGrant)>) -> Self {
        let hashed = tokens.into_iter();
        Self(
            hashed
                .map(|(token, allows)| (hash(token), allows))
                .collect(),
        )
    }

    /// What this token opens; none when it is none of them. All of them are compared.
    pub fn access(&self, given: &str) -> Option<TokenGrant> {
        let given = hash(given);
        let allowed =
            |(token, allows): &(TokenHash, TokenGrant)| same(token, &given).then_some(*allows);
        self.0.iter().filter_map(allowed).max()
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares in constant time.
fn same(a: &TokenHash, b: &TokenHash) -> bool {
    let differences = a.iter().zip(b).map(|(a, b)| a ^ b);
    differences.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_allows_what_it_is_for_and_nothing_else_does() {
        let (owner, reader) = (
            TokenGrant::Control(Authority::Owner),
            TokenGrant::Control(Authority::Reader),
        );
        let tokens =
            AccessTokens::new([("own", owner), ("read", reader), ("see", TokenGrant::Pages)]);
        for (given, allowed) in [
            ("own", Some(owner)),
            ("read", Some(reader)),
            ("see", Some(TokenGrant::Pages)),
            ("", None),
            ("ow", None),
            ("own ", None),
        ] {
            assert_eq!(tokens.access(given), allowed, "{given}");
        }
        // One that stands in both files is no less than the owner's.
        let twice = AccessTokens::new([("a", reader), ("a", owner)]);
        assert_eq!(twice.access("a"), Some(owner));
        assert_eq!(AccessTokens::default().access(""), None);
        assert!(owner > reader && reader > TokenGrant::Pages);
    }
}

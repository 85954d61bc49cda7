//! How long a gateway is waited for that may never do what it was asked.

use std::future::pending;
use std::time::Duration;

use tokio::time::sleep;

use super::target::Target;
use super::{CliError, Exit};
use crate::config::Dur;
use crate::control::client::SocketPeer;

/// How long a gateway of another user is waited for. Its word for what it does is not believed, and
/// the longest honest restart, with large images and migrations, takes some minutes.
const OF_OTHERS: Duration = Duration::from_secs(3600);

/// The time that a gateway has for what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    uid: u32,
    /// None: without end.
    limit: Option<Duration>,
}

impl Patience {
    /// A gateway of this user and one of root have any time: they could take it in other ways.
    pub fn with(peer: SocketPeer) -> Self {
        let is_trusted = peer.uid == 0 || peer.is_this_user();
        Self {
            uid: peer.uid,
            limit: (!is_trusted).then_some(OF_OTHERS),
        }
    }

    /// The same after the time in milliseconds that its old work was given; 0 is without end.
    pub fn after(self, wait: Option<u64>) -> Self {
        let limit = match (self.limit, wait) {
            (Some(_), Some(0)) => None,
            (limit, wait) => {
                let wait = Duration::from_millis(wait.unwrap_or_default());
                limit.map(|limit| limit.saturating_add(wait))
            }
        };
        Self { limit, ..self }
    }

    /// Returns when its time is over.
    pub async fn is_over(self, target: &Target) -> CliError {
        let Some(limit) = self.limit else {
            return pending().await;
        };
        sleep(limit).await;
        let message = format!(
            "{} (uid {}) did not do it within {}; it may still go on with it",
            target.instance,
            self.uid,
            Dur(limit)
        );
        let error = Exit::StillBusy.error(message);
        error.with_help(target.next("status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_of_another_user_has_a_limit() {
        let of = |uid| Patience::with(SocketPeer { uid, process: None });
        assert_eq!(of(0).limit, None);
        assert_eq!(of(nix::unistd::geteuid().as_raw()).limit, None);
        let other = of(54_321);
        assert_eq!(other.limit, Some(OF_OTHERS));
        assert_eq!(other.after(None), other);
        assert_eq!(other.after(Some(0)).limit, None);
        let longer = OF_OTHERS + Duration::from_secs(2);
        assert_eq!(other.after(Some(2000)).limit, Some(longer));
        assert_eq!(other.after(Some(u64::MAX)).limit.map(|_| ()), Some(()));
    }
}

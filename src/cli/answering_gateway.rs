//! Which gateway it is that answers at a control socket: by what the kernel and the service manager
//! know, and not by what it says.

use super::Context;
use super::target::{self, named_by_path};
use crate::config::Env;
use crate::control::client::SocketPeer;
use crate::service::{self, Installed, ServiceProcess};

/// The gateway that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnsweringGateway {
    /// The main process of this installed service.
    Service(Installed, Box<ServiceProcess>),
    /// No service's process. What it says can give this user nothing that it lacks.
    OfThisUser,
    /// A process of another user, which no service manager vouches for.
    OfAnotherUser,
    /// It runs as the user of this service, which has another main process: a gateway that was
    /// started by hand, or a sidecar that took its place.
    BesideService(Installed, u32),
}

impl AnsweringGateway {
    /// Asks the service manager about the peer that answers for `instance`.
    pub async fn identify(ctx: &Context, instance: &str, peer: SocketPeer) -> Self {
        let env = Env::real();
        let mut units = service::installed(&env, target::scope(&ctx.global));
        let by_path = named_by_path(&ctx.global, &env).is_some();
        units.retain(|unit| unit.instance == instance && !by_path);
        let mut beside = None;
        for unit in units {
            let Ok(Some(process)) = ServiceProcess::of(&env, &unit).await else {
                continue;
            };
            let main = process.main_pid;
            if peer.is(main) {
                return Self::Service(unit, Box::new(process));
            }
            let user = process.user.map(|user| user.uid.as_raw());
            if main != 0 && user == Some(peer.uid) {
                beside = Some(Self::BesideService(unit, main));
            }
        }
        match beside {
            Some(beside) => beside,
            None if peer.is_this_user() => Self::OfThisUser,
            None => Self::OfAnotherUser,
        }
    }
}

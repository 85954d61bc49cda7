//! The way to a service manager over D-Bus, and what it says of a process.
//!
//! [`unit::facts_of`] and [`machine_stopping`] are for a gateway that asks about itself: they
//! answer within [`ANSWER`] or not at all. Installing and driving units is `service`, on top of
//! this.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::Env;
use crate::state::paths::Scope;

mod activation;
pub(crate) mod bus;
pub mod journal;
mod notify;
mod private;
mod properties;
pub mod unit;
pub mod words;

pub use activation::{PassedFd, claim, take_passed};
pub use notify::{CANNOT_LISTEN, Notifier, STANDING_BY, WAITING, WaitsFor};
pub use properties::Properties;
pub use unit::UnitFacts;
use words::{SystemState, Word};

/// How long a gateway waits for an answer about itself. A manager answers in a millisecond; at boot
/// and at shutdown, when it is busy or the bus is going down, the gateway must not wait for it: 2 s
/// are what systemctl's users take for slow.
pub const ANSWER: Duration = Duration::from_secs(2);

/// Whether the machine, or the manager of this user, goes down. False where nobody answers: a stop
/// has its own budget then.
pub async fn machine_stopping() -> bool {
    let (system, user) = tokio::join!(stopping(Scope::System), stopping(Scope::User));
    system || user
}

async fn stopping(scope: Scope) -> bool {
    let asked = async {
        let connection = bus::connect(scope, &Env::real()).await.ok()?;
        let state = bus::SystemdManagerProxy::new(&connection)
            .await
            .ok()?
            .system_state()
            .await
            .ok()?;
        Some(Word::from(state) == SystemState::Stopping)
    };
    timeout(ANSWER, asked).await.ok().flatten().unwrap_or(false)
}

//! `[recovery] on_give_up`: a command that alerts people when the gateway cannot recover by itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::context::GatewayContext;
use crate::sidecar::oneshot;
use crate::state::terms::RungName;
use crate::text::log::SidecarLog;

/// How long the command may run: enough to send a mail or to call a web hook, retries included. A
/// command that hangs is killed.
const LONGEST: Duration = Duration::from_secs(30);

/// The name of the command's output in the log.
const NAME: &str = "on_give_up";

/// What people are alerted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// A rung of the recovery ladder was reached.
    Rung(RungName),
    /// A sidecar dies again and again.
    SidecarFailing,
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rung(rung) => rung.fmt(f),
            Self::SidecarFailing => f.write_str("sidecar-failing"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub kind: AlertKind,
    /// Why, in a sentence.
    pub reason: String,
}

impl Alert {
    /// The environment of the command.
    fn variables(&self, instance: &str, reason: String) -> [(String, String); 3] {
        [
            ("GATEWAY_ALERT_INSTANCE".to_owned(), instance.to_owned()),
            ("GATEWAY_ALERT_RUNG".to_owned(), self.kind.to_string()),
            ("GATEWAY_ALERT_REASON".to_owned(), reason),
        ]
    }
}

/// Runs the command, if there is one, in a task of its own, for which nothing waits.
pub fn run(context: &Arc<GatewayContext>, command: &[String], alert: &Alert) {
    if command.is_empty() {
        return;
    }
    context.redactor.learn_command(command);
    let reason = context.redactor.text(&alert.reason);
    let variables = alert.variables(&context.front.instance, reason);
    let (context, command, kind) = (Arc::clone(context), command.to_owned(), alert.kind);
    let log = SidecarLog::new(NAME, context.redactor.clone());
    tokio::spawn(async move {
        let shown = context.redactor.command(&command);
        info!("[gateway] {kind}: running on_give_up: {shown}");
        if let Err(why) = oneshot(&command, &context.inherited, &variables, log, LONGEST).await {
            warn!("[gateway] on_give_up {}", context.redactor.text(&why));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_learns_who_what_and_why() {
        let alert = Alert {
            kind: AlertKind::Rung(RungName::SafeMode),
            reason: "unused".to_owned(),
        };
        let expected = [
            ("GATEWAY_ALERT_INSTANCE", "a"),
            ("GATEWAY_ALERT_RUNG", "safe-mode"),
            ("GATEWAY_ALERT_REASON", "9 starts"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(alert.variables("a", "9 starts".to_owned()), expected);
    }
}

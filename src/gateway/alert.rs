//! `[recovery] on_give_up`: a command that tells somebody outside that the gateway helps itself no
//! further.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::context::GatewayContext;
use crate::sidecar::oneshot;
use crate::text::log::SidecarLog;

/// Time for a mail to be handed over or a web hook to be called, retries included; a command that
/// hangs must not stay.
const LONGEST: Duration = Duration::from_secs(30);

/// Under which name its output stands in the log.
const NAME: &str = "on_give_up";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// `safe-mode` or `last-good`.
    pub rung: &'static str,
    /// Why, in a sentence.
    pub reason: String,
}

impl Alert {
    /// What the command finds in its environment.
    fn variables(&self, instance: &str, reason: String) -> Vec<(String, String)> {
        let pairs = [
            ("INSTANCE", instance.to_owned()),
            ("RUNG", self.rung.to_owned()),
            ("REASON", reason),
        ];
        pairs
            .into_iter()
            .map(|(name, value)| (format!("GATEWAY_ALERT_{name}"), value))
            .collect()
    }
}

/// Runs the command, if there is one, in a task of its own: nothing waits for it. On the gateway's
/// main thread.
pub fn run(context: &Arc<GatewayContext>, command: &[String], alert: &Alert) {
    if command.is_empty() {
        return;
    }
    context.redactor.learn_command(command);
    let variables = alert.variables(
        &context.front.instance,
        context.redactor.text(&alert.reason),
    );
    let (context, command, rung) = (Arc::clone(context), command.to_owned(), alert.rung);
    let log = SidecarLog::new(NAME, context.redactor.clone());
    tokio::spawn(async move {
        let shown = context.redactor.command(&command);
        info!("[gateway] {rung}: running on_give_up: {shown}");
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
            rung: "safe-mode",
            reason: "unused".to_owned(),
        };
        let expected = [
            ("INSTANCE", "a"),
            ("RUNG", "safe-mode"),
            ("REASON", "9 starts"),
        ];
        let expected =
            expected.map(|(name, value)| (format!("GATEWAY_ALERT_{name}"), value.to_owned()));
        assert_eq!(alert.variables("a", "9 starts".to_owned()), expected);
    }
}

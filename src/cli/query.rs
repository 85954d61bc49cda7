//! Asking a gateway for its status.

use std::time::Duration;

use tokio::time::timeout;

use super::error::{CliError, Exit};
use super::target::Target;
use crate::control::client::Client;
use crate::control::protocol::{Method, Status};

/// A status needs no work; a gateway that takes longer is stopped or stuck.
pub const STATUS_TIME: Duration = Duration::from_secs(5);

/// The status of a gateway, over a connection of its own.
pub async fn status_now(target: &Target) -> Result<Status, CliError> {
    status_of(target, &mut target.connect().await?).await
}

/// Asks for a status; a gateway that accepts but does not answer is stopped or stuck.
pub async fn status_of(target: &Target, client: &mut Client) -> Result<Status, CliError> {
    match timeout(STATUS_TIME, client.call::<Status>(&Method::Status, |_| ())).await {
        Ok(answer) => answer.map_err(|error| target.call_failed(error)),
        Err(_) => Err(Exit::Failed
            .error(format!(
                "{} accepts connections at {} but does not answer: it is stopped or stuck",
                target.instance,
                target.control.display()
            ))
            .with_help(format!("gatewayctl logs{}", target.flags))),
    }
}

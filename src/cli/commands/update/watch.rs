//! After an update: the new program must serve, and go on serving.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::target::Target;
use crate::cli::{CliError, Exit};
use crate::control::protocol::Status;
use crate::text::words::Words;

/// A new program that serves for this long is kept: one that crashes at its first requests has done
/// so by then.
pub const STABLE: Duration = Duration::from_secs(10);

/// How long a gateway whose program was put back may take to answer: a supervisor starts it again
/// after 100 ms, and the front door and control socket are open before its sidecars are.
const ANSWERS: Duration = Duration::from_secs(10);

/// How often it is asked for its status: it cannot be seen when a socket begins to be answered.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Waits until the process after that of `before` has served for `stable`.
///
/// # Errors
/// [`Exit::Failed`] when there is no other process, when it ends, or when it serves worse than
/// before.
pub async fn stays(target: &Target, before: &Status, stable: Duration) -> Result<Status, CliError> {
    let logs = |error: CliError| error.with_help(target.next("logs"));
    let failed = |message: String| Err(logs(Exit::Failed.error(message)));
    let begun = Instant::now();
    let (mut client, first) = target.connect_and_ask().await.map_err(logs)?;
    let pid = first.pid;
    if pid == before.pid {
        return failed(format!(
            "pid {pid} is still the process of before: the new program was not started"
        ));
    }
    tokio::select! {
        // It closes its connections when it ends.
        () = client.closed() => {
            let after = begun.elapsed().as_secs();
            return failed(format!("pid {pid}, which ran the new program, ended after {after} s"));
        }
        () = sleep_until(begun + stable) => {}
    }
    let last = target.status().await.map_err(logs)?;
    if last.pid != pid {
        return failed(format!("pid {pid}, which ran the new program, is gone"));
    }
    if !last.stage.serves() && last.stage != before.stage {
        let (stage, detail) = (last.stage.in_words(), last.detail);
        return failed(format!(
            "with the new program the gateway is {stage}: {detail}"
        ));
    }
    Ok(last)
}

/// The gateway that answers, if one does in time.
pub async fn answers(target: &Target) -> Option<Status> {
    let looking = async {
        loop {
            if let Ok(status) = target.status().await {
                return status;
            }
            sleep(ASK_EVERY).await;
        }
    };
    timeout(ANSWERS, looking).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Context;
    use crate::control::fake_gateway::{self, FakeGateway};

    const SOON: Duration = Duration::from_millis(50);

    fn target(double: &FakeGateway) -> Target {
        Context::quiet(&double.state).target().unwrap()
    }

    /// A gateway whose process is another than that of the double.
    fn before() -> Status {
        Status {
            pid: 1,
            ..fake_gateway::status()
        }
    }

    #[tokio::test]
    async fn another_process_that_stays_is_what_is_wanted() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        assert_eq!(
            stays(&target(&double), &before(), SOON).await.unwrap().pid,
            fake_gateway::status().pid
        );
        let same = stays(&target(&double), &fake_gateway::status(), SOON)
            .await
            .unwrap_err();
        assert!(
            same.message.contains("still the process of before"),
            "{same:?}"
        );
    }

    #[tokio::test]
    async fn one_that_ends_is_not() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let target = target(&double);
        let before = before();
        let (gone, ()) = tokio::join!(stays(&target, &before, Duration::from_secs(60)), async {
            double.asked_for(1).await;
            double.end();
        });
        assert!(gone.unwrap_err().message.contains("ended after 0 s"));
    }
}

//! After an update: the new program must serve, and go on serving.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::target::Target;
use crate::cli::{CliError, Exit};
use crate::control::protocol::Status;
use crate::os::process::PidFd;
use crate::text::words::Words;

/// A new program that serves for this long is kept: one that crashes at its first requests has done
/// so by then.
pub const STABLE: Duration = Duration::from_secs(10);

/// How long a gateway whose program was put back may take to answer: a supervisor starts it again
/// after 100 ms, and the front door and control socket are open before its sidecars are.
const ANSWERS: Duration = Duration::from_secs(10);

/// How often it is asked for its status: it cannot be seen when a socket begins to be answered.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How long a process whose connection broke may take to be gone.
const GOING: Duration = Duration::from_secs(1);

/// The process that runs the new program, where the restart told which one that is.
struct NewProcess {
    pid: u32,
    /// None when it is gone already, or in another namespace.
    open: Option<PidFd>,
}

impl NewProcess {
    fn open(pid: u32) -> Self {
        let open = PidFd::open(pid).ok();
        Self { pid, open }
    }

    async fn ended(&self) {
        if let Some(process) = &self.open {
            process.ended().wait().await;
        }
    }
}

/// Waits until the process after that of `before`, `started` where that is known, has served for
/// `stable`.
///
/// # Errors
/// [`Exit::Failed`] when there is no other process, when it ends, or when it serves worse than
/// before.
pub async fn stays(
    target: &Target,
    before: &Status,
    started: Option<u32>,
    stable: Duration,
) -> Result<Status, CliError> {
    let logs = |error: CliError| error.with_help(target.next("logs"));
    let failed = |message: String| Err(logs(Exit::Failed.error(message)));
    let begun = Instant::now();
    let ended = |pid: u32| {
        let after = begun.elapsed().as_secs();
        failed(format!(
            "pid {pid}, which ran the new program, ended after {after} s"
        ))
    };
    let started = started.map(NewProcess::open);
    let asked = target.connect_and_ask().await;
    if let Some(new) = &started
        && !matches!(&asked, Ok((_, first)) if first.pid == new.pid)
        && timeout(GOING, new.ended()).await.is_ok()
    {
        // Whatever answers now, if anything does, is not what was started.
        return ended(new.pid);
    }
    let (mut client, first) = asked.map_err(logs)?;
    let pid = first.pid;
    if pid == before.pid {
        return failed(format!(
            "pid {pid} is still the process of before: the new program was not started"
        ));
    }
    let new_ended = async {
        match started.as_ref().and_then(|new| new.open.as_ref()) {
            Some(process) => process.ended().wait().await,
            // It closes its connections when it ends.
            // What sends anything else is no gateway that goes on, either.
            None => drop(client.closed().await),
        }
    };
    tokio::select! {
        () = new_ended => return ended(pid),
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
            stays(&target(&double), &before(), None, SOON)
                .await
                .unwrap()
                .pid,
            fake_gateway::status().pid
        );
        let same = stays(&target(&double), &fake_gateway::status(), None, SOON)
            .await
            .unwrap_err();
        assert!(
            same.message.contains("still the process of before"),
            "{same:?}"
        );
    }

    #[tokio::test]
    async fn one_that_ended_before_it_could_be_asked_is_not_mixed_up_with_what_answers() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let new = Some(child.id());
        let gone = stays(&target(&double), &fake_gateway::status(), new, SOON).await;
        let message = gone.unwrap_err().message;
        let expected = format!("pid {}, which ran the new program, ended", child.id());
        assert!(message.contains(&expected), "{message}");
    }

    #[tokio::test]
    async fn one_that_ends_is_not() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let target = target(&double);
        let before = before();
        let (gone, ()) = tokio::join!(
            stays(&target, &before, None, Duration::from_secs(60)),
            async {
                double.asked_for(1).await;
                double.end();
            }
        );
        assert!(gone.unwrap_err().message.contains("ended after 0 s"));
    }
}

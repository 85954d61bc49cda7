//! A command that is run once to its end, its output in the log.

use std::sync::Arc;
use std::time::Duration;

use super::Inherited;
use super::output::SidecarOutput;
use super::process::{ChildProcess, not_loaded};
use super::runner::LAST_OUTPUT;
use crate::config::{Dur, StdinMode};
use crate::text::log::SidecarLog;

/// How long it may take to end after SIGTERM, before SIGKILL.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// Runs `argv` with the inherited environment and `variables` over it, for at most `limit`.
///
/// # Errors
/// Why it did not start, or how it ended, in words, when not with code 0.
pub async fn oneshot(
    argv: &[String],
    inherited: &Arc<Inherited>,
    variables: &[(String, String)],
    log: SidecarLog,
    limit: Duration,
) -> Result<(), String> {
    let spawn = ChildProcess::spawn(argv, None, inherited, variables, StdinMode::Null);
    let (mut process, pipes) = match tokio::time::timeout(limit, spawn).await {
        Ok(spawned) => spawned?,
        Err(_) => return Err(not_loaded(argv, limit)),
    };
    let readers = SidecarOutput::new(Some(log), Arc::default()).read_all(pipes);
    let in_time = tokio::time::timeout(limit, process.ended()).await.is_ok();
    let end = if in_time {
        process.reap().await
    } else {
        process.stop(LAST_MOMENTS).await
    };
    let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
    match end.success() {
        _ if !in_time => Err(format!("did not end in {} and was stopped", Dur(limit))),
        true => Ok(()),
        false => Err(end.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::Stat;
    use crate::text::redact::Redactor;

    async fn run(script: &str, limit: Duration) -> Result<(), String> {
        let inherited = Arc::new(Inherited {
            environment: std::env::vars_os().collect(),
            set: Vec::new(),
            open_files: None,
            directory: None,
        });
        let argv = ["sh", "-c", script].map(str::to_owned);
        let variables = [("WHY".to_owned(), "x".to_owned())];
        let log = SidecarLog::new("once", Redactor::default());
        oneshot(&argv, &inherited, &variables, log, limit).await
    }

    #[tokio::test]
    async fn it_runs_to_its_end_and_no_longer_than_it_may() {
        let long = Duration::from_secs(30);
        assert_eq!(run("echo hello; test \"$WHY\" = x", long).await, Ok(()));
        assert_eq!(
            run("exit 3", long).await,
            Err("exited with code 3".to_owned())
        );
        let why = run("exec sleep 60", Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(why, "did not end in 50ms and was stopped");
    }

    #[tokio::test]
    async fn what_it_has_started_in_its_group_ends_with_it_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("pid");
        let mut beside = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let script = format!("sleep 600 & echo $! > {}", place.display());
        assert_eq!(run(&script, Duration::from_secs(30)).await, Ok(()));
        let pid: u32 = std::fs::read_to_string(place)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let lives = |pid| Stat::read(pid).is_some_and(|stat| !stat.is_dead());
        while lives(pid) {
            tokio::task::yield_now().await;
        }
        assert!(lives(beside.id()));
        beside.kill().unwrap();
        beside.wait().unwrap();
    }
}

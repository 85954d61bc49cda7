//! `gatewayctl inhibit`: a command whose end restarts and stops wait for.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::InhibitArgs;
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::client::Client;
use crate::control::protocol::{DrainEvent, EventName, InhibitParams, Lease, Method};
use crate::os::process::PidFd;
use crate::text::human::span;

/// What shells say of a command that a signal ended: this and the signal's number.
const BY_SIGNAL: i32 = 128;

/// What shells say of a command that is not there, and of one that cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs a command while holding a lease; its exit code is ours.
///
/// # Errors
/// When no gateway gives a lease; the command is not run then.
pub async fn inhibit(ctx: &Context, args: &InhibitArgs) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let mut client = target.connect().await?;
    let ttl_ms = args
        .ttl
        .map(|ttl| u64::try_from(ttl.0.as_millis()).unwrap_or(u64::MAX));
    let method = Method::Inhibit(InhibitParams {
        why: args.why.clone(),
        ttl_ms,
    });
    client
        .call::<Lease>(&method, |_| ())
        .await
        .map_err(|error| target.call_failed(error))?;
    let (mut child, process) = match start(&args.command) {
        Ok(started) => started,
        Err(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            };
            let name = args
                .command
                .first()
                .map(|word| word.display().to_string())
                .unwrap_or_default();
            return Err(Exit::Command(code).error(format!("cannot run {name}: {error}")));
        }
    };
    let status = tokio::select! {
        status = run(&mut child, &process) => status,
        never = follow(ctx, &target, client) => match never {},
    };
    status
        .map(code)
        .map_err(|error| Exit::Failed.error(format!("cannot wait for the command: {error}")))
}

fn start(command: &[std::ffi::OsString]) -> std::io::Result<(Child, PidFd)> {
    let Some((program, args)) = command.split_first() else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    let child = Command::new(program).args(args).spawn()?;
    // Not reaped yet, so the pid is its own.
    let process = PidFd::open(child.id())?;
    Ok((child, process))
}

/// Waits for the command, and passes on what asks it to end.
async fn run(child: &mut Child, process: &PidFd) -> std::io::Result<ExitStatus> {
    let ended = process.ended()?;
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    loop {
        let passed = tokio::select! {
            () = ended.wait() => return child.wait(),
            _ = int.recv() => Signal::SIGINT,
            _ = term.recv() => Signal::SIGTERM,
        };
        // Ctrl-C reaches the command by itself; twice could mean something else to it.
        if passed == Signal::SIGTERM || !in_foreground() {
            // An error means that it has just ended.
            let _ = process.signal(passed);
        }
    }
}

/// Whether we are the foreground job of a terminal: then it signals the command as well. Fields 5
/// and 8 of proc(5) stat.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields
        .get(2)
        .is_some_and(|group| fields.get(5) == Some(group))
}

/// Says what the gateway tells the holder of a lease. The command goes on whatever it is.
async fn follow(ctx: &Context, target: &Target, mut client: Client) -> std::convert::Infallible {
    // Not an error: a gateway that goes away closes it in any order.
    while let Ok(Some((event, payload))) = client.event().await {
        if let Some(text) = said(&target.instance, event, payload) {
            ctx.ui.progress(&text);
        }
    }
    ctx.ui.progress(&format!(
        "{} ended or closed the connection; nothing waits for this command any more",
        target.instance
    ));
    // The lease must not be taken from anybody else than the one that gave it: the work belongs to
    // that process.
    std::future::pending().await
}

fn said(instance: &str, event: EventName, payload: Value) -> Option<String> {
    match event {
        EventName::Drain => {
            let DrainEvent { cause, left_ms } = serde_json::from_value(payload).ok()?;
            let limit = left_ms.map_or(String::new(), |left| {
                format!(", for {} at most", span(left))
            });
            Some(format!(
                "a {cause} of {instance} waits for this command{limit}"
            ))
        }
        EventName::Deadline => Some(format!("{instance} no longer waits for this command")),
        EventName::Released => Some(format!(
            "--ttl is over: {instance} no longer waits for this command"
        )),
        EventName::Progress => None,
    }
}

fn code(status: ExitStatus) -> Exit {
    let code = status
        .code()
        .unwrap_or_else(|| BY_SIGNAL + status.signal().unwrap_or(0));
    Exit::Command(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), Exit::Command(7));
        assert_eq!(code(ExitStatus::from_raw(15)), Exit::Command(143));
    }

    #[test]
    fn events_in_words() {
        let drain = serde_json::json!({"cause": "restart", "leftMs": 300_000});
        assert_eq!(
            said("a", EventName::Drain, drain).unwrap(),
            "a restart of a waits for this command, for 5 min 0 s at most"
        );
        assert_eq!(
            said("a", EventName::Drain, serde_json::json!({"cause": "stop"})).unwrap(),
            "a stop of a waits for this command"
        );
        assert_eq!(said("a", EventName::Progress, Value::Null), None);
        assert!("news".parse::<EventName>().is_err());
    }
}

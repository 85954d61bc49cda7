//! `gatewayctl inhibit`: runs a command; restarts and stops wait until it has ended.

use std::ffi::OsString;
use std::io::ErrorKind;
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

/// A shell's exit code for a command that a signal ended is this plus the signal's number.
const BY_SIGNAL: i32 = 128;

/// A shell's exit codes for a command that is not found, and for one that cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs a command while holding a lease, and ends with its exit code.
///
/// # Errors
/// When no gateway gives a lease; the command is not run then.
pub async fn inhibit(ctx: &Context, args: &InhibitArgs) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let mut client = target.connect().await?;
    let method = Method::Inhibit(InhibitParams {
        why: args.why.clone(),
        ttl_ms: args.ttl.map(|ttl| ttl.0.as_millis() as u64),
    });
    target.ask::<Lease>(&mut client, &method, |_| ()).await?;
    let (mut child, process) = start(&args.command).map_err(|error| {
        let code = match error.kind() {
            ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let name = args.command.first().cloned().unwrap_or_default();
        Exit::Command(code).error(format!("cannot run {}: {error}", name.display()))
    })?;
    let status = tokio::select! {
        status = run(&mut child, &process) => status,
        never = follow(ctx, &target, client) => match never {},
    };
    status
        .map(code)
        .map_err(|error| Exit::Failed.error(format!("cannot wait for the command: {error}")))
}

fn start(command: &[OsString]) -> std::io::Result<(Child, PidFd)> {
    let (program, args) = command.split_first().ok_or(ErrorKind::NotFound)?;
    let child = Command::new(program).args(args).spawn()?;
    // Not reaped yet, so the pid is still its own.
    let process = PidFd::open(child.id())?;
    Ok((child, process))
}

/// Waits for the command, and passes on SIGINT and SIGTERM.
async fn run(child: &mut Child, process: &PidFd) -> std::io::Result<ExitStatus> {
    let ended = process.ended();
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

/// Whether this is the foreground job of a terminal, which then signals the command as well: the
/// process group and that of the terminal (fields 5 and 8 of proc(5) stat) are the same.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_whitespace().skip(2);
    let group = fields.next();
    group.is_some() && group == fields.nth(2)
}

/// Prints what the gateway reports to the holder of a lease. The command goes on.
async fn follow(ctx: &Context, target: &Target, mut client: Client) -> std::convert::Infallible {
    // An error is also an end: a gateway that exits does not close the connection in order.
    while let Ok(Some((event, payload))) = client.event().await {
        if let Some(text) = said(&target.instance, event, payload) {
            ctx.ui.progress(&text);
        }
    }
    ctx.ui.progress(&format!(
        "{} ended or closed the connection; nothing waits for this command any more",
        target.instance
    ));
    // No lease is taken from a successor: the work belongs to the process that gave this one.
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
        EventName::Progress
        | EventName::State
        | EventName::Sidecar
        | EventName::Restart
        | EventName::Draining
        | EventName::Log
        | EventName::Shutdown => None,
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

//! Waiting until the front door says that it is ready.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::error::ServiceError;
use super::layout::Installed;
use super::manager::UnitState;
use super::report::log_command;
use crate::config::{Config, Listen};
use crate::os::port::{self, Depth, Holder, UNSEEN};
use crate::systemd::WaitsFor;

/// After systemd calls the unit started, its first generation is ready or being tried again: time
/// for a few tries of a slow server.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Between two questions; there is no event for "ready after a failed first try" that reaches
/// another process.
const PAUSE: Duration = Duration::from_millis(20);

/// One question: it goes over loopback to a process that answers from memory.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// What `/readyz` says.
enum ReadyzAnswer {
    Ready,
    NotYet(String),
    /// Somebody else answers there, as with `health_paths = false`: then systemd's word stands.
    Unknown,
}

/// Waits until `/readyz` answers 200 at the first listener; `state` asks what the service is doing.
///
/// # Errors
/// Kind StillStarting when the limit ends, Failed when the service ends meanwhile.
pub(super) async fn wait(
    state: impl AsyncFn() -> Result<UnitState, ServiceError>,
    unit: &Installed,
    config: &Config,
) -> Result<(), ServiceError> {
    // At an address that is not there yet, nobody can ask: then systemd's word stands.
    let Some(listen) = config
        .gateway
        .listen
        .iter()
        .filter(|listen| !config.gateway.proxy_protocol.contains(listen))
        .find(|listen| can_be_asked(listen))
        .filter(|_| config.gateway.health_paths)
    else {
        return Ok(());
    };
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let state = state().await?;
        refuse_waiting(unit, &state, config)?;
        let why = match timeout(ASK_LIMIT, ask(listen)).await {
            Ok(Ok(ReadyzAnswer::Ready | ReadyzAnswer::Unknown)) => return Ok(()),
            // The service manager knows the cause, which everybody else may not.
            Ok(Ok(ReadyzAnswer::NotYet(_))) if !state.status_text.is_empty() => {
                state.status_text.clone()
            }
            Ok(Ok(ReadyzAnswer::NotYet(why))) => why,
            Ok(Err(error)) => format!("{listen}: {error}"),
            Err(_) => format!("{listen} does not answer"),
        };
        if state.is_down() {
            return Err(ServiceError::failed(format!(
                "{} ended before it was ready ({}): {why}",
                unit.unit, state.result
            ))
            .next(log_command(unit)));
        }
        if Instant::now() >= deadline {
            return Err(ServiceError::still_starting(format!(
                "{} runs, but is not ready after {} s and goes on trying: {why}",
                unit.unit,
                READY_LIMIT.as_secs()
            ))
            .next(log_command(unit)));
        }
        sleep(PAUSE).await;
    }
}

fn can_be_asked(listen: &Listen) -> bool {
    match listen {
        Listen::Unix(_) => true,
        Listen::Tcp(address) => address.port() != 0 && port::is_here(address.ip()),
    }
}

/// Refuses to call a service ready that waits for its address: if somebody answers there, it is
/// another process.
///
/// # Errors
/// Kind Refused with whom or what it waits for.
pub(super) fn refuse_waiting(
    unit: &Installed,
    state: &UnitState,
    config: &Config,
) -> Result<(), ServiceError> {
    let Some(waits) = state.waits_for() else {
        return Ok(());
    };
    // The service's own user may not see who it is.
    let seen = match waits {
        WaitsFor::Address => holder(config).map(|holder| format!(" ({holder})")),
        WaitsFor::Means | WaitsFor::Owner => None,
    };
    let text = format!(
        "{} runs, and is {}{}",
        unit.unit,
        state.status_text,
        seen.filter(|_| state.status_text.contains(UNSEEN))
            .unwrap_or_default()
    );
    Err(ServiceError::refused(text).next(ways_on(unit, waits).join("\n")))
}

/// Who is in the way of the service, as this process sees it.
fn holder(config: &Config) -> Option<String> {
    let listen = config.gateway.listen.iter();
    let mut holders = listen.flat_map(|listen| port::who(listen, &[], Depth::First));
    holders.find_map(|holder| match holder {
        Holder::Seen(process) if !process.is_service_manager() => Some(process.called()),
        _ => None,
    })
}

/// The commands that lead on where a service waits.
pub fn ways_on(unit: &Installed, waits: WaitsFor) -> Vec<String> {
    let command = |what: &str| format!("gatewayctl {what} --instance {}", unit.instance);
    match waits {
        WaitsFor::Address | WaitsFor::Owner => vec![
            command("clean") + "   (ends what is stale, and says who is not)",
            command("restart --force")
                + "   (asks a gateway that was started by hand to stop, too)",
        ],
        WaitsFor::Means => vec![
            command("logs") + "   (it listens as soon as it can; nothing needs to be restarted)",
        ],
    }
}

async fn ask(listen: &Listen) -> std::io::Result<ReadyzAnswer> {
    match listen {
        Listen::Tcp(address) => {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            get_readyz(TcpStream::connect(address).await?).await
        }
        Listen::Unix(path) => get_readyz(UnixStream::connect(path).await?).await,
    }
}

async fn get_readyz(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<ReadyzAnswer> {
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).unwrap_or_default();
    let body = text
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body)
        .trim();
    Ok(match status {
        "200" => ReadyzAnswer::Ready,
        "503" => ReadyzAnswer::NotYet(body.to_owned()),
        "" => return Err(std::io::Error::other("closed without an answer")),
        _ => ReadyzAnswer::Unknown,
    })
}

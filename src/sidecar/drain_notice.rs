//! The drain notice: tells a sidecar that asked for it to finish its work, by a signal or by a
//! request to a path of its own.

use nix::sys::signal::Signal;

use super::handle::Sidecar;
use super::readiness::{ANSWER, status_of};
use super::state::SidecarState;
use crate::config::{DrainNotice, NoticeSignal};
use crate::os::port::Server;
use crate::os::process::{PidFd, living_in_group};

/// Why a sidecar did not get a notice.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// The signal was not sent.
    #[error("cannot be sent SIG{0}: {1}")]
    Signal(NoticeSignal, std::io::Error),
    /// The request was not answered.
    #[error("does not take POST {0}: {1}")]
    Unreached(String, std::io::Error),
    /// It was answered in time with something else than success.
    #[error("answered POST {0} with {1}")]
    Status(String, u16),
    /// It was not answered in time.
    #[error("did not answer POST {0} within 2 s")]
    Late(String),
}

/// Sends a notice to a sidecar that is ready; one that is not has nothing to finish.
///
/// # Errors
/// [`NoticeError`]; the drain goes on without.
pub async fn send(sidecar: &Sidecar, notice: &DrainNotice) -> Result<(), NoticeError> {
    let SidecarState::Ready { pid, server, .. } = sidecar.state() else {
        return Ok(());
    };
    match notice {
        DrainNotice::Signal(name) => {
            let failed = |error| NoticeError::Signal(*name, error);
            let process = PidFd::open(pid).map_err(failed)?;
            // A child is reaped only after its sidecar left this state, so the pid was its own when it
            // was opened; a process that took its place is one of its group.
            let own = server.at.pid == pid || living_in_group(server.at.pid).contains(&pid);
            match sidecar.state() {
                SidecarState::Ready { pid: same, .. } if same == pid && own => {
                    process.signal(number(*name)).map_err(failed)
                }
                _ => Ok(()),
            }
        }
        DrainNotice::Path(path) => match tokio::time::timeout(ANSWER, post(&server, path)).await {
            Ok(Ok(200..400)) => Ok(()),
            Ok(Ok(status)) => Err(NoticeError::Status(path.clone(), status)),
            Ok(Err(error)) => Err(NoticeError::Unreached(path.clone(), error)),
            Err(_) => Err(NoticeError::Late(path.clone())),
        },
    }
}

/// The signal of this name.
pub(super) fn number(name: NoticeSignal) -> Signal {
    match name {
        NoticeSignal::Hup => Signal::SIGHUP,
        NoticeSignal::Usr1 => Signal::SIGUSR1,
        NoticeSignal::Usr2 => Signal::SIGUSR2,
        NoticeSignal::Winch => Signal::SIGWINCH,
    }
}

/// Sends a POST request without a body, and waits for its status, however long that takes.
pub(super) async fn post(server: &Server, path: &str) -> std::io::Result<u16> {
    let request = format!("POST {path} HTTP/1.1\r\nUser-Agent: gateway\r\nContent-Length: 0");
    status_of(server, &request).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request, and gives its first line back.
    async fn server(answer: &'static [u8]) -> (Server, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new(listener.local_addr().unwrap(), std::process::id());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            let request = String::from_utf8(request).unwrap();
            request.lines().next().unwrap().to_owned()
        });
        (server, task)
    }

    #[tokio::test]
    async fn a_path_is_posted_to_and_its_status_read() {
        let (ready, asked) = server(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(post(&ready, "/drain").await.unwrap(), 202);
        assert_eq!(asked.await.unwrap(), "POST /drain HTTP/1.1");
        let (ready, _asked) = server(b"SSH-2.0-OpenSSH_9\r\n").await;
        assert_eq!(
            post(&ready, "/drain").await.unwrap_err().kind(),
            std::io::ErrorKind::InvalidData
        );
    }
}

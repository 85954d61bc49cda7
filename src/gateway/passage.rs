//! The passages of a generation that takes over: the readiness request of each sidecar that was
//! started or restarted for it, sent the way that clients come. A sidecar is ready at its private
//! address; whether clients get an answer, only this shows where none asks.
//!
//! The request goes through a connection to a serving thread, as the watchdog's does, so it is the same
//! with any listener, and during a hand-over it cannot reach the other process. It counts among no
//! client's.

use std::net::IpAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::generation::Generation;
use super::passage_wait::ANSWER;
use super::slot::Slot;
use crate::config::{Listen, Ready};
use crate::proxy::{ANSWERED_BY, Backend, CAUSE, Workers};
use crate::sidecar::SidecarState;
use crate::state::passage::{Passage, PassageEnd};
use crate::text::redact::Redactor;

/// How long the rest of an answer is read, so that its server can finish it.
const REST: Duration = Duration::from_secs(2);

/// A host for requests where no client of this machine has an address to come by.
const LOCAL: &str = "localhost";

/// One passage to be made.
#[derive(Debug)]
struct Asking {
    passage: Passage,
    method: Method,
    path: String,
    host: String,
    backend: Arc<Backend>,
}

/// Makes the passages of the sidecars that were renewed for `generation`, whose front door is open at
/// `listeners`.
pub async fn passages(
    generation: Arc<Generation>,
    listeners: Vec<Listen>,
    workers: Arc<Workers>,
    redactor: Redactor,
) -> Vec<Passage> {
    let any = any_host(&listeners);
    let renewed = generation.renewed.iter();
    let slots = renewed.filter_map(|name| generation.slots.get(name));
    let made = slots.map(async |slot| match asking(slot, &generation, &any) {
        Ok(asking) => asking.ask(&workers).await,
        Err(not_asked) => not_asked,
    });
    let mut passages = join_all(made).await;
    for passage in &mut passages {
        passage.request = passage.request.as_ref().map(|text| redactor.text(text));
        if let PassageEnd::Failed { why } = &mut passage.end {
            *why = redactor.text(why);
        }
    }
    passages
}

/// The host by which clients of this machine ask where any host will do.
fn any_host(listeners: &[Listen]) -> String {
    let mut addresses = listeners.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    });
    match addresses.next() {
        None => LOCAL.to_owned(),
        Some(address) if address.ip().is_unspecified() => format!("{LOCAL}:{}", address.port()),
        Some(address) => match address.ip() {
            // A zone means nothing to a server.
            IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
            IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
        },
    }
}

/// What is asked of this sidecar.
///
/// # Errors
/// The passage without a request, with the reason.
fn asking(slot: &Slot, generation: &Generation, any: &str) -> Result<Asking, Passage> {
    let mut passage = Passage {
        sidecar: slot.name().to_owned(),
        request: None,
        end: PassageEnd::Unanswered { waited_ms: 0 },
    };
    let not_asked = |passage: Passage, why: &str| {
        let end = PassageEnd::NotAsked { why: why.into() };
        Err(Passage { end, ..passage })
    };
    match slot.sidecar().state() {
        SidecarState::Ready { other: None, .. } => {}
        SidecarState::Ready { other: Some(_), .. } => {
            return not_asked(passage, "it does not speak HTTP/1");
        }
        _ => return not_asked(passage, "it is not ready"),
    }
    let (method, path) = match slot.spec().ready {
        Ready::Answers => (Method::HEAD, "/".to_owned()),
        Ready::Http(path) => (Method::GET, path),
        Ready::Tcp | Ready::Notify => {
            return not_asked(passage, "its `ready` asks for no request");
        }
    };
    // The query may hold secrets.
    let shown = path.split('?').next().unwrap_or_default();
    let request = format!("{method} {shown}");
    let backend = Arc::clone(slot.backend());
    match generation.host_to(&backend, shown, any) {
        Some(host) => {
            passage.request = Some(request);
            Ok(Asking {
                passage,
                method,
                path,
                host,
                backend,
            })
        }
        None => not_asked(
            passage,
            &format!("{request} is not on its routes, which is no fault"),
        ),
    }
}

impl Asking {
    /// Asks, and waits for the answer within [`ANSWER`].
    async fn ask(self, workers: &Workers) -> Passage {
        let begun = Instant::now();
        let waited_ms = ANSWER.as_millis() as u64;
        let asked = async { self.response(workers.passage()?).await };
        let end = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(response)) => self.judge(response, begun),
            Ok(Err(why)) => PassageEnd::Failed { why },
            Err(_) if self.backend.tickets.answered_since(begun) => {
                PassageEnd::Behind { waited_ms }
            }
            Err(_) => PassageEnd::Unanswered { waited_ms },
        };
        Passage {
            end,
            ..self.passage
        }
    }

    async fn response(&self, end: StdUnixStream) -> Result<Response<Incoming>, String> {
        let text = |error: hyper::Error| error.to_string();
        let stream = UnixStream::from_std(end).map_err(|error| error.to_string())?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // Ends with the connection; its error reaches the request.
        tokio::spawn(driver);
        let request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header(HOST, &self.host)
            .header(USER_AGENT, "gateway-probe")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(text)
    }

    fn judge(&self, response: Response<Incoming>, begun: Instant) -> PassageEnd {
        let took_ms = begun.elapsed().as_millis() as u64;
        let status = response.status().as_u16();
        let told = |name: &'static str| {
            let value = response.headers().get(HeaderName::from_static(name))?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let end = match told(ANSWERED_BY) {
            Some(server) if server == self.passage.sidecar => {
                PassageEnd::Answered { status, took_ms }
            }
            Some(server) => PassageEnd::NotAsked {
                why: format!("{server} answered in its place"),
            },
            None => PassageEnd::Failed {
                why: match told(CAUSE) {
                    Some(cause) => format!("{status}, {cause}"),
                    None => format!("{status} by the gateway itself"),
                },
            },
        };
        tokio::spawn(tokio::time::timeout(REST, response.into_body().collect()));
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_any_host_names_where_clients_of_this_machine_come_by() {
        for (listeners, host) in [
            (&["127.0.0.1:80", "unix:/x"][..], "127.0.0.1:80"),
            (&["unix:/x", "0.0.0.0:81"], "localhost:81"),
            (&["[::1]:82"], "[::1]:82"),
            (&["[::]:83"], "localhost:83"),
            (&["unix:/x"], "localhost"),
            (&[], "localhost"),
        ] {
            let listeners: Vec<Listen> =
                listeners.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(any_host(&listeners), host);
        }
    }
}

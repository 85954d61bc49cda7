//! The attempts at one request: which connection each uses, and when a request is sent once more.
//!
//! | what happened | what is done |
//! |---|---|
//! | the connection was gone before the request was written | it is routed anew: nothing was sent |
//! | a drain's end cut a safe request | it is sent once more, to whichever server is next |
//! | a safe request was not read: its server had closed the connection, or died before | the same |
//! | a kept connection closed under a safe request that the server had read | it is sent once more to this very server: one that died may have died of it |
//! | anything else | 502 |
//!
//! A request with a body is sent once, and so is one of which a byte of the answer came.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::exchange_record::ExchangeRecord;
use super::forwarded::is_https;
use super::head_limits::HeadLimits;
use super::headers::{self, HopByHop};
use super::hold::RequestHold;
use super::hops;
use super::interim::{self, Interim};
use super::local_reply::NotForwarded;
use super::private_url::{PublicOrigin, make_public};
use super::request_body::{ClientBody, RequestBody};
use super::sessions::RequestSession;
use super::stream_borders::StreamBorders;
use super::ticket::{RequestLine, Ticket, TicketKind};
use super::upstream::{Address, Upstream, UpstreamLease};
use super::upstream_connection::UpstreamConnection;
use super::upstream_response::UpstreamResponse;
use super::{Front, RoutingTable};

/// How often one request is tried: on connections that turn out dead before it is written, and once
/// more after it was. Each further try is on a fresh connection.
const TRIES: usize = 3;

/// One request with everything its attempts have in common.
pub struct Exchange<'a> {
    pub front: &'a Arc<Front>,
    /// The routes at the time when the request came.
    pub table: &'a RoutingTable,
    pub host: &'a str,
    pub kind: TicketKind,
    /// Whether it has a connection to its server for itself: a server that sends a body with its answer
    /// to HEAD, as some do, spoils it for the next request.
    pub alone: bool,
    pub body: ClientBody,
    pub via: bool,
    /// `limits.answer`; zero means without limit.
    pub answer: Duration,
    pub heads: HeadLimits,
    /// Where interim responses go; none for a client that speaks HTTP/1.0, which knows none.
    pub interim: Option<Arc<Interim>>,
}

/// A connection on which the request may be sent.
struct Way {
    ticket: Ticket,
    upstream: Arc<Upstream>,
    connection: UpstreamConnection,
}

/// A response, its connection if it can be used again, and where it can end early.
type Answer = (
    Response<Incoming>,
    Option<UpstreamLease>,
    Option<StreamBorders>,
);

/// Why one attempt did not bring a response.
enum AttemptError {
    /// The connection was gone before the request was written; the head comes back.
    Unsent(Box<Request<()>>, String),
    /// The request was written, and nothing came back.
    Unanswered { read: bool, why: String },
    /// The server may have done a part of the work.
    Interrupted(String),
    /// The server did not answer within `limits.answer`.
    TooSlow(String),
}

/// Where a request is sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// Wherever its route leads now.
    Anywhere,
    /// To the same run of the same server.
    Here,
    Nowhere,
}

impl Again {
    /// For a safe request without a byte of an answer: whether a drain's end `cut` it, whether its
    /// connection was `kept` from an earlier request, and whether the server had `read` it.
    fn unanswered(cut: bool, kept: bool, read: bool) -> Self {
        match (cut || !read, kept) {
            (true, _) => Self::Anywhere,
            (false, true) => Self::Here,
            (false, false) => Self::Nowhere,
        }
    }
}

impl Exchange<'_> {
    pub async fn run(
        &self,
        mut head: Request<()>,
        record: &mut ExchangeRecord,
    ) -> Result<UpstreamResponse, NotForwarded> {
        let line = RequestLine::new(head.method(), head.uri());
        let mut hold = RequestHold {
            front: self.front,
            host: self.host,
            kind: self.kind,
            line: &line,
            record,
            session: self.session(&head),
            entered: None,
            since: None,
        };
        let repeatable = headers::safe(head.method()) && self.body.ended();
        let fresh = self.alone || self.kind == TicketKind::Tunnel;
        let mut way = pin!(self.way(&mut hold, repeatable, fresh)).await?;
        let (mut tries, mut sent) = (1, false);
        loop {
            // A connection that dies after the head was sent does not give the head back.
            let spare = (repeatable && !sent).then(|| head.clone());
            let Way {
                ticket,
                upstream,
                connection,
            } = way;
            if !upstream.is_sidecar() && ticket.crowd() > hops::UNMARKED {
                self.front.hop.put(head.headers_mut());
            }
            let kept = connection.kept;
            hold.record.sent();
            let error = match pin!(self.attempt(&upstream, connection, head)).await {
                Ok((response, lease, borders)) => {
                    ticket.answered();
                    hold.record.upstream_answered();
                    let session = hold.session.take().zip(hold.entered.take());
                    let session = session.and_then(|(session, by)| session.learn(&response, &by));
                    return Ok(UpstreamResponse {
                        response,
                        ticket,
                        lease,
                        borders,
                        session,
                    });
                }
                Err(error) => error,
            };
            if let AttemptError::TooSlow(why) = error {
                return Err(NotForwarded::AnswerTimeout(why));
            }
            sent |= matches!(error, AttemptError::Unanswered { .. });
            let (again, next, why) = self.after(error, spare, kept, upstream.is_cut());
            debug!("try {tries} failed: {why}");
            tries += 1;
            head = match next {
                Some(head) if tries <= TRIES => head,
                _ => return Err(self.failed(why)),
            };
            way = if again == Again::Here {
                self.here(&mut hold, ticket, upstream, why).await?
            } else {
                drop(ticket);
                self.way(&mut hold, repeatable, true).await?
            };
            if sent {
                hold.record.retried();
                self.front.stats.retries.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The request's session, where those of its server are remembered.
    fn session(&self, head: &Request<()>) -> Option<RequestSession> {
        let sessions = self.table.routes.sessions(self.host, head.uri().path())?;
        Some(sessions.of(head.uri(), head.headers()))
    }

    /// A way to the server that the request's route leads to, waiting for one that is away.
    async fn way(
        &self,
        hold: &mut RequestHold<'_>,
        repeatable: bool,
        fresh: bool,
    ) -> Result<Way, NotForwarded> {
        loop {
            let (ticket, upstream) = pin!(hold.enter()).await?;
            if !fresh && let Some(connection) = upstream.kept(repeatable).await {
                return Ok(Way {
                    ticket,
                    upstream,
                    connection,
                });
            }
            let turn = hold.turn(&upstream, ticket.backend()).await?;
            match upstream.connect(turn, self.heads).await {
                Ok(connection) => {
                    return Ok(Way {
                        ticket,
                        upstream,
                        connection,
                    });
                }
                Err(error) => {
                    let why = format!("{} refuses connections: {error}", ticket.backend());
                    drop(ticket);
                    if !upstream.is_sidecar() {
                        return Err(NotForwarded::BadGateway(why));
                    }
                    hold.connection_refused(&why).await?;
                }
            }
        }
    }

    /// A new connection to the run of the server that the request was sent to before. It may refuse
    /// connections for a moment, but when it is gone, the request failed: `why` says how.
    async fn here(
        &self,
        hold: &mut RequestHold<'_>,
        ticket: Ticket,
        upstream: Arc<Upstream>,
        why: String,
    ) -> Result<Way, NotForwarded> {
        loop {
            let turn = hold.turn(&upstream, ticket.backend()).await?;
            if let Ok(connection) = upstream.connect(turn, self.heads).await {
                return Ok(Way {
                    ticket,
                    upstream,
                    connection,
                });
            }
            if upstream.is_sidecar() {
                hold.connection_refused(&why).await?;
            }
            if !upstream.is_sidecar() || !hold.leads_to(&upstream) {
                return Err(NotForwarded::BadGateway(why));
            }
        }
    }

    /// Where the request goes after an attempt without a response, its head if it may go there, and
    /// why there was none.
    fn after(
        &self,
        error: AttemptError,
        spare: Option<Request<()>>,
        kept: bool,
        cut: bool,
    ) -> (Again, Option<Request<()>>, String) {
        match error {
            AttemptError::Unsent(head, why) if !self.body.taken() => {
                (Again::Anywhere, Some(*head), why)
            }
            AttemptError::Unanswered { read, why } => {
                let again = Again::unanswered(cut, kept, read);
                (again, spare.filter(|_| again != Again::Nowhere), why)
            }
            AttemptError::Unsent(_, why)
            | AttemptError::Interrupted(why)
            | AttemptError::TooSlow(why) => (Again::Nowhere, None, why),
        }
    }

    fn failed(&self, why: String) -> NotForwarded {
        if self.body.too_large() {
            NotForwarded::TooLarge(self.front.table().settings.limits.body)
        } else if self.body.stalled() {
            NotForwarded::BodyStalled
        } else if self.body.invalid() {
            NotForwarded::BodyInvalid
        } else if self.body.broken_off() {
            NotForwarded::BodyBrokenOff
        } else {
            NotForwarded::BadGateway(why)
        }
    }

    async fn attempt(
        &self,
        upstream: &Arc<Upstream>,
        mut connection: UpstreamConnection,
        mut head: Request<()>,
    ) -> Result<Answer, AttemptError> {
        let bodiless = self.body.ended() && !self.body.taken();
        let body = RequestBody((!bodiless).then(|| self.body.clone()));
        if body.size_hint().exact().is_none() {
            // hyper would leave out the body of a GET whose length is not known.
            let chunked = HeaderValue::from_static("chunked");
            head.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        let sidecar = match &upstream.address {
            Address::Sidecar(server) => Some((server, is_https(head.headers()))),
            Address::Name(_) | Address::Unix(_) => None,
        };
        let request = head.map(|()| body);
        let mut response = pin!(self.send(upstream, &mut connection, request)).await?;
        connection.take_surplus().append_to(response.headers_mut());
        let hop_by_hop = HopByHop::of(response.headers());
        if let Some(announced) = hop_by_hop.keep_alive(response.headers()) {
            upstream.pool.announced(announced);
        }
        // A response before the end of the body, or an error about it: the server may never read
        // the rest, and the next request would wait behind it.
        let unread = !self.body.ended() || (!bodiless && response.status().as_u16() >= 400);
        let reusable = !unread
            && !self.alone
            && hop_by_hop.keeps_alive(response.headers(), response.version())
            && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        let endless = response.body().size_hint().exact().is_none();
        let borders = endless.then(|| {
            let headers = response.headers();
            StreamBorders::of(headers, connection.chunks(headers))
        });
        headers::to_client(&mut response, hop_by_hop, self.via);
        if let Some((server, https)) = sidecar {
            let origin = PublicOrigin {
                https,
                host: self.host,
            };
            make_public(response.headers_mut(), server.at.address.port(), origin);
        }
        let lease = reusable.then(|| UpstreamLease {
            connection,
            upstream: Arc::clone(upstream),
            sent: self.body.clone(),
        });
        Ok((response, lease, borders))
    }

    async fn send(
        &self,
        upstream: &Upstream,
        connection: &mut UpstreamConnection,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, AttemptError> {
        let before = connection.received();
        connection.begin_wait(self.interim.clone());
        let fresh = !connection.kept;
        let sent = {
            // Pinned at once: a future that is moved is copied.
            let sending = pin!(connection.sender.try_send_request(request));
            let sending = pin!(upstream.pool.making_room(fresh, sending));
            let sending = pin!(interim::before_response(self.interim.as_deref(), sending));
            if self.answer.is_zero() {
                Some(sending.await)
            } else {
                self.within_limit(sending).await
            }
        };
        // Not later, either: what comes after a response of the gateway's own would be taken for the
        // next one.
        connection.end_wait();
        let Some(sent) = sent else {
            let why = format!(
                "{} did not answer within {:?} (limits.answer)",
                upstream.address, self.answer
            );
            return Err(AttemptError::TooSlow(why));
        };
        sent.map_err(|mut error| {
            let unsent = error.take_message();
            let error = with_causes(&error.into_error());
            let other = connection.other_protocol();
            let why = match other.as_ref().or(upstream.other.as_ref()) {
                Some(other) => format!("{} {other}", upstream.address),
                None => format!("{} broke off: {error}", upstream.address),
            };
            match unsent {
                Some(request) => AttemptError::Unsent(Box::new(request.map(drop)), why),
                None if connection.received() == before && !self.body.taken() => {
                    let read = !connection.unread();
                    AttemptError::Unanswered { read, why }
                }
                None => AttemptError::Interrupted(why),
            }
        })
    }

    /// Waits for an answer no longer than `limits.answer`, which counts from the end of the client's
    /// body.
    async fn within_limit<T>(&self, mut answer: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut until = Instant::now() + self.answer;
        loop {
            if let Ok(answer) = timeout_at(until, &mut answer).await {
                return Some(answer);
            }
            let now = Instant::now();
            until = match self.body.ended_at() {
                _ if !self.body.ended() => now + self.answer,
                Some(ended) if ended + self.answer > now => ended + self.answer,
                _ => return None,
            };
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::Again;

    #[test]
    fn a_server_that_died_with_a_request_does_not_hand_it_to_the_next() {
        for (cut, kept, read, again) in [
            (false, false, true, Again::Nowhere),
            (false, true, true, Again::Here),
            (false, true, false, Again::Anywhere),
            (false, false, false, Again::Anywhere),
            (true, false, true, Again::Anywhere),
        ] {
            let found = Again::unanswered(cut, kept, read);
            assert_eq!(found, again, "cut {cut}, kept {kept}, read {read}");
        }
    }
}

//! The attempts at one request: which connection each uses, and when a failed one is repeated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::Front;
use super::headers;
use super::hold::RequestHold;
use super::local_reply::NotForwarded;
use super::request_body::{ClientBody, RequestBody};
use super::ticket::{RequestLine, Ticket, TicketKind};
use super::upstream::{Upstream, UpstreamLease};
use super::upstream_connection::UpstreamConnection;

/// How often one request is tried on connections that turn out dead; each further try is on a fresh
/// connection.
const TRIES: usize = 3;

/// One request with everything its attempts have in common.
pub struct Exchange<'a> {
    pub front: &'a Arc<Front>,
    pub host: &'a str,
    pub kind: TicketKind,
    pub body: ClientBody,
    pub via: bool,
}

/// A response with what must be held until its last byte.
pub struct UpstreamResponse {
    pub response: Response<Incoming>,
    pub ticket: Ticket,
    /// The upstream connection, if it can be used again.
    pub lease: Option<UpstreamLease>,
}

/// Why one attempt did not bring a response.
enum AttemptError {
    /// The connection was gone before the request was written; the head comes back.
    Unsent(Box<Request<()>>, String),
    /// The request was sent, nothing came back, and the client's body is untouched.
    NoResponse(String),
    /// The server may have done a part of the work.
    Interrupted(String),
}

impl Exchange<'_> {
    pub async fn run(&self, mut head: Request<()>) -> Result<UpstreamResponse, NotForwarded> {
        let line = RequestLine::new(head.method(), head.uri());
        let idempotent = headers::idempotent(head.method());
        let mut hold = RequestHold {
            front: self.front,
            host: self.host,
            kind: self.kind,
            line: &line,
            until: None,
        };
        let mut tries = 0;
        loop {
            let (ticket, upstream) = hold.enter().await?;
            let fresh = tries > 0 || self.kind == TicketKind::Tunnel;
            let connection = match upstream.connection(idempotent, fresh).await {
                Ok(connection) => connection,
                Err(error) => {
                    let why = format!("{} refuses connections: {error}", ticket.backend());
                    drop(ticket);
                    if !upstream.is_sidecar() {
                        return Err(NotForwarded::BadGateway(why));
                    }
                    hold.connection_refused(&why).await?;
                    continue;
                }
            };
            // A connection that dies after the head was sent does not give the head back.
            let spare = (idempotent && !self.body.taken()).then(|| head.clone());
            match self.attempt(&upstream, connection, head).await {
                Ok((response, lease)) => {
                    return Ok(UpstreamResponse {
                        response,
                        ticket,
                        lease,
                    });
                }
                Err(error) => {
                    tries += 1;
                    self.front.stats.retries.fetch_add(1, Ordering::Relaxed);
                    drop(ticket);
                    head = self.head_for_retry(error, spare, tries)?;
                }
            }
        }
    }

    /// The head for another try, where one is allowed: nothing of the body was taken, and either
    /// nothing was sent or the request is idempotent.
    fn head_for_retry(
        &self,
        error: AttemptError,
        spare: Option<Request<()>>,
        tries: usize,
    ) -> Result<Request<()>, NotForwarded> {
        if self.body.too_large() {
            let limit = self.front.table().settings.limits.body;
            return Err(NotForwarded::TooLarge(limit));
        }
        let (head, why) = match error {
            AttemptError::Unsent(head, why) if !self.body.taken() => (Some(*head), why),
            AttemptError::NoResponse(why) => (spare, why),
            AttemptError::Unsent(_, why) | AttemptError::Interrupted(why) => (None, why),
        };
        debug!("try {tries} failed: {why}");
        head.filter(|_| tries < TRIES)
            .ok_or(NotForwarded::BadGateway(why))
    }

    async fn attempt(
        &self,
        upstream: &Arc<Upstream>,
        mut connection: UpstreamConnection,
        head: Request<()>,
    ) -> Result<(Response<Incoming>, Option<UpstreamLease>), AttemptError> {
        let bodiless = self.body.ended() && !self.body.taken();
        let body = RequestBody((!bodiless).then(|| self.body.clone()));
        let mut response = self
            .send(upstream, &mut connection, head.map(|()| body))
            .await?;
        if let Some(announced) = response
            .headers()
            .get("keep-alive")
            .and_then(|value| value.to_str().ok())
        {
            upstream.pool.announced(announced);
        }
        // A response before the end of the body, or an error about it: the server may never read
        // the rest, and the next request would wait behind it.
        let unread = !self.body.ended() || (!bodiless && response.status().as_u16() >= 400);
        let reusable = !unread
            && headers::keeps_alive(response.headers(), response.version())
            && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut response, self.via);
        let lease = reusable.then(|| UpstreamLease {
            connection,
            upstream: Arc::clone(upstream),
            sent: self.body.clone(),
        });
        Ok((response, lease))
    }

    async fn send(
        &self,
        upstream: &Upstream,
        connection: &mut UpstreamConnection,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, AttemptError> {
        let before = connection.received();
        let sent = connection.sender.try_send_request(request).await;
        sent.map_err(|mut error| {
            let unsent = error.take_message();
            let error = with_causes(&error.into_error());
            let why = format!("{} broke off: {error}", upstream.address);
            match unsent {
                Some(request) => AttemptError::Unsent(Box::new(request.map(drop)), why),
                None if connection.received() == before && !self.body.taken() => {
                    AttemptError::NoResponse(why)
                }
                None => AttemptError::Interrupted(why),
            }
        })
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

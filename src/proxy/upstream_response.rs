//! The response of a server on its way to the client.

use http::Response;
use hyper::body::Incoming;

use super::sessions::SessionTap;
use super::stream_borders::StreamBorders;
use super::ticket::Ticket;
use super::upstream::UpstreamLease;

/// A response with what must be held until its last byte.
pub struct UpstreamResponse {
    pub response: Response<Incoming>,
    pub ticket: Ticket,
    /// The upstream connection, if it can be used again.
    pub lease: Option<UpstreamLease>,
    /// Where it can end early, if its length is not announced.
    pub borders: Option<StreamBorders>,
    /// Looks for a session in its body.
    pub session: Option<SessionTap>,
}

//! The front door: listeners, client connections, and the way of a request to an upstream and back.
//!
//! The documentation of the crate walks one request through these files.
//!
//! # Restart and stop
//!
//! A client connection belongs to the process and outlives every generation: each request uses the
//! [`RoutingTable`] that is current at that moment. A generation's drain waits for tickets. How
//! accepting ends and how kept connections are drained, migrated to another process or closed is the
//! state machine of `drain.rs`; `tasks.rs` counts what still runs. A WebSocket is closed with status
//! 1012 (`tunnel.rs` with `websocket.rs`).

mod accept;
mod access_log;
mod address_limits;
mod admission;
mod backend;
mod client_io;
mod client_left;
mod client_move;
mod client_socket;
mod connection;
mod control_upgrade;
mod crowd;
mod disposition;
mod drain;
mod endpoints;
mod exchange_end;
mod exchange_record;
mod forward;
mod forwarded;
mod front;
mod happy_eyeballs;
pub mod head_limits;
mod headers;
mod hold;
mod hops;
mod interim;
mod lazy_timer;
mod listener;
mod local_reply;
mod log_throttle;
mod metrics;
mod moved_client;
mod named_server;
mod other_protocol;
mod passage;
mod pool;
mod private_url;
pub mod progress;
pub mod proxy_header;
mod proxy_protocol;
mod request_body;
mod request_head;
mod request_id;
mod request_read;
mod response_body;
mod response_framing;
mod rest;
mod retry;
mod room;
mod route_stats;
mod routes;
mod seats;
mod send_wait;
mod sessions;
mod sidecar_gauges;
mod socket_read;
mod stats;
mod stream_borders;
mod streams;
mod surplus_lines;
mod tasks;
mod ticket;
mod tunnel;
mod upstream;
mod upstream_connection;
mod upstream_response;
mod wave;
pub mod websocket;
mod worker;
mod worker_context;

use crate::config::{AccessLogTarget, Config, Hold, LimitsSection, Listen};
pub use access_log::{check as check_access_log, open as open_access_log};
pub use backend::{Backend, Door, close_tunnels};
pub use endpoints::IDENTITY;
pub use forwarded::ForwardedPolicy;
pub use front::Front;
pub use listener::{BACKLOG, BindError, ListenSocket};
pub use local_reply::{Reason, Refusal};
pub use moved_client::{Announcement, MovedClient};
pub use named_server::NamedServer;
pub use other_protocol::{HTTP2_FRAME_HEAD, OtherProtocol};
pub use passage::{ANSWERED_BY, CAUSE};
pub use route_stats::{ClientFailure, RequestTally};
pub use routes::{Route, Routes};
pub use sessions::Sessions;
pub use sidecar_gauges::SidecarGauges;
pub use ticket::first_few;
pub use tunnel::CLOSE_HANDSHAKE;
pub use upstream::{Address, Upstream};
pub use worker::Workers;

/// The routes and settings of one generation.
#[derive(Debug)]
pub struct RoutingTable {
    /// The generation's number; 0 before the first.
    pub generation: u64,
    pub routes: Routes,
    pub settings: Settings,
}

/// How requests are treated, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `gateway.health_paths`
    pub health_paths: bool,
    /// `gateway.via`
    pub via: bool,
    /// `gateway.forwarded` and `gateway.trusted_proxies`
    pub forwarded: ForwardedPolicy,
    /// `gateway.request_id`, or whether there is an access log.
    pub request_id: bool,
    /// `gateway.keep_header_case`
    pub keep_header_case: bool,
    /// `gateway.proxy_protocol`
    pub proxy_protocol: Vec<Listen>,
    /// `restart.hold`
    pub hold: Hold,
    pub limits: LimitsSection,
}

impl Settings {
    /// The settings of a checked configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            health_paths: config.gateway.health_paths,
            via: config.gateway.via,
            forwarded: ForwardedPolicy::new(config),
            // An id that stands in no log leads to nothing, and costs a fourteenth of a request's time.
            request_id: (config.gateway.request_id)
                .unwrap_or(config.gateway.access_log != AccessLogTarget::Off),
            keep_header_case: config.gateway.keep_header_case,
            proxy_protocol: config.gateway.proxy_protocol.clone(),
            hold: config.restart.hold.clone(),
            limits: config.limits.clone(),
        }
    }
}

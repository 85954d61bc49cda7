//! The front door: listeners, client connections, and the way of a request to an upstream and back.
//!
//! # One request, from accept to upstream and back
//!
//! A worker thread (`worker.rs`) runs one accept loop for each listener (`listener.rs`). The loop
//! (`accept.rs`) waits for a free slot (`admission.rs`), accepts a client, and spawns its connection
//! (`connection.rs`), which reads requests from the client's socket (`client_io.rs`) and counts each
//! as in flight (`progress.rs`). A request for the gateway itself is answered in `endpoints.rs`. Any
//! other is checked in `forward.rs`, its headers are made fit for the upstream (`headers.rs`,
//! `forwarded.rs`), and its attempts begin (`retry.rs`): the route is looked up (`hold.rs` with
//! `routes.rs`), the backend's door lets the request through, or holds it (`backend.rs`), and gives
//! it a ticket (`ticket.rs`). Then it takes a connection to the upstream (`upstream.rs`), an idle one
//! from the pool (`pool.rs`) or a new one (`upstream_connection.rs`), and is sent with the client's
//! body (`request_body.rs`). On the way back `forward.rs` either passes the response on, with a body
//! that holds the ticket until the last byte (`response_body.rs`), or turns a 101 into a tunnel
//! (`tunnel.rs`); where no upstream answered, it sends a reply of the gateway's own
//! (`local_reply.rs`).
//!
//! # Restart and stop
//!
//! A client connection belongs to the process and outlives every generation: each request uses the
//! [`RoutingTable`] that is current at that moment. A generation's drain waits for tickets. How
//! accepting ends and how kept connections are drained, migrated to another process or closed is the
//! state machine of `drain.rs`; `tasks.rs` counts what still runs. A WebSocket is closed with status
//! 1012 (`tunnel.rs` with `websocket.rs`).

mod accept;
mod admission;
mod backend;
mod client_io;
mod connection;
mod drain;
mod endpoints;
mod forward;
mod forwarded;
mod front;
mod headers;
mod hold;
mod listener;
mod local_reply;
mod pool;
pub mod progress;
mod request_body;
mod request_read;
mod response_body;
mod retry;
mod routes;
mod stats;
mod tasks;
mod ticket;
mod tunnel;
mod upstream;
mod upstream_connection;
pub mod websocket;
mod worker;

use crate::config::{Config, Hold};
pub use backend::{Backend, Door, close_tunnels};
pub use endpoints::IDENTITY;
pub use forwarded::TrustedProxies;
pub use front::Front;
pub use listener::{BACKLOG, BindError, ListenSocket};
pub use local_reply::Refusal;
pub use progress::Timeouts;
pub use routes::{Route, Routes};
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
    /// `gateway.trusted_proxies`
    pub trusted: TrustedProxies,
    /// `restart.hold`
    pub hold: Hold,
    /// `limits.body`, bytes
    pub body: u64,
    /// `limits.connections`
    pub connections: usize,
    /// `limits.header_size`, bytes
    pub header_size: usize,
    /// `limits.header_time` and `limits.idle`
    pub timeouts: Timeouts,
}

impl Settings {
    /// The settings of a checked configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            health_paths: config.gateway.health_paths,
            via: config.gateway.via,
            trusted: TrustedProxies::new(config),
            hold: config.restart.hold.clone(),
            body: config.limits.body,
            connections: config.limits.connections,
            header_size: config.limits.header_size,
            timeouts: Timeouts {
                head: config.limits.header_time.0,
                idle: config.limits.idle.0,
            },
        }
    }
}

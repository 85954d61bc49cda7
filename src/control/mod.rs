//! The protocol of gatewayctl and a gateway: JSON frames, one a line, over a unix socket.

pub mod client;
pub mod counters;
#[cfg(test)]
pub mod fake_gateway;
pub mod frames;
pub mod protocol;
pub mod server;

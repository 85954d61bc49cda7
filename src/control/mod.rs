//! The protocol of gatewayctl and a gateway: JSON frames over a unix socket, one a line, or over
//! WebSocket on the listeners of the front door, one a message.

pub mod access;
pub mod client;
pub mod counters;
#[cfg(test)]
pub mod fake_gateway;
pub mod frames;
pub mod protocol;
pub mod server;

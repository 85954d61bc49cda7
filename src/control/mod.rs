//! How gatewayctl and a gateway speak: JSON frames, one a line, over a unix socket.

pub mod protocol;

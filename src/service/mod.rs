//! Installing a gateway as a service and driving it there.

mod bus;
mod error;
pub mod provenance;
mod quote;
pub mod sandbox;
pub mod systemd;
pub mod unit;
mod user;

pub use error::ServiceError;

//! Gateways that were left behind and hold a port: which are proven stale, and how they are ended.
//!
//! [`survey`] gathers what is known, [`judge`] decides on that alone, [`end_stale`] acts and reports.
//! Nothing healthy is ever killed: whoever is not proven stale is kept and named. Used by
//! `gatewayctl clean` and `gatewayctl restart`, and by a gateway under a service manager that finds
//! its address held.

mod clean;
mod judge;
mod liveness;
mod report;
mod survey;

pub use clean::{CleanMode, address_state, end_stale};
pub use report::{AddressState, CleanReport, KeepCode, KeptProcess};
pub use survey::{AddressClaim, ServiceUnit};

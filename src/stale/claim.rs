//! The addresses that a gateway claims, and what identifies that gateway.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::Listen;

/// The addresses that a gateway claims, what identifies it, and what the user said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressClaim {
    /// The name of the instance; none where it is not known.
    pub instance: Option<String>,
    /// The addresses of the front door.
    pub listen: Vec<Listen>,
    /// The state directories that may hold the instance's owner record.
    pub state: Vec<PathBuf>,
    /// The users that the gateway may run as: root may end their processes. Never what a gateway
    /// says of itself.
    pub users: BTreeSet<u32>,
    /// The user whose word the addresses are, where it is another one than who asks: only the
    /// processes of that user are ended then.
    pub told_by: Option<u32>,
    /// None for a gateway without a service.
    pub unit: Option<ServiceUnit>,
    /// Processes that the user protects.
    pub protected: BTreeSet<u32>,
    /// The one process that the user wants ended, whatever it is.
    pub named: Option<u32>,
    /// Who ends what is stale, as in "gatewayctl clean", for the record of what is ended.
    pub by: String,
}

/// The service of a gateway, as its service manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceUnit {
    /// As in "gateway.service".
    pub name: String,
    /// The main process; none while the service does not run.
    pub main: Option<u32>,
    /// The control group; none while the service does not run.
    pub group: Option<String>,
    /// Whether the manager holds listeners for the service, in a socket unit or its fd store.
    pub holds_listeners: bool,
}

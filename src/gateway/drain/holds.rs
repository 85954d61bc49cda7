//! What a drain waits for besides requests and tunnels.

use crate::gateway::handover::borrowed_upstreams::Lent;
use crate::gateway::lease::Claim;

#[derive(Clone, Debug)]
pub struct DrainHolds {
    /// The leases of its beginning: their work may need the old sidecars.
    pub leases: Claim,
    /// Work of a predecessor that needs them, too.
    pub lent: Lent,
}

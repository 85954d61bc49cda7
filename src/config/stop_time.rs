//! How long a stop takes: shared by the gateway, which keeps to it, and by what checks that a
//! supervisor allows as much.

use std::time::Duration;

/// From the end of a stop's drain to the forced end. The drain takes at most 20 s by default, so a
/// stop takes 25 s; the units' TimeoutStopSec is 30 s.
pub const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How long before the supervisor's SIGKILL the gateway forces its own end.
pub const BEFORE_KILL: Duration = Duration::from_secs(5);

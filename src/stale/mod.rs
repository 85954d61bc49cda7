//! Gateways that were left behind and hold a port: which of them are proven stale, and how they are
//! ended.
//!
//! Nothing healthy is ever killed: a process that is not proven stale is kept, and the report names
//! it. `gatewayctl clean`, `gatewayctl restart`, and a gateway that finds its address held under a
//! service manager call [`end_stale`].
//!
//! # A `gatewayctl clean`, from the command line to the signal
//!
//! `cli/commands/clean.rs` reads the flags, and `cli/addresses.rs` finds the gateway that is meant.
//! For an installed one, `service/address_claim.rs` gathers what it claims: its addresses, its
//! state directories and its unit; that is an [`AddressClaim`] (`claim.rs`).
//! `cli/stale_gateways.rs` passes it to [`end_stale`] in this file, which goes through three steps.
//! First, `survey.rs` finds the processes that hold these addresses and what counts in their
//! favour, and asks each gateway among them whether it is alive (`liveness.rs`). Second, `judge.rs`
//! decides on that alone, without a system call: a process is stale, with a proof, or kept, with a reason. An ancestor of this process is always kept.
//! Third, `clean.rs` ends what is stale: it opens a descriptor of the process
//! (`os/process/pidfd.rs`), surveys and judges this one process again, because the questions took
//! seconds, and sends SIGTERM and SIGKILL through the descriptor (`terminate.rs`). The second look
//! is the only return of this walk. In the end `address_state.rs` waits for the addresses to become
//! free, and `report.rs` words the result.
//!
//! `leftover.rs` has a second proof, for a service that systemd restarts: it needs no address.

mod address_state;
mod claim;
mod clean;
mod control_sockets;
mod judge;
mod leftover;
mod liveness;
mod reason;
mod report;
mod survey;
mod terminate;

use std::io;

pub use address_state::{AddressState, address_state};
pub use claim::{AddressClaim, ServiceUnit};
pub use clean::CleanMode;
pub use leftover::end_leftovers;
#[cfg(test)]
pub use reason::EndProof;
pub use reason::KeepCode;
pub use report::{CleanReport, KeptProcess};

/// Ends the gateways that are proven stale at the addresses of a claim, waits for the addresses to
/// become free, and reports.
///
/// # Errors
/// When the kernel does not list its sockets.
pub async fn end_stale(claim: &AddressClaim, mode: CleanMode) -> io::Result<CleanReport> {
    let holders = survey::holders(claim)?;
    let circumstances = survey::circumstances(claim);
    let suspects = survey::suspects(claim, &circumstances, &holders).await;
    let judged = suspects
        .iter()
        .map(|suspect| (suspect, circumstances.judge(suspect)));
    let (killed, kept) = clean::end_judged(claim, judged, mode).await;
    let dry_run = mode == CleanMode::DryRun;
    let state = if dry_run {
        address_state::now(claim, &circumstances, &holders)
    } else {
        address_state::settle(claim, &circumstances, !killed.is_empty()).await?
    };
    Ok(CleanReport {
        addresses: claim.listen.iter().map(ToString::to_string).collect(),
        killed,
        kept,
        state,
        dry_run,
    })
}

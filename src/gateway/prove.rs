//! `gateway check --start`: whether the sidecars start on this machine. Nothing listens for clients
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::mpsc;

use super::building::BuildError;
use crate::config::Loaded;
use crate::sidecar::{Inherited, Sidecar, SidecarStart, StartsBefore};

/// Starts every sidecar on a private port, waits until it is ready, and stops it again. Returns a
/// line for each.
///
/// # Errors
/// The first sidecar that did not start, why, and what it printed last.
pub fn prove(loaded: &Loaded) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let inherited = Arc::new(Inherited::take());
    let redactor = loaded.config.redactor();
    inherited.teach(&redactor);
    // Nobody else may write where the sidecars' sockets are.
    let run_dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut sidecars: Vec<(&str, Sidecar)> = Vec::new();
        let config = &loaded.config;
        let order = config.start_order().into_iter();
        for (name, spec) in order.filter_map(|name| config.sidecar.get_key_value(name)) {
            let before = sidecars
                .iter()
                .filter(|(one, _)| spec.after.iter().any(|name| name == one));
            let after = before.map(|(name, sidecar)| StartsBefore {
                name: (*name).to_owned(),
                state: sidecar.watch(),
                required: true,
            });
            let sidecar = Sidecar::start(SidecarStart {
                name: name.clone(),
                spec: spec.clone(),
                inherited: Arc::clone(&inherited),
                redactor: redactor.clone(),
                run_dir: run_dir.path().to_owned(),
                persist: false,
                after: after.collect(),
                // Nobody needs to know: one start is all there is.
                news: mpsc::unbounded_channel().0,
            });
            sidecars.push((name, sidecar));
        }
        let proofs = sidecars.iter().map(async |(name, sidecar)| {
            let name = (*name).to_owned();
            match sidecar.settled().await {
                Ok(address) => Ok(format!("sidecar {name} starts and is ready on {address}")),
                Err(failure) => Err(BuildError::Sidecar { name, failure }.to_string()),
            }
        });
        // One that fails keeps those from starting that wait for it.
        let proofs = try_join_all(proofs).await;
        join_all(
            sidecars
                .iter()
                .map(|(_, sidecar)| sidecar.stop(Duration::MAX)),
        )
        .await;
        proofs
    })
}

//! What every generation of this process shares, and what a sidecar's start takes from it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{Overrides, SidecarSpec};
use crate::proxy::Front;
use crate::sidecar::{Inherited, SidecarNews, SidecarStart};
use crate::text::redact::Redactor;

/// What every generation of this process shares.
#[derive(Debug)]
pub struct GatewayContext {
    pub front: Arc<Front>,
    /// What the flags said: they overrule each new reading of the configuration.
    pub flags: Overrides,
    /// The environment for sidecars.
    pub inherited: Arc<Inherited>,
    pub redactor: Redactor,
    /// Where notify sockets go.
    pub run_dir: PathBuf,
    /// How many threads serve clients.
    pub workers: usize,
    /// Takes what somebody must know of a sidecar.
    pub news: mpsc::UnboundedSender<SidecarNews>,
}

impl GatewayContext {
    /// What a sidecar's start needs.
    pub fn start(&self, name: &str, spec: &SidecarSpec, persist: bool) -> SidecarStart {
        spec.teach(&self.redactor);
        SidecarStart {
            name: name.to_owned(),
            spec: spec.clone(),
            inherited: Arc::clone(&self.inherited),
            redactor: self.redactor.clone(),
            run_dir: self.run_dir.clone(),
            persist,
            after: Vec::new(),
            news: self.news.clone(),
        }
    }
}

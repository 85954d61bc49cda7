//! What is needed to go back to the generation before, when the one that serves dies soon.

use std::sync::Arc;
use std::time::Instant;

use super::config_source::Material;
use super::generation::Generation;

/// The generation before the one that serves.
#[derive(Debug)]
pub struct Before {
    pub generation: Arc<Generation>,
    pub material: Material,
    /// When the next one took its place.
    pub since: Instant,
}

impl Before {
    /// This generation, made of this, whose place the next one takes now.
    pub fn new(generation: Arc<Generation>, material: Material) -> Self {
        Self {
            generation,
            material,
            since: Instant::now(),
        }
    }
}
